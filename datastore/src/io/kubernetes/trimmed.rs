//! What followers read of Kubernetes' own kinds, and nothing else.
//!
//! In flow objects, as protobuf or as JSON; out flow documents of the same fields, the same from both. The numbers are those that the
//! API's `generated.proto` gives the fields. Whatever is not named here is skipped without being kept.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;
use twill_crds::{Kind, names};

/// A kind of which followers read a part.
#[derive(Debug)]
pub(super) struct Trimmed {
    /// Out of the bytes of a protobuf message.
    pub(super) protobuf: fn(&[u8]) -> Result<Value, String>,
    /// Out of a document as the server gives it as JSON. One that cannot be read so is left as it is, for the types to refuse.
    pub(super) json: fn(Value) -> Value,
}

/// Of which kinds followers read a part, and which.
pub(super) fn of(kind: &Kind) -> Option<&'static Trimmed> {
    const fn both<T: Part>() -> Trimmed {
        Trimmed { protobuf: protobuf::<T>, json: json::<T> }
    }
    static POD: Trimmed = both::<Pod>();
    static NODE: Trimmed = both::<Node>();
    static NAMESPACE: Trimmed = both::<Namespace>();
    static SLICE: Trimmed = both::<EndpointSlice>();
    match (&*kind.group, &*kind.version, &*kind.kind) {
        ("discovery.k8s.io", "v1", "EndpointSlice") => Some(&SLICE),
        ("", "v1", "Pod") => Some(&POD),
        ("", "v1", "Node") => Some(&NODE),
        ("", "v1", "Namespace") => Some(&NAMESPACE),
        _ => None,
    }
}

trait Part: prost::Message + Default + Serialize + DeserializeOwned {}
impl<T: prost::Message + Default + Serialize + DeserializeOwned> Part for T {}

fn protobuf<T: Part>(bytes: &[u8]) -> Result<Value, String> {
    let part = T::decode(bytes).map_err(|e| e.to_string())?;
    serde_json::to_value(part).map_err(|e| e.to_string())
}

fn json<T: Part>(object: Value) -> Value {
    let part = T::deserialize(&object).and_then(serde_json::to_value);
    part.unwrap_or(object)
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Pod {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    spec: PodSpec,
    #[prost(message, required, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    status: PodStatus,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    name: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    namespace: String,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "is_default")]
    uid: String,
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    resource_version: String,
    #[prost(int64, tag = "7")]
    #[serde(skip_serializing_if = "is_default")]
    generation: i64,
    #[prost(message, required, tag = "8")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    creation_timestamp: Time,
    #[prost(message, required, tag = "9")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    deletion_timestamp: Time,
    #[prost(btree_map = "string, string", tag = "11")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    #[serde(skip_serializing_if = "none_is_ours", serialize_with = "ours", deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    /// That these are none is said as null.
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    containers: Vec<Container>,
    #[prost(string, tag = "10")]
    #[serde(skip_serializing_if = "is_default")]
    node_name: String,
    #[prost(bool, tag = "11")]
    #[serde(skip_serializing_if = "is_default")]
    host_network: bool,
    #[prost(message, repeated, tag = "20")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    init_containers: Vec<Container>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    #[prost(message, repeated, tag = "6")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    #[prost(string, tag = "24")]
    #[serde(skip_serializing_if = "is_default")]
    restart_policy: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    name: String,
    #[prost(int32, tag = "3")]
    container_port: i32,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    protocol: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct PodStatus {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "is_default")]
    phase: String,
    #[prost(string, tag = "6")]
    #[serde(rename = "podIP", skip_serializing_if = "is_default")]
    pod_ip: String,
    #[prost(message, repeated, tag = "12")]
    #[serde(rename = "podIPs", skip_serializing_if = "is_default", deserialize_with = "or_default")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct PodIp {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Node {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    #[serde(skip_serializing_if = "is_default")]
    spec: NodeSpec,
    #[prost(message, required, tag = "3")]
    #[serde(skip_serializing_if = "is_default")]
    status: NodeStatus,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[prost(bool, tag = "4")]
    #[serde(skip_serializing_if = "is_default")]
    unschedulable: bool,
    #[prost(message, repeated, tag = "5")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    taints: Vec<Taint>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Taint {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "3")]
    effect: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct NodeStatus {
    #[prost(message, repeated, tag = "4")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    conditions: Vec<NodeCondition>,
    #[prost(message, repeated, tag = "5")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct NodeCondition {
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    type_: String,
    #[prost(string, tag = "2")]
    status: String,
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct NodeAddress {
    #[prost(string, tag = "1")]
    #[serde(rename = "type")]
    type_: String,
    #[prost(string, tag = "2")]
    address: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EndpointSlice {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    endpoints: Vec<Endpoint>,
    #[prost(string, tag = "4")]
    address_type: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    /// Nobody reads them, and there is none without.
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, required, tag = "2")]
    #[serde(skip_serializing_if = "is_default", deserialize_with = "or_default")]
    conditions: EndpointConditions,
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "is_default")]
    node_name: String,
}

/// What is not said has a meaning of its own.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct EndpointConditions {
    #[prost(bool, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
struct Namespace {
    #[prost(message, required, tag = "1")]
    metadata: ObjectMeta,
}

/// A time of the API: whole seconds since 1970, of which the first is no time.
#[derive(Clone, PartialEq, prost::Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        jiff::Timestamp::from_second(self.seconds).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { seconds: jiff::Timestamp::deserialize(deserializer)?.as_second() })
    }
}

/// Of annotations, which may be large, only those of Twill's own domain are kept.
fn is_ours(key: &str) -> bool {
    key.split_once('/').is_some_and(|(domain, _)| domain == names::GROUP)
}

fn none_is_ours(annotations: &BTreeMap<String, String>) -> bool {
    !annotations.keys().any(|key| is_ours(key))
}

fn ours<S: Serializer>(annotations: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(annotations.iter().filter(|(key, _)| is_ours(key)))
}

/// Go writes what is empty in several ways, or not at all.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
