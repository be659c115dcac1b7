//! A pod as one line of text. Its own form and not the API's: a hundred thousand are read within a second.

use crate::model::{NamedPort, Pod, PodKey, Protocol};
use crate::workload::supply::PoolNames;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use twill_datastore::Key;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    node: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "is_false")]
    host_network: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    completed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpAddr>,
    /// Name, protocol, number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<(String, u8, u16)>,
    created: i128,
    /// Annotations that name pools, of IPv4 and of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pools: Option<[Option<String>; 2]>,
}

/// A pod's line.
pub(super) fn write(pod: &Pod) -> String {
    let record = Record {
        uid: Cow::Borrowed(&pod.uid),
        node: Cow::Borrowed(&pod.node),
        labels: Cow::Borrowed(&*pod.labels),
        host_network: pod.host_network,
        completed: pod.completed,
        addresses: pod.addresses.iter().copied().collect(),
        ports: pod.ports.iter().map(|port| (port.name.clone(), port.protocol.0, port.port)).collect(),
        created: pod.created,
        pools: pod.pools.as_ref().map(|names| [names.v4.clone(), names.v6.clone()]),
    };
    serde_json::to_string(&record).expect("text, numbers and maps with text as keys can always be written")
}

/// The pod of a line.
pub(super) fn read(key: &Key, line: &str) -> Result<Pod, serde_json::Error> {
    let record: Record<'_> = serde_json::from_str(line)?;
    let port = |(name, protocol, port)| NamedPort { name, protocol: Protocol(protocol), port };
    Ok(Pod {
        key: PodKey { namespace: key.namespace.clone(), name: key.name.clone() },
        uid: record.uid.into_owned(),
        labels: Arc::new(record.labels.into_owned()),
        node: record.node.into_owned(),
        host_network: record.host_network,
        completed: record.completed,
        addresses: record.addresses.into_iter().collect(),
        ports: record.ports.into_iter().map(port).collect(),
        created: record.created,
        pools: record.pools.map(|[v4, v6]| Box::new(PoolNames { v4, v6 })),
    })
}

fn is_false(flag: &bool) -> bool {
    !flag
}
