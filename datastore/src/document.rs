//! How a document changes by a call, as an API server would have it: metadata, generation, status as a subresource,
//! finalizers.
//!
//! In flow the stored document, the one that was sent, and what only the engine knows (revision, UID, time); out flows
//! the document to store. Nothing here reads a clock.

use crate::{Error, Key, Preconditions, Revision, secret};
use serde_json::{Map, Value, json};
use twill_crds::Kind;

/// What an engine adds to a new document.
pub(crate) struct Stamp {
    pub(crate) uid: String,
    /// RFC 3339, whole seconds.
    pub(crate) now: String,
    pub(crate) revision: Revision,
}

/// What a call comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing changed; nothing is stored.
    Unchanged(Value),
    /// To be stored.
    Changed(Value),
    /// To be removed; its last state.
    Removed(Value),
}

/// The document as it is first stored.
pub(crate) fn created(kind: &Kind, mut object: Value, stamp: &Stamp) -> Value {
    let metadata = metadata_mut(&mut object);
    for gone in ["deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "selfLink"] {
        metadata.remove(gone);
    }
    metadata.insert("uid".into(), stamp.uid.clone().into());
    metadata.insert("creationTimestamp".into(), stamp.now.clone().into());
    metadata.insert("generation".into(), 1.into());
    set_revision(&mut object, stamp.revision);
    first_status(kind, &mut object);
    secret::normalise(kind, &mut object);
    object
}

/// A status cannot be set by create, except a Node's, which kubelets register with theirs.
fn first_status(kind: &Kind, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    match (kind.group.is_empty(), kind.kind.as_ref()) {
        (true, "Node") => {}
        (true, "Pod") => {
            fields.insert("status".into(), json!({"phase": "Pending"}));
        }
        (true, "Namespace") => {
            fields.insert("status".into(), json!({"phase": "Active"}));
        }
        _ => {
            fields.remove("status");
        }
    }
}

/// All but the status is replaced. The last finalizer's removal from a document that is being deleted removes it.
pub(crate) fn updated(kind: &Kind, current: &Value, mut object: Value, revision: Revision) -> Outcome {
    secret::normalise(kind, &mut object);
    keep_identity(current, &mut object);
    copy_field(current, &mut object, "status");
    let generation = generation(current) + i64::from(!same_but_for(current, &object, &["metadata", "status"]));
    metadata_mut(&mut object).insert("generation".into(), generation.into());
    settle(current, object, revision)
}

/// The status alone is replaced.
pub(crate) fn status_updated(current: &Value, object: &Value, revision: Revision) -> Outcome {
    let mut next = current.clone();
    copy_field(object, &mut next, "status");
    settle(current, next, revision)
}

/// Removed, or marked as being deleted while it has finalizers.
pub(crate) fn deleted(current: &Value, now: &str, revision: Revision) -> Outcome {
    let mut next = current.clone();
    if !has_finalizers(&next) {
        set_revision(&mut next, revision);
        return Outcome::Removed(next);
    }
    if next["metadata"]["deletionTimestamp"].is_null() {
        let generation = generation(&next) + 1;
        let metadata = metadata_mut(&mut next);
        metadata.insert("deletionTimestamp".into(), now.into());
        metadata.insert("generation".into(), generation.into());
    }
    settle(current, next, revision)
}

fn settle(current: &Value, mut next: Value, revision: Revision) -> Outcome {
    if !next["metadata"]["deletionTimestamp"].is_null() && !has_finalizers(&next) {
        set_revision(&mut next, revision);
        return Outcome::Removed(next);
    }
    metadata_mut(&mut next).insert("resourceVersion".into(), current["metadata"]["resourceVersion"].clone());
    if next == *current {
        return Outcome::Unchanged(next);
    }
    set_revision(&mut next, revision);
    Outcome::Changed(next)
}

/// The caller's UID and revision, where it names them, are those of the stored document.
pub(crate) fn check_current(what: &str, current: &Value, sent: &Value) -> Result<(), Error> {
    let text = |value: &Value, field: &str| value["metadata"][field].as_str().unwrap_or_default().to_owned();
    for field in ["resourceVersion", "uid"] {
        let sent = text(sent, field);
        if !sent.is_empty() && sent != text(current, field) {
            return Err(Error::Conflict(what.to_owned()));
        }
    }
    Ok(())
}

/// The preconditions of a delete hold.
pub(crate) fn check_preconditions(what: &str, current: &Value, preconditions: &Preconditions) -> Result<(), Error> {
    let metadata = &current["metadata"];
    let revision = preconditions.revision.map(|revision| revision.0.to_string());
    let same =
        |wanted: &Option<String>, field: &str| wanted.as_deref().is_none_or(|w| metadata[field].as_str() == Some(w));
    if same(&preconditions.uid, "uid") && same(&revision, "resourceVersion") {
        return Ok(());
    }
    Err(Error::Conflict(what.to_owned()))
}

/// Writes the revision where objects carry it.
pub(crate) fn set_revision(object: &mut Value, revision: Revision) {
    metadata_mut(object).insert("resourceVersion".into(), revision.0.to_string().into());
}

/// How engines name a kind: `Pod`, `IPPool.twill.network`. Without version, as versions are views of one object.
pub(crate) fn kind_id(kind: &Kind) -> String {
    if kind.group.is_empty() { kind.kind.to_string() } else { format!("{}.{}", kind.kind, kind.group) }
}

/// Where a document belongs.
pub(crate) fn key_of(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    Key::namespaced(text("namespace"), text("name"))
}

/// Stands for a stored document that cannot be read.
pub(crate) fn unreadable(key: &Key) -> Value {
    let mut metadata = json!({"name": key.name});
    if !key.namespace.is_empty() {
        metadata["namespace"] = key.namespace.clone().into();
    }
    json!({"metadata": metadata})
}

