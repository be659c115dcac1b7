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
    /// The same, as they were when they were confirmed.
    pub confirmed_policies: Vec<HostPolicy>,
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
    /// The same, as they are on trial.
    pub objects: Vec<HostPolicy>,
    /// Whether the kernel has them; else the trial is about to begin.
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
    /// What is in force now.
    #[must_use]
    pub fn in_force(&self) -> &[HostPolicy] {
        let begun = self.trial.as_ref().filter(|trial| trial.begun);
        begun.map_or(&self.confirmed_policies, |trial| &trial.objects)
    }
}
