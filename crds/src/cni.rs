//! What `twill-cni` and felix say to each other on felix's socket, one request per connection.
//!
//! Framing, on this and on the control sockets: one JSON document per line, UTF-8, ended by `\n`.

use crate::names::{CNI_NETWORK, CNI_PLUGIN};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Versions of the CNI specification that the plugin speaks, oldest first.
pub const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Version that our network configuration asks for where the runtime does not know `cniVersions`.
pub const CONF_VERSION: &str = "1.0.0";
/// `cniVersions` of our network configuration: a runtime takes the newest that it knows itself.
const CONF_VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// What a runtime may ask of the plugin for one attachment: it passes on only what is announced.
const CAPABILITIES: [&str; 4] = ["bandwidth", "ips", "mac", "portMappings"];

/// The network configuration list that leads a runtime to the felix which listens at `socket` and keeps its state in `state_dir`, as the
/// file [`crate::names::CNI_CONFLIST`] holds it.
#[must_use]
pub fn conflist(socket: &Path, state_dir: &Path) -> String {
    let capabilities: Map<String, Value> = CAPABILITIES.iter().map(|name| ((*name).to_owned(), json!(true))).collect();
    let plugin = json!({"type": CNI_PLUGIN, "socket": socket, "stateDir": state_dir, "capabilities": capabilities});
    let list =
        json!({"cniVersion": CONF_VERSION, "cniVersions": CONF_VERSIONS, "name": CNI_NETWORK, "plugins": [plugin]});
    format!("{list:#}\n")
}

/// A call of the plugin, as the runtime made it (CNI specification 1.1, section 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniRequest {
    /// CNI_COMMAND: `ADD`, `DEL`, `CHECK`, `STATUS` or `GC`.
    pub command: String,
    /// CNI_CONTAINERID; empty for STATUS and GC.
    #[serde(default)]
    pub container_id: String,
    /// CNI_NETNS, a path; may be empty on DEL.
    #[serde(default)]
    pub netns: String,
    /// CNI_IFNAME; empty for STATUS and GC.
    #[serde(default)]
    pub ifname: String,
    /// CNI_ARGS as it came, `K=V;K=V`.
    #[serde(default)]
    pub args: String,
    /// The network configuration from standard input, already known to be a JSON object.
    pub config: Value,
    /// Whether only addresses are asked for: another plugin makes the interface.
    #[serde(default, skip_serializing_if = "is_default")]
    pub delegated: bool,
    /// When the plugin was called; none from a plugin that does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// What the address plugin that `ipam.type` names gave, its ADD result; null without one.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub ipam_result: Value,
    /// Whether the plugin says [`ACKNOWLEDGED`] once the runtime has the result of an ADD. Without that felix takes the ADD back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub acknowledges: bool,
}

/// The line by which the plugin says that the runtime has the result of an ADD.
pub const ACKNOWLEDGED: &str = "{\"acknowledged\":true}";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A moment in the life of a node, by which calls of its plugin are told apart: `BOOT/NANOSECONDS` as text. An attachment has that of its
/// ADD; a DEL is about attachments up to its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The kernel's identifier of the boot.
    pub boot: String,
    /// Nanoseconds since then (CLOCK_BOOTTIME).
    pub at: u64,
}

impl Generation {
    /// Whether this one's attachment is meant by a DEL of `del`. Attachments of an earlier boot are; of a later one, never: `now` is
    /// the boot that runs, so what bears it is not earlier than anything.
    #[must_use]
    pub fn is_up_to(&self, del: &Self, now: &str) -> bool {
        if self.boot == del.boot { self.at <= del.at } else { self.boot != now }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.boot, self.at)
    }
}

impl FromStr for Generation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (boot, at) = text.rsplit_once('/').ok_or_else(|| format!("{text:?} is not BOOT/NANOSECONDS"))?;
        let at = at.parse().map_err(|_| format!("{text:?} does not end in nanoseconds"))?;
        Ok(Self { boot: boot.to_owned(), at })
    }
}

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
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
/// `code`: the network namespace is wrong; libcni has it, the specification's table does not.
pub const ERR_INVALID_NETNS: u32 = 8;
/// `code` of STATUS: an ADD would fail now.
pub const ERR_NOT_AVAILABLE: u32 = 50;
/// `code` of STATUS: an ADD would fail now, and pods that run may have limited connectivity.
pub const ERR_LIMITED: u32 = 51;
/// `code` of Twill's own: no pool has an address left for this pod.
pub const ERR_NO_ADDRESS: u32 = 100;
/// `code` of Twill's own: the kernel refused a change.
pub const ERR_KERNEL: u32 = 101;
/// `code` of Twill's own: the local store of addresses cannot be written.
pub const ERR_STORE: u32 = 102;
/// `code` of Twill's own: a port of the node that was asked for is another pod's, or the node's own.
pub const ERR_PORT_TAKEN: u32 = 110;
/// `code` of Twill's own: an address that was asked for cannot be given.
pub const ERR_ADDRESS_REFUSED: u32 = 103;
/// `code` of Twill's own: CHECK found something that is not as it was attached.
pub const ERR_DIFFERS: u32 = 104;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_del_means_what_was_attached_before_it_and_nothing_later() {
        let at = |text: &str| text.parse::<Generation>().unwrap();
        let del = at("b/100");
        for (attached, meant) in [("b/99", true), ("b/100", true), ("b/101", false), ("a/500", true)] {
            assert_eq!(at(attached).is_up_to(&del, "b"), meant, "{attached}");
        }
        // The DEL is of an earlier boot than the one that runs.
        assert!(!at("c/1").is_up_to(&del, "c") && at("b/99").is_up_to(&del, "c"));
        assert_eq!(at("b/99").to_string(), "b/99");
        for wrong in ["", "b", "b/", "b/x", "b/-1"] {
            assert!(wrong.parse::<Generation>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_request_of_an_older_plugin_is_understood() {
        let old =
            json!({"command": "DEL", "containerId": "c", "netns": "", "ifname": "eth0", "args": "", "config": {}});
        let request: CniRequest = serde_json::from_value(old.clone()).unwrap();
        assert!(!request.delegated && !request.acknowledges && request.generation.is_none());
        assert_eq!(serde_json::to_value(&request).unwrap(), old);
    }
}
