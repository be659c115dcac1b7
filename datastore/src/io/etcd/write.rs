//! What is written: a document and its kind's head, in one transaction that compares what it was decided on.

use super::Shared;
use super::connection::Repeat;
use super::failure::Failure;
use super::layout;
use super::place::{Answer, Deal};
use crate::document::{self, Outcome, Stamp, key_of, unreadable};
use crate::io::now;
use crate::{Error, Filter, Key, Preconditions, Revision};
use etcd_client::{Compare, CompareOp, TxnOp};
use serde_json::Value;
use twill_crds::validate::{self, Problem};
use twill_crds::{IPPool, Kind, Object};

/// How often a write is decided anew when others were faster.
const ATTEMPTS: usize = 16;

impl Shared {
    /// Stores a new object; `object` is admitted.
    pub(super) async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        let key = key_of(&object);
        let what = Error::what(kind, &key);
        let stamp = Stamp { uid: uuid::Uuid::new_v4().to_string(), now: now(), revision: Revision(0) };
        let object = document::created(kind, object, &stamp);
        let Some(path) = self.layout.of(kind).document(&key) else { return Err(Error::NotFound(what)) };
        for _ in 0..ATTEMPTS {
            let mut compare = vec![Compare::create_revision(path.as_str(), CompareOp::Equal, 0)];
            compare.extend(self.beside_others(kind, &object, true).await?);
            let put = TxnOp::put(path.as_str(), layout::stored(&object), None);
            let answer = self.write(kind, &object, compare, put, path.as_str()).await?;
            if answer.held {
                return Ok(stamped(object, &answer));
            }
            if answer.found.iter().any(|found| !found.kvs().is_empty()) {
                return Err(Error::AlreadyExists(what));
            }
        }
        Err(Error::Conflict(what))
    }

    /// Replaces all but the status.
    pub(super) async fn update(&self, kind: &Kind, sent: &Value) -> Result<Value, Error> {
        let decide = |what: &str, current: &Value| {
            document::check_current(what, current, sent)?;
            let mut object = sent.clone();
            validate::admit(kind, &mut object, Some(current))?;
            Ok(document::updated(kind, current, object, Revision(0)))
        };
        self.change(kind, &key_of(sent), true, decide).await
    }

    /// Replaces the status alone.
    pub(super) async fn update_status(&self, kind: &Kind, sent: &Value) -> Result<Value, Error> {
        let decide = |what: &str, current: &Value| {
            document::check_current(what, current, sent)?;
            Ok(document::status_updated(current, sent, Revision(0)))
        };
        self.change(kind, &key_of(sent), false, decide).await
    }

    /// Removes the object, or marks it while it has finalizers.
    pub(super) async fn delete(&self, kind: &Kind, key: &Key, preconditions: &Preconditions) -> Result<(), Error> {
        let decide = |what: &str, current: &Value| {
            document::check_preconditions(what, current, preconditions)?;
            Ok(document::deleted(current, &now(), Revision(0)))
        };
        self.change(kind, key, false, decide).await.map(drop)
    }

    /// Decides on what is stored and stores what comes of it; anew while others are faster.
    async fn change(
        &self,
        kind: &Kind,
        key: &Key,
        check_others: bool,
        decide: impl Fn(&str, &Value) -> Result<Outcome, Error>,
    ) -> Result<Value, Error> {
        let what = Error::what(kind, key);
        for _ in 0..ATTEMPTS {
            let Some((path, (json, revision))) = self.layout.of(kind).document(key).zip(self.stored(kind, key).await?)
            else {
                return Err(Error::NotFound(what));
            };
            let current = current(kind, key, &json, revision);
            let mut compare = vec![Compare::mod_revision(path.as_str(), CompareOp::Equal, revision)];
            let (object, op) = match decide(&what, &current)? {
                Outcome::Unchanged(object) => return Ok(object),
                Outcome::Changed(object) => {
                    if check_others {
                        compare.extend(self.beside_others(kind, &object, false).await?);
                    }
                    let put = TxnOp::put(path.as_str(), layout::stored(&object), None);
                    (object, put)
                }
                Outcome::Removed(last) => (last, TxnOp::delete(path.as_str(), None)),
            };
            let answer = self.write(kind, &object, compare, op, path.as_str()).await?;
            if answer.held {
                return Ok(stamped(object, &answer));
            }
        }
        Err(Error::Conflict(what))
    }

    /// Rules between objects of one kind. They hold while nobody writes another of the kind: the comparison says so.
    async fn beside_others(&self, kind: &Kind, object: &Value, new: bool) -> Result<Option<Compare>, Error> {
        if *kind != IPPool::kind() {
            return Ok(None);
        }
        let pools = self.list(kind, &Filter::default()).await?;
        let key = key_of(object);
        if new && pools.items.iter().any(|pool| key_of(pool) == key) {
            return Err(Error::AlreadyExists(Error::what(kind, &key)));
        }
        let others: Vec<IPPool> =
            pools.items.into_iter().filter_map(|pool| serde_json::from_value(pool).ok()).collect();
        let malformed = |e: serde_json::Error| Error::Malformed { what: "IPPool".into(), problem: e.to_string() };
        validate::pools(&others, &serde_json::from_value(object.clone()).map_err(malformed)?)?;
        let read_at = layout::number_of(pools.revision);
        Ok(Some(Compare::mod_revision(self.layout.of(kind).head(), CompareOp::Less, read_at.saturating_add(1))))
    }

    /// The document's operation and then the kind's head: whoever hears the head has heard the document. If the comparisons do
    /// not hold, the document is read.
    async fn write(
        &self,
        kind: &Kind,
        object: &Value,
        compare: Vec<Compare>,
        op: TxnOp,
        path: &str,
    ) -> Result<Answer, Error> {
        let keys = self.layout.of(kind);
        let head = TxnOp::put(keys.head(), layout::head(kind, uuid::Uuid::new_v4()), None);
        let deal = Deal { compare, then: vec![op, head], otherwise: vec![TxnOp::get(path, None)] };
        self.transaction(Repeat::IfNotSent, deal).await.map_err(|failure| match failure {
            Failure::TooLarge(problem) => too_large(kind, object, &problem),
            other => self.error(other, || format!("write {} objects (etcd: keys from {})", kind.kind, keys.all())),
        })
    }
}

/// The stored object. One that is no JSON any more can still be replaced and deleted.
fn current(kind: &Kind, key: &Key, json: &[u8], revision: i64) -> Value {
    layout::document(kind, key, json, revision).unwrap_or_else(|_| {
        let mut stand_in = unreadable(key);
        document::set_revision(&mut stand_in, layout::revision_of(revision));
        stand_in
    })
}

fn stamped(mut object: Value, answer: &Answer) -> Value {
    document::set_revision(&mut object, layout::revision_of(answer.revision));
    object
}

fn too_large(kind: &Kind, object: &Value, problem: &str) -> Error {
    let bytes = object.to_string().len();
    let problem =
        format!("is {bytes} bytes, more than etcd takes ({problem}); make it smaller, or raise --max-request-bytes");
    Problem::new("size", problem).of(kind, object).into()
}
