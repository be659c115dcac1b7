//! What is told as an event, and of which object.

use crate::conditions::{ACCEPTED, OWN_ACCEPTED, held};
use crate::world::Block;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use twill_crds::{IPBlock, NetworkPolicy, Object, names};
use twill_datastore::Key;
use twill_datastore::event::{Occurrence, Severity, reference};

/// The statuses of conditions, which is what people and programs wait for.
pub(crate) fn transitions(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
    conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str())).collect()
}

/// What to tell of conditions that have become bad: type, and what is bad of it.
pub(crate) fn tells<K: Object>(
    object: &K,
    old: &[Condition],
    new: &[Condition],
    bad: &[(&str, bool)],
) -> Vec<Occurrence> {
    let became = |(kind, bad): &(&str, bool)| held(new, kind) == Some(*bad) && held(old, kind) != Some(*bad);
    let of = |(kind, _): &(&str, bool)| {
        let condition = new.iter().find(|condition| condition.type_ == *kind)?;
        let reason = if [ACCEPTED, OWN_ACCEPTED].contains(kind) { "Rejected" } else { kind };
        Some(warning(reference(object), reason, "Check", condition.message.clone()))
    };
    bad.iter().filter(|one| became(one)).filter_map(of).collect()
}

pub(crate) fn warning(regarding: ObjectReference, reason: &str, action: &str, note: String) -> Occurrence {
    Occurrence { regarding, severity: Severity::Warning, reason: reason.to_owned(), action: action.to_owned(), note }
}

pub(crate) fn by_name<K: Object>(name: &str, uid: Option<String>) -> ObjectReference {
    let kind = K::kind();
    ObjectReference {
        api_version: Some(kind.api_version()),
        kind: Some(kind.kind.into_owned()),
        name: Some(name.to_owned()),
        uid,
        ..ObjectReference::default()
    }
}

pub(crate) fn of_block(block: &Block) -> ObjectReference {
    by_name::<IPBlock>(&names::block_name(block.cidr()), Some(block.version.uid.clone()))
}

pub(crate) fn of_policy(key: &Key, uid: String) -> ObjectReference {
    ObjectReference { namespace: Some(key.namespace.clone()), ..by_name::<NetworkPolicy>(&key.name, Some(uid)) }
}
