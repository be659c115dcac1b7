//! Who finishes the checksums of what travels in tunnels: the network interface, or the kernel before it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of checksum offload on the tunnel devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ChecksumOffload {
    /// Turned off where it is known not to work, by kernel and driver; nowhere turned on.
    #[default]
    Auto,
    /// Turned off.
    Disabled,
    /// Left as the operator of the machine has it.
    Unchanged,
}
