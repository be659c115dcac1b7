//! How objects are asked for and read: as JSON or as protobuf, whole, as far as followers read them, or as metadata alone.
//!
//! Protobuf is asked for where a part of the object is enough, and given up for a kind, for good, when the server has none or gives
//! what cannot be read: what is read is the same, only dearer.

use super::access::Access;
use super::call::{Failure, Request, decoded, whole};
use super::document::told;
use super::list::{Item, METADATA, Part};
use super::protobuf::{self, MEDIA_TYPE};
use super::trimmed::{self, Trimmed};
use super::{Shared, status::Status};
use crate::Filter;
use http::Response;
use http::header::CONTENT_TYPE;
use kube::client::Body;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::PoisonError;
use twill_crds::Kind;

/// Whichever the server has; the first if it has both.
const EITHER: &str = "application/vnd.kubernetes.protobuf,application/json";
/// The same of metadata alone.
const METADATA_EITHER: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                               application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// How much of an object is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: it may be shown, or changed and written back.
    Whole,
    /// What followers read.
    Trimmed,
}

/// A representation, and what becomes of the objects in it.
pub(super) trait Representation {
    /// An object as JSON gives it.
    type Json: DeserializeOwned;
    /// An object as it is handed on.
    type Object;

    /// What the server is told that we take.
    fn accept(&self) -> &'static str;
    /// Whether that may be protobuf.
    fn takes_protobuf(&self) -> bool;
    fn of_json(&self, object: Self::Json) -> Self::Object;
    fn of_protobuf(&self, message: &[u8]) -> Result<Self::Object, String>;
}

/// Documents of a kind.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    kind: Kind,
    part: Option<&'static Trimmed>,
    protobuf: bool,
}

#[cfg(test)]
impl Documents {
    /// All of them, as JSON.
    pub(super) fn whole(kind: &Kind) -> Self {
        Self { kind: kind.clone(), part: None, protobuf: false }
    }
}

impl Representation for Documents {
    type Json = Value;
    type Object = Value;

    fn accept(&self) -> &'static str {
        if self.takes_protobuf() { EITHER } else { "application/json" }
    }

    fn takes_protobuf(&self) -> bool {
        self.protobuf && self.part.is_some()
    }

    fn of_json(&self, object: Value) -> Value {
        let object = match self.part {
            Some(part) => (part.json)(object),
            None => object,
        };
        told(&self.kind, object)
    }

    fn of_protobuf(&self, message: &[u8]) -> Result<Value, String> {
        let part = self.part.ok_or("nobody asked for it")?;
        (part.protobuf)(message).map(|object| told(&self.kind, object))
    }
}

/// Metadata alone, of any kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metadata {
    protobuf: bool,
}

impl Representation for Metadata {
    type Json = Item;
    type Object = Item;

    fn accept(&self) -> &'static str {
        if self.protobuf { METADATA_EITHER } else { METADATA }
    }

    fn takes_protobuf(&self) -> bool {
        self.protobuf
    }

    fn of_json(&self, item: Item) -> Item {
        item
    }

    fn of_protobuf(&self, message: &[u8]) -> Result<Item, String> {
        Item::decode(message).map_err(|error| error.to_string())
    }
}

impl Shared {
    /// Documents of a kind. With something of the filter left to us they are whole: it may be about any field.
    pub(super) fn documents(&self, kind: &Kind, extent: Extent, rest: &Filter) -> Documents {
        let part = trimmed::of(kind).filter(|_| extent == Extent::Trimmed && rest.is_empty());
        Documents { kind: kind.clone(), part, protobuf: self.takes_protobuf(kind) }
    }

    /// Metadata of objects of a kind.
    pub(super) fn metadata(&self, kind: &Kind) -> Metadata {
        Metadata { protobuf: self.takes_protobuf(kind) }
    }

    fn takes_protobuf(&self, kind: &Kind) -> bool {
        !self.json_only.lock().unwrap_or_else(PoisonError::into_inner).contains(kind)
    }

    /// From now on objects of this kind come as JSON.
    pub(super) fn give_up_protobuf(&self, kind: &Kind, why: &str) {
        if self.json_only.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.clone()) {
            tracing::warn!(kind = %kind.kind, why, "no protobuf of the API server's, JSON from now on");
        }
    }
}

impl Access {
    /// A page of a list.
    pub(super) async fn page<R: Representation>(
        &self,
        request: &Request,
        representation: &R,
    ) -> Result<Part<R::Object>, Failure> {
        let response = self.send(request).await?;
        let is_protobuf = is_protobuf(&response);
        let bytes = whole(response, usize::MAX).await?;
        if is_protobuf {
            return protobuf::page(bytes, |message| representation.of_protobuf(message)).map_err(Failure::Unreadable);
        }
        let Part { metadata, items } = decoded::<Part<R::Json>>(&request.asked, &bytes)?;
        let items = items.map(|items| items.into_iter().map(|item| representation.of_json(item)).collect());
        Ok(Part { metadata, items })
    }
}

/// Whether an answer is in protobuf.
pub(super) fn is_protobuf(response: &Response<Body>) -> bool {
    let stated = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    stated.is_some_and(|stated| stated.starts_with(MEDIA_TYPE))
}

/// Why this failure means that protobuf is not to be had, if it does.
pub(super) fn without_protobuf(failure: &Failure) -> Option<&str> {
    match failure {
        Failure::Unreadable(why) => Some(why),
        Failure::Refused(Status { code: 406 | 415, message, .. }) => Some(message),
        Failure::Refused(_) | Failure::Failed(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
