//! What an admission check would refuse, for engines that have no API server: one sentence that names the object, the
//! field and the way out.
//!
//! In flow an object as it was sent and, on update, as it is stored; out flows the object with its defaults filled in, or
//! [`Invalid`]. No clock, no other object: what depends on other objects is a function of its own, like [`pools`].

mod bgp;
mod cluster_policy;
pub(crate) mod filter;
mod host;
mod isolation;
mod metadata;
mod pod;
mod policy;
pub(crate) mod pool;
mod reservation;
mod selector;

pub use filter::rules as filter_rules;
pub use pool::pools;

use crate::words::decode;
use crate::{IPBlock, IPPool, Kind, Object, Pod, names};
use serde_json::Value;

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {field}: {problem}")]
pub struct Invalid {
    /// Kind of the object.
    pub kind: String,
    /// Its name, `namespace/name` if it has a namespace.
    pub name: String,
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

/// A field that breaks a rule, and how; becomes [`Invalid`] once the object is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub problem: String,
}

impl Problem {
    /// A problem of a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, of this object.
    #[must_use]
    pub fn of(self, kind: &Kind, object: &Value) -> Invalid {
        let text = |key: &str| object.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        Invalid {
            kind: kind.kind.to_string(),
            name: if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") },
            field: self.field,
            problem: self.problem,
        }
    }
}

/// Fills in the defaults of a kind and checks its rules. `old` is the stored object on update.
///
/// # Errors
/// The first rule that the object breaks.
pub fn admit(kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<(), Invalid> {
    admit_fields(kind, object, old).map_err(|problem| problem.of(kind, object))
}

pub(crate) fn admit_fields(kind: &Kind, object: &mut Value, old: Option<&Value>) -> Result<(), Problem> {
    metadata::admit(kind, object)?;
    match (kind.group.as_ref(), kind.kind.as_ref()) {
        (names::GROUP, "IPPool") => pool::pool(&ours(object)?, stored::<IPPool>(old).as_ref()),
        (names::GROUP, "IPBlock") => {
            let block = ours(object)?;
            pool::block(&block, object["spec"]["cidr"].as_str().unwrap_or_default(), stored::<IPBlock>(old).as_ref())
        }
        (names::GROUP, "IPReservation") => reservation::check(&ours(object)?),
        (names::GROUP, "BGPConfiguration") => bgp::configuration(&ours(object)?),
        (names::GROUP, "BGPPeer") => bgp::peer(&ours(object)?),
        (names::GROUP, "BGPFilter") => filter::check(&ours(object)?),
        (names::GROUP, "NodeNetwork") => ours::<crate::NodeNetwork>(object).map(drop),
        (names::GROUP, "NamespaceIsolation") => isolation::check(&ours(object)?),
        (names::GROUP, "HostPolicy") => host::check(&ours(object)?),
        ("networking.k8s.io", "NetworkPolicy") => {
            policy::default(object);
            policy::check(&decode(object)?)
        }
        (names::POLICY_GROUP, "ClusterNetworkPolicy") => cluster_policy::check(&decode(object)?),
        ("", "Pod") => {
            pod::default(object);
            pod::check(&decode(object)?, stored::<Pod>(old).as_ref())
        }
        ("", "Namespace") => decode::<crate::Namespace>(object).map(drop),
        ("", "Node") => decode::<crate::Node>(object).map(drop),
        _ => Ok(()),
    }
}

/// An object of one of our kinds as its type. Its spec is made what an API server would store by the kind's definition: a null
/// means that the field is left out, and what is left out has its default.
fn ours<K: Object>(object: &mut Value) -> Result<K, Problem> {
    if let Some(spec) = object.get_mut("spec") {
        drop_nulls(spec);
    }
    let decoded: K = decode(object)?;
    if let (Some(spec), Ok(full)) = (object.get_mut("spec"), serde_json::to_value(&decoded)) {
        fill_in(spec, &full["spec"]);
    }
    Ok(decoded)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Adds the fields that only `full` has; what was written stays as it was written.
fn fill_in(written: &mut Value, full: &Value) {
    match (written, full) {
        (Value::Object(written), Value::Object(full)) => {
            for (key, value) in full {
                match written.get_mut(key) {
                    Some(field) => fill_in(field, value),
                    None => drop(written.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(written), Value::Array(full)) => {
            written.iter_mut().zip(full).for_each(|(item, whole)| fill_in(item, whole));
        }
        _ => {}
    }
}

/// The stored object as its type; none if it cannot be read, so that a good one may replace it.
fn stored<K: Object>(old: Option<&Value>) -> Option<K> {
    old.and_then(|old| serde_json::from_value(old.clone()).ok())
}
