//! All objects of a kind, page by page.

use super::Shared;
use super::call::{Failure, Request};
use super::document::{key_of, revision};
use super::representation::{Extent, Representation, without_protobuf};
use super::selection::Selection;
use super::status::Asked;
use crate::{Error, Filter, Page, Revision};
use serde::Deserialize;
use twill_crds::Kind;

/// Objects of one request. A list of all at once would be held whole by the server, and by us twice.
const PAGE: &str = "500";
/// How often a list is begun anew because the history of its first page is gone.
const ATTEMPTS: usize = 3;

/// Objects as metadata alone, which is all that some want to know.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// A page as it comes.
#[derive(Deserialize)]
pub(super) struct Part<T> {
    #[serde(default)]
    pub(super) metadata: PartMetadata,
    /// A list of none may be null.
    pub(super) items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PartMetadata {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// What an object's metadata says of it.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(default)]
pub(super) struct Item {
    #[prost(message, required, tag = "1")]
    pub(super) metadata: ItemMetadata,
}

/// As far as we need it.
#[derive(Clone, PartialEq, prost::Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ItemMetadata {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) namespace: String,
    #[prost(string, tag = "5")]
    pub(super) uid: String,
    #[prost(string, tag = "6")]
    pub(super) resource_version: String,
}

impl Shared {
    /// All objects within the filter, at one revision.
    pub(super) async fn list(&self, kind: &Kind, filter: &Filter, extent: Extent) -> Result<Page, Error> {
        let (mut items, at, rest) =
            self.listed(kind, filter, |selection| self.documents(kind, extent, &selection.rest)).await?;
        self.listed_at(kind, at);
        if !rest.is_empty() {
            items.retain(|item| rest.matches(item));
        }
        // The server's order is that of `namespace/name`, in which `a-b` comes before `a`.
        if kind.namespaced && filter.namespace.is_none() {
            items.sort_by_cached_key(|item| key_of(kind, item));
        }
        Ok(Page { items, revision: at })
    }

    /// What the filter's objects are and which revision they have; what of the filter was not applied.
    pub(super) async fn list_metadata(
        &self,
        kind: &Kind,
        filter: &Filter,
    ) -> Result<(Vec<Item>, Revision, Filter), Error> {
        self.listed(kind, filter, |_| self.metadata(kind)).await
    }

    /// Pages until there is no more; anew if the server forgets the first meanwhile, does not know a field, or has no protobuf.
    async fn listed<R: Representation>(
        &self,
        kind: &Kind,
        filter: &Filter,
        represented: impl Fn(&Selection) -> R,
    ) -> Result<(Vec<R::Object>, Revision, Filter), Error> {
        let asked = Asked::new("list", kind, None).within(filter);
        let mut expired = 0;
        loop {
            let selection = self.selection(kind, filter);
            let representation = represented(&selection);
            match self.pages(&asked, &selection, &representation).await {
                Ok((items, at)) => return Ok((items, at, selection.rest)),
                Err(Failure::Refused(status)) if self.learns(kind, filter, &status) => {}
                Err(Failure::Refused(status)) if status.code == 410 && expired + 1 < ATTEMPTS => expired += 1,
                Err(failure) => match without_protobuf(&failure).filter(|_| representation.takes_protobuf()) {
                    Some(why) => self.give_up_protobuf(kind, why),
                    None => return Err(failure.error(&asked)),
                },
            }
        }
    }

    async fn pages<R: Representation>(
        &self,
        asked: &Asked,
        selection: &Selection,
        representation: &R,
    ) -> Result<(Vec<R::Object>, Revision), Failure> {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let mut query = selection.query.clone().with("limit", PAGE);
            if !next.is_empty() {
                query = query.with("continue", &next);
            }
            let accept = representation.accept();
            let request = Request { accept, ..Request::get(asked.clone(), format!("{}{query}", selection.path)) };
            let part = self.access.page(&request, representation).await?;
            items.extend(part.items.into_iter().flatten());
            if part.metadata.next.is_empty() {
                return Ok((items, revision(&asked.kind, &part.metadata.resource_version)?));
            }
            next = part.metadata.next;
        }
    }

    /// Whether there is an object of this kind.
    pub(super) async fn has_one(&self, kind: &Kind) -> Result<bool, Error> {
        let asked = Asked::new("list", kind, None);
        let selection = self.selection(kind, &Filter::default());
        let query = selection.query.with("limit", "1");
        let request = Request { accept: METADATA, ..Request::get(asked, format!("{}{query}", selection.path)) };
        let part: Part<Item> = self.access.call(&request).await.map_err(|failure| failure.error(&request.asked))?;
        Ok(part.items.is_some_and(|items| !items.is_empty()))
    }
}
