//! Cases for whatever enforces or judges policy: in flows nothing, out flow universes, changes to them, and who reaches whom after
//! each. Three public suites are told here in our own words: see the crate's README for what is theirs and what is not.
//!
//! ```
//! for case in twill_policy_cases::kubernetes() {
//!     assert!(case.steps.iter().any(|step| !step.probes.is_empty()), "{}", case.name);
//! }
//! ```

mod address;
mod conformance;
mod cyclonus;
mod kubernetes;
mod manifest;
mod matrix;
mod universe;
mod world;

pub use address::{Unknown, resolve};
pub use conformance::cluster_network_policy;
pub use cyclonus::cyclonus;
pub use kubernetes::kubernetes;
pub use universe::{NODES, Universe};
pub use world::World;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One case: it begins in its universe, without any policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Unique within its suite; kebab case.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// What there is at the beginning.
    pub universe: Universe,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Changes, and what is asked when all of them have taken effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// In order; none: the same is asked again.
    pub changes: Vec<Change>,
    /// None: the step only prepares the next one.
    pub probes: Vec<Probe>,
}

/// A change to the objects. CIDRs that depend on addresses are placeholders: see [`resolve`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Creates the object, or replaces the one of its kind and name.
    Apply(Value),
    /// Removes an object; a namespace is empty by then.
    Delete(Reference),
    /// Replaces all labels of a Pod or Namespace.
    Label(Reference, BTreeMap<String, String>),
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// Kind, such as `NetworkPolicy`.
    pub kind: String,
    /// Namespace; empty where the kind has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// One attempt to open a connection to the address of a pod. On the way it may go through a Service: no case depends on that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Sender, as `namespace/name`.
    pub from: String,
    /// Receiver, as `namespace/name`.
    pub to: String,
    /// Transport.
    pub protocol: Protocol,
    /// Port of the receiver.
    pub port: u16,
    /// What the suite itself says; nothing where it has no word of its own.
    pub reached: Option<bool>,
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}:{}/{}", self.from, self.to, self.port, self.protocol)
    }
}
