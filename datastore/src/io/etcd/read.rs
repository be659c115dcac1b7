//! What is read.

use super::failure::Failure;
use super::layout::{self, Keys};
use super::past::{Head, Past};
use super::place::head_of;
use super::{Shared, within};
use crate::document::kind_id;
use crate::{Error, Filter, Key, Mark, Page, Revision, Scope};
use etcd_client::{GetOptions, KeyValue, TxnOp};
use serde_json::Value;
use std::collections::BTreeMap;
use twill_crds::Kind;

/// Documents asked for at once.
const PAGE: i64 = 500;
/// How often a list is begun again when its revision is compacted before it is whole.
const LISTS: usize = 3;

/// A part of a list.
struct Part {
    documents: Vec<KeyValue>,
    more: bool,
    revision: i64,
}

/// Keys from one to before another.
struct Range {
    from: Vec<u8>,
    end: Vec<u8>,
}

impl Shared {
    pub(super) async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        match self.stored(kind, key).await? {
            Some((json, revision)) => layout::document(kind, key, &json, revision).map(Some),
            None => Ok(None),
        }
    }

    /// The stored text of an object, and its revision.
    pub(super) async fn stored(&self, kind: &Kind, key: &Key) -> Result<Option<(Vec<u8>, i64)>, Error> {
        let Some(path) = self.layout.of(kind).document(key) else { return Ok(None) };
        let answer = self.read(vec![TxnOp::get(path, None)]).await.map_err(|failure| self.unread(failure, kind))?;
        let found = answer.found.into_iter().next().and_then(|mut found| found.take_kvs().pop());
        Ok(found.map(|kv| (kv.value().to_vec(), kv.mod_revision())))
    }

    /// All documents within the filter, at one revision; in pages, so that neither side holds more than it keeps.
    pub(super) async fn list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        for _ in 1..LISTS {
            match self.try_list(kind, filter).await {
                Err(Error::Expired) => {
                    tracing::debug!(kind = %kind.kind, "compacted while it was listed, listing again")
                }
                done => return done,
            }
        }
        self.try_list(kind, filter).await.map_err(|error| match error {
            Error::Expired => {
                Error::Unavailable("etcd is compacted faster than it can be read; keep more history".into())
            }
            other => other,
        })
    }

    async fn try_list(&self, kind: &Kind, filter: &Filter) -> Result<Page, Error> {
        let keys = self.layout.of(kind);
        let mut page = Page { items: Vec::new(), revision: Revision(0) };
        let Some(mut range) = range(kind, &keys, filter) else { return Ok(page) };
        let (mut limit, mut revision) = (PAGE, 0);
        loop {
            let part = match within(async { Ok(self.part(&range, limit, revision).await) }).await? {
                Err(Failure::TooMuch) if limit > 1 => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                done => done.map_err(|failure| self.unread(failure, kind))?,
            };
            revision = if revision == 0 { part.revision } else { revision };
            let last = part.documents.last().map(|kv| kv.key().to_vec());
            page.items.extend(part.documents.iter().filter_map(|kv| document(kind, &keys, filter, kv)));
            match last.filter(|_| part.more) {
                // The first key behind the last.
                Some(last) => range.from = [last, vec![0]].concat(),
                None => break,
            }
        }
        page.revision = layout::revision_of(revision);
        Ok(page)
    }

    async fn part(&self, range: &Range, limit: i64, revision: i64) -> Result<Part, Failure> {
        let options = GetOptions::new().with_range(range.end.clone()).with_limit(limit).with_revision(revision);
        let mut answer = self.read(vec![TxnOp::get(range.from.clone(), Some(options))]).await?;
        let revision = answer.revision;
        let found = answer.found.pop();
        Ok(found.map_or_else(
            || Part { documents: Vec::new(), more: false, revision },
            |mut found| Part { more: found.more(), documents: found.take_kvs(), revision },
        ))
    }

    /// Reads nothing, but may we read at all?
    pub(super) async fn ask(&self) -> Result<(), Failure> {
        self.read(Vec::new()).await.map(drop)
    }

    /// The revisions of the last writes of each kind, all read at once.
    pub(super) async fn barrier(&self, scopes: &[Scope]) -> Result<Vec<Mark>, Error> {
        let heads: BTreeMap<String, String> =
            scopes.iter().map(|scope| (kind_id(&scope.kind), self.layout.of(&scope.kind).head())).collect();
        // Before the read: what watches hear meanwhile may be later than what it shows.
        let told: Vec<Option<Past>> = heads.values().map(|head| self.pasts.longest(head)).collect();
        let gets = heads.values().map(|head| TxnOp::get(head.as_str(), None));
        let what = || format!("read keys from {}/", self.layout.prefix());
        let answer = self.read(gets.collect()).await.map_err(|failure| self.error(failure, what))?;
        let shown: Vec<Head> =
            answer.found.iter().map(|found| found.kvs().first().map(head_of).unwrap_or_default()).collect();
        if told.iter().zip(&shown).any(|(told, shown)| told.as_ref().is_some_and(|told| !told.goes_on_with(shown))) {
            return Err(Error::Unavailable("etcd was put back to an older state, which is being read".into()));
        }
        let revisions: BTreeMap<&String, Revision> =
            heads.keys().zip(shown.iter().map(|head| layout::revision_of(head.revision))).collect();
        let mark = |scope: &Scope| {
            let revision = revisions.get(&kind_id(&scope.kind)).copied().unwrap_or_default();
            Mark { scope: scope.clone(), revision, present: None }
        };
        Ok(scopes.iter().map(mark).collect())
    }

    /// The kinds that have a document, from head to head.
    pub(super) async fn kinds(&self) -> Result<Vec<Kind>, Error> {
        let all = format!("{}/", self.layout.prefix());
        let what = || format!("read keys from {all}");
        let (mut from, end, mut kinds) = (all.clone().into_bytes(), layout::end(&all), Vec::new());
        let keys_only = |end: &str, limit| GetOptions::new().with_range(end).with_limit(limit).with_keys_only();
        loop {
            let next = TxnOp::get(from, Some(keys_only(&end, 1)));
            let ask = async { self.read(vec![next]).await.map_err(|failure| self.error(failure, what)) };
            let Some(key) =
                within(ask).await?.found.first().and_then(|found| Some(found.kvs().first()?.key().to_vec()))
            else {
                return Ok(kinds);
            };
            let Some(keys) = self.layout.around(&key) else {
                from = [key, vec![0]].concat();
                continue;
            };
            let behind = layout::end(keys.all());
            let two = TxnOp::get(keys.all(), Some(keys_only(&behind, 2)));
            let both = vec![TxnOp::get(keys.head(), None), two];
            let ask = async { self.read(both).await.map_err(|failure| self.error(failure, what)) };
            let found = within(ask).await?.found;
            if let [head, some] = found.as_slice()
                && some.kvs().iter().any(|kv| !keys.is_head(kv.key()))
            {
                kinds.extend(head.kvs().first().and_then(|kv| layout::kind(kv.value())));
            }
            from = behind.into_bytes();
        }
    }
}

