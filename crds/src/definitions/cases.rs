//! What is refused and what is accepted, for whoever decides: [`crate::validate`] on engines without an API server, the
//! definitions on one. Both are held to the same table, `cases.yaml`.

use serde::Deserialize;
use serde_json::{Value, json};

/// An object that is created, or that replaces another, and what comes of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub case: String,
    /// The rule in CEL that it is about, if it is about one.
    pub rule: Option<String>,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Spec of the object.
    pub spec: Value,
    /// Spec of the stored object, if it is an update.
    pub from: Option<Value>,
    /// Field at fault, if it is refused. Whoever refuses may name one below it.
    pub refused: Option<String>,
    /// Words of the refusal.
    pub says: Option<String>,
}

impl Case {
    /// The object as it is sent.
    #[must_use]
    pub fn object(&self) -> Value {
        self.with(&self.spec)
    }

    /// The object that is stored before, if it is an update.
    #[must_use]
    pub fn stored(&self) -> Option<Value> {
        self.from.as_ref().map(|spec| self.with(spec))
    }

    fn with(&self, spec: &Value) -> Value {
        json!({"apiVersion": "twill.network/v1", "kind": self.kind, "metadata": {"name": self.name}, "spec": spec})
    }
}

/// All cases.
///
/// # Panics
/// The table is no YAML, or not of this form.
#[must_use]
pub fn all() -> Vec<Case> {
    serde_saphyr::from_str(include_str!("cases.yaml")).expect("cases.yaml is a list of cases")
}
