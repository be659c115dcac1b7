//! What a node says of its HostPolicies: `twill policy host` shows it, and who explains connections judges by it.

use super::{Failsafe, Reverted};
use serde::{Deserialize, Serialize};
use twill_crds::HostPolicy;
use twill_crds::host_policy::ConfirmationMode;

/// HostPolicies of a node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Name of the node.
    pub node: String,
    /// Names of those that are in force while nothing is on trial.
    pub confirmed: Vec<String>,
    /// The same, as they were when they were confirmed. An older felix does not say it, which is not the same as none.
    #[serde(default)]
    pub confirmed_policies: Option<Vec<HostPolicy>>,
    /// What is on trial.
    #[serde(default)]
    pub trial: Option<OnTrial>,
    /// Why what the datastore has is not in force, if it came to nothing.
    #[serde(default)]
    pub reverted: Option<Reverted>,
    /// What passes before all policies that want it.
    pub failsafes: Vec<Failsafe>,
    /// Names of policies for whose sake that passes, where another one says that nothing shall.
    #[serde(default)]
    pub failsafes_despite_none: Vec<String>,
}

/// A trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnTrial {
    /// Names of the policies.
    pub policies: Vec<String>,
    /// The same, as they are on trial; not said by an older felix.
    #[serde(default)]
    pub objects: Option<Vec<HostPolicy>>,
    /// Whether the kernel has them; else the trial is about to begin.
    #[serde(default)]
    pub begun: bool,
    /// How long it goes on unless it is confirmed.
    pub seconds_left: u64,
    /// Who confirms it.
    pub confirmation: ConfirmationMode,
    /// Why the last self-test failed, if it did.
    #[serde(default)]
    pub last_failure: Option<String>,
}

impl State {
    /// What is in force now; none: the node does not say.
    #[must_use]
    pub fn in_force(&self) -> Option<&[HostPolicy]> {
        match &self.trial {
            // Who does not say what is on trial does not say whether it has begun, either.
            Some(OnTrial { objects: None, .. }) => None,
            Some(OnTrial { objects: Some(objects), begun: true, .. }) => Some(objects),
            _ => self.confirmed(),
        }
    }

    /// What is in force while nothing is on trial; none: the node does not say.
    #[must_use]
    pub fn confirmed(&self) -> Option<&[HostPolicy]> {
        match &self.confirmed_policies {
            Some(policies) => Some(policies),
            None => self.confirmed.is_empty().then_some(&[] as &[HostPolicy]),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(confirmed: &[&str], trial: Value) -> State {
        serde_json::from_value(json!({"node": "n1", "confirmed": confirmed, "trial": trial, "failsafes": []})).unwrap()
    }

    #[test]
    fn an_older_felix_does_not_say_what_its_policies_say_and_that_is_not_none() {
        let trial = json!({"policies": ["b"], "secondsLeft": 7, "confirmation": "SelfTest", "lastFailure": null});
        assert_eq!(said(&["a"], Value::Null).in_force(), None);
        assert_eq!(said(&[], trial).in_force(), None);
        assert_eq!(said(&[], Value::Null).in_force(), Some([].as_slice()), "without any there is nothing to say");
    }
}