/// Where the documents within a filter are; none if there can be none.
fn range(kind: &Kind, keys: &Keys, filter: &Filter) -> Option<Range> {
    let name = filter.fields.iter().find(|(path, _)| path == "metadata.name").map(|(_, name)| name.as_str());
    let one = match (name, &filter.namespace) {
        (Some(name), Some(namespace)) => Some(Key::namespaced(namespace, name)),
        (Some(name), None) if !kind.namespaced => Some(Key::cluster(name)),
        _ => None,
    };
    if let Some(key) = one {
        let from = keys.document(&key)?.into_bytes();
        return Some(Range { end: [from.as_slice(), &[0]].concat(), from });
    }
    let all = match filter.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => keys.namespace(namespace),
        None => keys.all().to_owned(),
    };
    Some(Range { end: layout::end(&all).into_bytes(), from: all.into_bytes() })
}

/// A document of a list; none if it is none, or outside the filter, or, with a line in the log, if it cannot be read.
fn document(kind: &Kind, keys: &Keys, filter: &Filter, kv: &KeyValue) -> Option<Value> {
    let key = keys.key(kv.key())?;
    layout::document(kind, &key, kv.value(), kv.mod_revision())
        .inspect_err(|error| tracing::warn!(%error, "stored object left out"))
        .ok()
        .filter(|document| filter.matches(document))
}
