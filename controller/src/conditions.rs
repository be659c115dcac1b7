//! Conditions as Kubernetes has them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Type of the condition that an object counts as it is written.
pub(crate) const ACCEPTED: &str = "Accepted";
/// The same of a kind that is not ours, on which others write conditions, too.
pub(crate) const OWN_ACCEPTED: &str = "twill.network/Accepted";

/// What a condition says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, one word in CamelCase.
    pub reason: &'static str,
    /// One sentence, or none.
    pub message: String,
}

impl Judged {
    /// A condition that holds or not.
    #[must_use]
    pub fn new(kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds, reason, message: message.into() }
    }
}

/// The conditions to write; one keeps the time of its transition while its status is the same.
#[must_use]
pub fn conditions(judged: &[Judged], old: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let one = |judged: &Judged| {
        let status = if judged.holds { "True" } else { "False" };
        let before = old.iter().find(|condition| condition.type_ == judged.kind && condition.status == status);
        Condition {
            type_: judged.kind.to_owned(),
            status: status.to_owned(),
            reason: judged.reason.to_owned(),
            message: judged.message.clone(),
            last_transition_time: before.map_or(Time(now), |condition| condition.last_transition_time.clone()),
            observed_generation: generation,
        }
    };
    judged.iter().map(one).collect()
}

/// What a list of conditions said of one, if anything.
#[must_use]
pub fn held(conditions: &[Condition], kind: &str) -> Option<bool> {
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status == "True")
}
