//! What an API server refuses of our kinds beyond types and bounds, in CEL. Each rule is the same as one of [`crate::validate`],
//! under the same field, with the same way out.

mod addresses;
mod bgp;
mod blocks;
mod filter;
mod host;
mod isolation;
mod pools;
mod reservation;
mod selectors;

use serde_json::{Value, json};

pub(super) use bgp::{bgp_configuration, bgp_peer};
pub(super) use blocks::block;
pub(super) use filter::bgp_filter;
pub(super) use host::host_policy;
pub(super) use isolation::namespace_isolation;
pub(super) use pools::pool;
pub(super) use reservation::ip_reservation;

/// A rule as a kind's schema carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it demands, as a word that cases name it by.
    pub(super) name: &'static str,
    /// CEL. It holds, or the object is refused. What another rule refuses already must pass, so that one fault gives one message.
    pub(super) expression: &'static str,
    /// What is wrong and what would be right; an API server puts the field before it.
    pub(super) message: &'static str,
    /// CEL that says it with the values at hand; `message` is for the case that it fails.
    pub(super) detail: Option<&'static str>,
    /// The field at fault, e.g. `.blockSize`, where the rule looks at more than that one.
    pub(super) field: Option<&'static str>,
}

impl Rule {
    const fn new(name: &'static str, expression: &'static str, message: &'static str) -> Self {
        Self { name, expression, message, detail: None, field: None }
    }

    const fn detail(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    const fn field(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }
}

/// A rule at its place in the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Path of the field, e.g. `spec.nodeSelector.matchExpressions[]`; empty for the object itself.
    pub(super) at: String,
    pub(super) rule: Rule,
}

impl Placed {
    fn all(at: &str, rules: &[Rule]) -> Vec<Self> {
        rules.iter().map(|rule| Self { at: at.to_owned(), rule: *rule }).collect()
    }

    /// Adds the rule to the schema of the whole object.
    ///
    /// # Panics
    /// The schema has no such field: the rule and the types do not belong together.
    pub(super) fn attach(&self, schema: &mut Value) {
        let mut path = String::new();
        for step in self.at.split('.').filter(|step| !step.is_empty()) {
            let (name, inner) = step.split_once('[').map_or((step, ""), |(name, _)| (name, "/items"));
            path += &format!("/properties/{name}{inner}");
        }
        let place = schema.pointer_mut(&path).and_then(Value::as_object_mut);
        let place = place.unwrap_or_else(|| panic!("rule {}: the schema has no {}", self.rule.name, self.at));
        let mut validation = json!({"rule": self.rule.expression, "message": self.rule.message});
        if let Some(detail) = self.rule.detail {
            validation["messageExpression"] = detail.into();
        }
        if let Some(field) = self.rule.field {
            validation["fieldPath"] = field.into();
        }
        let list = place.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        list.as_array_mut().expect("validations are a list").push(validation);
    }
}
