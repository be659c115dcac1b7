//! What an admission check would refuse, for engines that have no API server: one sentence that names the object, the
//! field and the way out.
//!
//! In flow an object as it was sent and, on update, as it is stored; out flows the object with its defaults filled in, or
//! [`Invalid`]. No clock, no other object: what depends on other objects is a function of its own, like [`pools`].

mod metadata;

use crate::Kind;
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

fn admit_fields(kind: &Kind, object: &mut Value, _old: Option<&Value>) -> Result<(), Problem> {
    metadata::admit(kind, object)?;
    Ok(())
}
