//! All objects of a kind, page by page.

use super::Shared;
use super::call::{Failure, Request};
use super::document::{key_of, revision, told};
use super::selection::Selection;
use super::status::Asked;
use crate::{Error, Filter, Page, Revision};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use twill_crds::Kind;

/// Objects of one request. A list of all at once would be held whole by the server, and by us twice.
const PAGE: &str = "500";
/// How often a list is begun anew because the history of its first page is gone.
const ATTEMPTS: usize = 3;

/// Objects as metadata alone, which is all that some want to know.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// A page as it comes.
#[derive(Deserialize)]
struct Part<T> {
    #[serde(default)]
    metadata: PartMetadata,
    /// A list of none may be null.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// What an object's metadata says of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Item {
    pub(super) metadata: ItemMetadata,
}

/// As far as we need it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ItemMetadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

impl Shared {
    /// All objects within the filter, at one revision.
    pub(super) async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        let take = |item: Value| told(kind, item);
        let (mut items, at, rest) = self.listed(kind, filter, "application/json", take).await?;
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
        self.listed(kind, filter, METADATA, |item| item).await
    }

    /// Pages until there is no more; anew if the server forgets the first meanwhile, or does not know a field.
    async fn listed<T: DeserializeOwned>(
        &self,
        kind: &Kind,
        filter: &Filter,
        accept: &'static str,
        take: impl Fn(T) -> T,
    ) -> Result<(Vec<T>, Revision, Filter), Error> {
        let asked = Asked::new("list", kind, None).within(filter);
        let mut expired = 0;
        loop {
            let selection = self.selection(kind, filter);
            match self.pages(&asked, &selection, accept, &take).await {
                Ok((items, at)) => return Ok((items, at, selection.rest)),
                Err(Failure::Refused(status)) if self.learns(kind, filter, &status) => {}
                Err(Failure::Refused(status)) if status.code == 410 && expired + 1 < ATTEMPTS => expired += 1,
                Err(failure) => return Err(failure.error(&asked)),
            }
        }
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        asked: &Asked,
        selection: &Selection,
        accept: &'static str,
        take: &impl Fn(T) -> T,
    ) -> Result<(Vec<T>, Revision), Failure> {
        let (mut items, mut next) = (Vec::new(), String::new());
        loop {
            let mut query = selection.query.clone().with("limit", PAGE);
            if !next.is_empty() {
                query = query.with("continue", &next);
            }
            let request = Request { accept, ..Request::get(asked.clone(), format!("{}{query}", selection.path)) };
            let part: Part<T> = self.access.call(&request).await?;
            items.extend(part.items.into_iter().flatten().map(take));
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
