//! What is where in etcd: `PREFIX/<kind>/<namespace or ->/<name>` a document, `PREFIX/<kind>/.head` the kind itself, rewritten by
//! every write of the kind, `PREFIX/.identity` what tells this datastore from others.
//!
//! A document is stored without `metadata.resourceVersion`, which only etcd knows: it is the revision of its last write.

use crate::document::{key_of, kind_id, set_revision};
use crate::{Error, Key, Revision};
use serde_json::{Value, json};
use twill_crds::Kind;

/// The keys below one prefix.
#[derive(Debug)]
pub(super) struct Layout {
    prefix: String,
}

/// The keys of one kind.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Ends with a slash.
    kind: String,
}

const CLUSTER: &str = "-";
const HEAD: &str = ".head";

impl Layout {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn identity(&self) -> String {
        format!("{}/.identity", self.prefix)
    }

    pub(super) fn of(&self, kind: &Kind) -> Keys {
        Keys { kind: format!("{}/{}/", self.prefix, kind_id(kind)) }
    }

    /// Those of the kind that a key belongs to; none for keys that belong to no kind.
    pub(super) fn around(&self, key: &[u8]) -> Option<Keys> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (kind, _) = rest.split_once('/')?;
        Some(Keys { kind: format!("{}/{kind}/", self.prefix) })
    }
}

impl Keys {
    /// All of the kind.
    pub(super) fn all(&self) -> &str {
        &self.kind
    }

    pub(super) fn head(&self) -> String {
        format!("{}{HEAD}", self.kind)
    }

    /// All of a namespace.
    pub(super) fn namespace(&self, namespace: &str) -> String {
        format!("{}{namespace}/", self.kind)
    }

    /// One document; none if there can be no such.
    pub(super) fn document(&self, key: &Key) -> Option<String> {
        let fit = |part: &str| !part.contains('/');
        let namespace = if key.namespace.is_empty() { CLUSTER } else { key.namespace.as_str() };
        let named = !key.name.is_empty() && fit(&key.name) && fit(namespace) && key.namespace != CLUSTER;
        named.then(|| format!("{}{namespace}/{}", self.kind, key.name))
    }

    pub(super) fn is_head(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.kind.as_bytes()) == Some(HEAD.as_bytes())
    }

    /// Whose document a key is.
    pub(super) fn key(&self, key: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.kind)?;
        let (namespace, name) = rest.split_once('/')?;
        Some(if namespace == CLUSTER { Key::cluster(name) } else { Key::namespaced(namespace, name) })
    }
}

/// The first key behind all that begin with `prefix`, which ends with a slash.
pub(super) fn end(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    end.pop();
    end.push('0');
    end
}

/// The document as it is stored.
pub(super) fn stored(object: &Value) -> Vec<u8> {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    object.to_string().into_bytes()
}

/// A stored document. It is of its key, whatever it says itself: a copy that somebody has put elsewhere would be told as
/// an object that it is not.
pub(super) fn document(kind: &Kind, key: &Key, json: &[u8], revision: i64) -> Result<Value, Error> {
    let malformed = |problem: String| Error::Malformed { what: Error::what(kind, key), problem };
    let mut object: Value = serde_json::from_slice(json).map_err(|e| malformed(e.to_string()))?;
    if key_of(&object) != *key {
        return Err(malformed(format!("it calls itself {}", key_of(&object))));
    }
    set_revision(&mut object, revision_of(revision));
    Ok(object)
}

/// What the head of a kind says: the kind, and which write put it, as no two histories have the same one.
pub(super) fn head(kind: &Kind, write: uuid::Uuid) -> Vec<u8> {
    let Kind { group, version, kind, plural, namespaced } = kind;
    json!({"group": group, "version": version, "kind": kind, "plural": plural, "namespaced": namespaced, "write": write})
        .to_string()
        .into_bytes()
}

/// The kind that a head is of; none if it cannot be read.
pub(super) fn kind(head: &[u8]) -> Option<Kind> {
    let head: Value = serde_json::from_slice(head).ok()?;
    let text = |field: &str| head[field].as_str().map(|text| text.to_owned().into());
    Some(Kind {
        group: text("group")?,
        version: text("version")?,
        kind: text("kind")?,
        plural: text("plural")?,
        namespaced: head["namespaced"].as_bool()?,
    })
}

/// etcd counts from 1 and in `i64`.
pub(super) fn revision_of(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or_default())
}

/// The other way; a revision that etcd cannot have is one that it has not yet.
pub(super) fn number_of(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::{IPPool, Object, Pod};

    #[test]
    fn keys_say_what_they_are_of() {
        let layout = Layout::new("/t".into());
        let (pods, pools) = (layout.of(&Pod::kind()), layout.of(&IPPool::kind()));
        let (pod, pool) = (Key::namespaced("shop", "p"), Key::cluster("a"));
        assert_eq!(pods.document(&pod).unwrap(), "/t/Pod/shop/p");
        assert_eq!(pools.document(&pool).unwrap(), "/t/IPPool.twill.network/-/a");
        assert_eq!((pods.key(b"/t/Pod/shop/p"), pools.key(b"/t/IPPool.twill.network/-/a")), (Some(pod), Some(pool)));
        assert!(
            pods.is_head(b"/t/Pod/.head") && !pods.is_head(b"/t/Pod/.head/x") && pods.key(b"/t/Pod/.head").is_none()
        );
        assert_eq!(end(pods.all()), "/t/Pod0");
        for odd in [Key::cluster(""), Key::cluster("a/b"), Key::namespaced("a/b", "c"), Key::namespaced("-", "c")] {
            assert_eq!(pods.document(&odd), None, "{odd}");
        }
        assert_eq!(layout.around(b"/t/Pod/shop/p").unwrap().all(), "/t/Pod/");
        assert!(layout.around(b"/t/.identity").is_none() && layout.around(b"/tt/Pod/-/a").is_none());
    }

    #[test]
    fn a_document_is_stored_without_its_revision_and_read_with_it() {
        let object = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"cidr": "10.0.0.0/8"}});
        let json = stored(&object);
        assert!(!String::from_utf8_lossy(&json).contains("resourceVersion"));
        let key = Key::cluster("a");
        assert_eq!(document(&IPPool::kind(), &key, &json, 7).unwrap(), object);
        assert!(document(&IPPool::kind(), &Key::cluster("b"), &json, 7).is_err());
        assert!(document(&IPPool::kind(), &key, b"{", 7).is_err());
        assert_eq!(kind(&head(&Pod::kind(), uuid::Uuid::nil())), Some(Pod::kind()));
        assert_eq!(kind(b"{}"), None);
    }
}
