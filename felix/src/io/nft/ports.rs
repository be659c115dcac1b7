//! Ports of this node that lead to workloads, as an earlier felix left them in the kernel: what is known of them when its store is lost.

use super::Error;
use super::actual::{self, Actual};
use super::connection::Connection;
use crate::base::HOSTPORTS;
use crate::model::Protocol;
use crate::ruleset::{Key, Set, Value};
use crate::workload::PortMapping;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// By the address that they lead to. A port of every address is told once per family.
///
/// # Errors
/// The kernel could not be read. Without a table there are none.
pub fn left_ports() -> Result<BTreeMap<IpAddr, Vec<PortMapping>>, Error> {
    let actual = actual::read(&mut Connection::open()?)?;
    Ok(ports_of(&actual))
}

fn ports_of(actual: &Actual) -> BTreeMap<IpAddr, Vec<PortMapping>> {
    let mut found: BTreeMap<IpAddr, Vec<PortMapping>> = BTreeMap::new();
    for name in HOSTPORTS {
        let Some(set) = actual.set(name) else { continue };
        for (address, mapping) in set.elements.iter().filter_map(|(key, value)| mapping(set, key, value)) {
            found.entry(address).or_default().push(mapping);
        }
    }
    found
}

fn mapping(set: &Set, key: &Key, value: &Value) -> Option<(IpAddr, PortMapping)> {
    let Value::Mapped(to) = value else { return None };
    let address = to.address(&set.data)?;
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Protocol and port end the key, four bytes each.
    let protocol = *key.bytes().iter().rev().nth(7)?;
    let mapping = PortMapping {
        host_ip: Some(key.address(&set.key).unwrap_or(any)),
        host_port: key.last_port()?,
        container_port: to.last_port()?,
        protocol: Protocol(protocol),
    };
    Some((address, mapping))
}
