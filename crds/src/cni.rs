//! What `twill-cni` and felix say to each other on felix's socket, one request per connection.
//!
//! Framing, on this and on the control sockets: one JSON document per line, UTF-8, ended by `\n`.

use crate::names::{CNI_NETWORK, CNI_PLUGIN};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// Version of the CNI specification that our network configuration asks for. 1.1.0 would have the runtime call STATUS and GC, which the
/// plugin does not speak.
pub const CONF_VERSION: &str = "1.0.0";

/// The network configuration list that leads a runtime to the felix which listens at `socket`, as the file [`crate::names::CNI_CONFLIST`]
/// holds it.
#[must_use]
pub fn conflist(socket: &Path) -> String {
    let plugin = json!({"type": CNI_PLUGIN, "socket": socket});
    let list = json!({"cniVersion": CONF_VERSION, "name": CNI_NETWORK, "plugins": [plugin]});
    format!("{list:#}\n")
}

/// A call of the plugin, as the runtime made it (CNI specification 1.1, section 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniRequest {
    /// CNI_COMMAND: `ADD` or `DEL`.
    pub command: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS, a path; may be empty on DEL.
    #[serde(default)]
    pub netns: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_ARGS as it came, `K=V;K=V`.
    #[serde(default)]
    pub args: String,
    /// The network configuration from standard input, already known to be a JSON object.
    pub config: Value,
}

/// felix's answer to a [`CniRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CniReply {
    /// Exit 0; printed as it is unless null (DEL prints nothing).
    Result(Value),
    /// Exit 1; printed as the CNI error object.
    Error(CniError),
}

/// The CNI error object (CNI specification 1.1, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniError {
    /// Version of the specification that the configuration asked for.
    pub cni_version: String,
    /// 1 to 99 as the specification has them; Twill's own from 100.
    pub code: u32,
    /// One sentence.
    pub msg: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// `code`: the configuration asks for a version we do not speak.
pub const ERR_INCOMPATIBLE_VERSION: u32 = 1;
/// `code`: a field of the configuration is not supported.
pub const ERR_UNSUPPORTED_FIELD: u32 = 2;
/// `code`: the container is unknown or does not exist.
pub const ERR_UNKNOWN_CONTAINER: u32 = 3;
/// `code`: an environment variable is missing or wrong.
pub const ERR_INVALID_ENVIRONMENT: u32 = 4;
/// `code`: input or output failed.
pub const ERR_IO: u32 = 5;
/// `code`: the configuration is not JSON.
pub const ERR_DECODING: u32 = 6;
/// `code`: a field of the configuration has a wrong value.
pub const ERR_INVALID_CONFIG: u32 = 7;
/// `code`: try again later.
pub const ERR_TRY_AGAIN: u32 = 11;
/// `code` of Twill's own: no pool has an address left for this pod.
pub const ERR_NO_ADDRESS: u32 = 100;
/// `code` of Twill's own: the kernel refused a change.
pub const ERR_KERNEL: u32 = 101;
/// `code` of Twill's own: the local store of addresses cannot be written.
pub const ERR_STORE: u32 = 102;