fn keep_identity(current: &Value, object: &mut Value) {
    let metadata = metadata_mut(object);
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        match &current["metadata"][field] {
            Value::Null => metadata.remove(field),
            value => metadata.insert(field.into(), value.clone()),
        };
    }
    metadata.remove("managedFields");
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(field) {
        None | Some(Value::Null) => fields.remove(field),
        Some(value) => fields.insert(field.into(), value.clone()),
    };
}

fn same_but_for(a: &Value, b: &Value, fields: &[&str]) -> bool {
    let rest = |value: &Value| -> Map<String, Value> {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.retain(|key, _| !fields.contains(&key.as_str()));
        map
    };
    rest(a) == rest(b)
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(1)
}

/// The metadata; made if there is none, so that a document without it can still be stamped.
fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        if !object.is_object() {
            *object = Value::Object(Map::new());
        }
        object["metadata"] = Value::Object(Map::new());
    }
    object["metadata"].as_object_mut().expect("made an object just above")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::Object;

    fn stamp() -> Stamp {
        Stamp { uid: "u1".into(), now: "2026-01-02T03:04:05Z".into(), revision: Revision(7) }
    }

    fn pool() -> Value {
        let sent =
            json!({"metadata": {"name": "p", "uid": "mine"}, "spec": {"cidr": "10.0.0.0/16"}, "status": {"x": 1}});
        created(&twill_crds::IPPool::kind(), sent, &stamp())
    }

    #[test]
    fn a_created_document_is_stamped_and_has_no_status_of_the_callers() {
        let pool = pool();
        assert_eq!(
            pool["metadata"],
            json!({"name": "p", "uid": "u1", "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 1, "resourceVersion": "7"})
        );
        assert!(pool.get("status").is_none());
        let node = created(&twill_crds::Node::kind(), json!({"metadata": {"name": "n"}, "status": {"a": 1}}), &stamp());
        assert_eq!(node["status"]["a"], 1);
        let pod = created(&twill_crds::Pod::kind(), json!({"metadata": {}, "status": {"podIP": "10.0.0.1"}}), &stamp());
        assert_eq!(pod["status"], json!({"phase": "Pending"}));
    }

    #[test]
    fn generation_counts_changes_of_the_spec_alone() {
        let Outcome::Changed(one) = status_updated(&pool(), &json!({"status": {"x": 2}, "spec": {}}), Revision(8))
        else {
            panic!()
        };
        assert_eq!((&one["metadata"]["generation"], &one["spec"]["cidr"]), (&json!(1), &json!("10.0.0.0/16")));
        let mut labelled = one.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        labelled["status"] = json!({"x": 99});
        let Outcome::Changed(two) = updated(&twill_crds::IPPool::kind(), &one, labelled, Revision(9)) else { panic!() };
        assert_eq!((&two["metadata"]["generation"], &two["status"]["x"]), (&json!(1), &json!(2)));
        let mut other = two.clone();
        other["spec"]["disabled"] = json!(true);
        let Outcome::Changed(three) = updated(&twill_crds::IPPool::kind(), &two, other, Revision(10)) else { panic!() };
        assert_eq!(three["metadata"]["generation"], 2);
        assert_eq!(three["metadata"]["resourceVersion"], "10");
        assert_eq!(three["metadata"]["uid"], "u1");
    }

    #[test]
    fn an_update_that_changes_nothing_is_no_change() {
        let mut same = pool();
        same["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        assert_eq!(updated(&twill_crds::IPPool::kind(), &pool(), same, Revision(8)), Outcome::Unchanged(pool()));
    }

    #[test]
    fn finalizers_hold_a_deleted_document_until_the_last_is_gone() {
        let mut held = pool();
        held["metadata"]["finalizers"] = json!(["twill.network/x"]);
        let Outcome::Changed(dying) = deleted(&held, "2026-01-02T03:04:06Z", Revision(8)) else { panic!() };
        assert_eq!(dying["metadata"]["deletionTimestamp"], "2026-01-02T03:04:06Z");
        assert_eq!(deleted(&dying, "2027-01-01T00:00:00Z", Revision(9)), Outcome::Unchanged(dying.clone()));
        let mut free = dying.clone();
        free["metadata"]["finalizers"] = json!([]);
        assert!(matches!(updated(&twill_crds::IPPool::kind(), &dying, free, Revision(9)), Outcome::Removed(_)));
        assert!(
            matches!(deleted(&pool(), "", Revision(9)), Outcome::Removed(last) if last["metadata"]["resourceVersion"] == "9")
        );
    }

    #[test]
    fn a_stale_revision_or_another_uid_is_a_conflict() {
        let sent = |revision: &str, uid: &str| json!({"metadata": {"resourceVersion": revision, "uid": uid}});
        assert!(check_current("p", &pool(), &sent("7", "u1")).is_ok());
        assert!(check_current("p", &pool(), &sent("", "")).is_ok());
        assert!(matches!(check_current("p", &pool(), &sent("6", "u1")), Err(Error::Conflict(_))));
        assert!(matches!(check_current("p", &pool(), &sent("7", "u2")), Err(Error::Conflict(_))));
        let wants = |uid: Option<&str>, revision| Preconditions { uid: uid.map(Into::into), revision };
        assert!(check_preconditions("p", &pool(), &wants(Some("u1"), Some(Revision(7)))).is_ok());
        assert!(check_preconditions("p", &pool(), &wants(Some("u2"), None)).is_err());
        assert!(check_preconditions("p", &pool(), &wants(None, Some(Revision(8)))).is_err());
    }
}
