//! Capabilities `portMappings` and `bandwidth` as the runtime says them, judged (CNI conventions, "Dynamic plugin specific fields").

use super::{Failure, Reason};
use crate::model::Protocol;
use crate::workload::{Asked, Bandwidth, Limit, PortMapping};
use serde_json::Value;
use std::net::IpAddr;

const PORTS: &str = "runtimeConfig.portMappings";
const BANDWIDTH: &str = "runtimeConfig.bandwidth";

/// A burst from here on is a runtime's way to say that it has nothing to say: containerd and others send the largest number.
const NO_SAY: u64 = i32::MAX as u64;
/// What a burst lasts at the rate, if nobody says how large it is.
const BURST: u64 = 10;
/// Smallest burst in bytes: some packets as large as offloading makes them, else nothing that large would ever pass.
const SMALLEST_BURST: u64 = 128 * 1024;
/// Bits per second; with less, which Kubernetes refuses, too, no burst that the kernel holds lets a large packet pass.
const SLOWEST: u64 = 1000;

/// What a configuration asks for.
///
/// # Errors
/// The first field that makes no sense, or what cannot be done.
pub(super) fn asked(config: &Value) -> Result<Asked, Failure> {
    let capabilities = config.get("runtimeConfig").unwrap_or(&Value::Null);
    Ok(Asked {
        ports: port_mappings(&capabilities["portMappings"])?,
        bandwidth: bandwidth(&capabilities["bandwidth"])?,
    })
}

/// `portMappings`, sorted, each once.
///
/// # Errors
/// The first field that makes no sense, or what cannot be done.
fn port_mappings(value: &Value) -> Result<Vec<PortMapping>, Failure> {
    let all = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(all) => all,
        other => return Err(wrong(PORTS, format!("{other} is not a list"))),
    };
    let mut found: Vec<PortMapping> = Vec::new();
    for (n, one) in all.iter().enumerate() {
        let mapping = port_mapping(&format!("{PORTS}[{n}]"), one)?;
        if found.contains(&mapping) {
            continue;
        }
        if let Some(other) = found.iter().find(|other| other.overlaps(&mapping)) {
            let to = other.container_port;
            return Err(wrong(
                &format!("{PORTS}[{n}]"),
                format!(
                    "host port {mapping} leads to container port {to} already; give one of the two another hostPort or hostIP"
                ),
            ));
        }
        found.push(mapping);
    }
    found.sort_unstable();
    Ok(found)
}

fn port_mapping(field: &str, one: &Value) -> Result<PortMapping, Failure> {
    if !one.is_object() {
        return Err(wrong(field, format!("{one} is not an object with hostPort and containerPort")));
    }
    let port = |name: &str| {
        let number = one[name].as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        number.ok_or_else(|| wrong(&format!("{field}.{name}"), format!("{} is not a port from 1 to 65535", one[name])))
    };
    let protocol = match &one["protocol"] {
        Value::Null => Protocol::TCP,
        Value::String(name) if name.is_empty() => Protocol::TCP,
        other => {
            let name = other.as_str().map(str::to_ascii_uppercase);
            let protocol = name.as_deref().and_then(|name| Protocol::of_port(Some(name)).ok());
            protocol
                .ok_or_else(|| wrong(&format!("{field}.protocol"), format!("{other} is none of tcp, udp and sctp")))?
        }
    };
    let host_ip = match &one["hostIP"] {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        other => Some(host_ip(&format!("{field}.hostIP"), other)?),
    };
    Ok(PortMapping { host_ip, host_port: port("hostPort")?, container_port: port("containerPort")?, protocol })
}

fn host_ip(field: &str, value: &Value) -> Result<IpAddr, Failure> {
    let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok()).map(|address| address.to_canonical());
    let address = address.ok_or_else(|| wrong(field, format!("{value} is not an IP address")))?;
    if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
        let message = format!(
            "{field}: {address} is another machine's on each link, so no pod can have a port of it; leave hostIP out, or name an \
             address that others reach the node by"
        );
        return Err(Failure::new(Reason::UnsupportedField, message));
    }
    if address.is_multicast() {
        return Err(wrong(field, format!("{address} is no node's address")));
    }
    Ok(address)
}

/// `bandwidth`; none if it limits nothing.
///
/// # Errors
/// The first field that makes no sense.
fn bandwidth(value: &Value) -> Result<Option<Bandwidth>, Failure> {
    if value.is_null() {
        return Ok(None);
    }
    if !value.is_object() {
        return Err(wrong(BANDWIDTH, format!("{value} is not an object with rates and bursts")));
    }
    let limit = |rate: &str, burst: &str| limit(number(value, rate)?, number(value, burst)?, (rate, burst));
    let found =
        Bandwidth { ingress: limit("ingressRate", "ingressBurst")?, egress: limit("egressRate", "egressBurst")? };
    Ok((found != Bandwidth::default()).then_some(found))
}

/// Bits become bytes, upwards.
fn limit(rate: u64, burst: u64, (rate_name, burst_name): (&str, &str)) -> Result<Option<Limit>, Failure> {
    match (rate, burst) {
        (0, 0) => return Ok(None),
        (0, _) => {
            return Err(wrong(
                &format!("{BANDWIDTH}.{burst_name}"),
                format!("a burst without {rate_name} limits nothing; set both, or neither"),
            ));
        }
        (1..SLOWEST, _) => {
            let message = format!("{rate} bits per second let no large packet pass; give {SLOWEST} or more");
            return Err(wrong(&format!("{BANDWIDTH}.{rate_name}"), message));
        }
        _ => {}
    }
    let rate = rate.div_ceil(8);
    let burst = if burst == 0 || burst >= NO_SAY { rate / BURST } else { burst.div_ceil(8) };
    let burst = burst.clamp(SMALLEST_BURST, u32::MAX.into());
    Ok(Some(Limit { rate, burst: u32::try_from(burst).unwrap_or(u32::MAX) }))
}

/// Bits (per second); absent counts as 0.
fn number(value: &Value, name: &str) -> Result<u64, Failure> {
    match &value[name] {
        Value::Null => Ok(0),
        other => other
            .as_u64()
            .ok_or_else(|| wrong(&format!("{BANDWIDTH}.{name}"), format!("{other} is not a number of bits from 0 on"))),
    }
}

fn wrong(field: &str, what: String) -> Failure {
    Failure::new(Reason::InvalidConfig, format!("{field}: {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mappings_are_read_as_runtimes_write_them() {
        assert_eq!(port_mappings(&Value::Null).unwrap(), []);
        let read = port_mappings(&json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": ""},
            {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
            {"hostPort": 9, "containerPort": 9, "hostIP": "::ffff:10.0.0.1"},
            {"hostPort": 7, "containerPort": 9, "hostIP": "127.0.0.1"},
            {"hostPort": 7, "containerPort": 9, "hostIP": "::1"},
        ]));
        let mut texts: Vec<String> =
            read.unwrap().iter().map(|one| format!("{one} -> {}", one.container_port)).collect();
        let expected = [
            "53/UDP -> 5353",
            "7/TCP at 127.0.0.1 -> 9",
            "7/TCP at ::1 -> 9",
            "8080/TCP -> 80",
            "9/TCP at 10.0.0.1 -> 9",
        ];
        texts.sort_unstable();
        assert_eq!(texts, expected);
    }

    #[test]
    fn a_wrong_mapping_is_refused_with_its_place_and_field() {
        let good = json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp"});
        let with = |field: &str, value: Value| {
            let mut one = good.clone();
            one[field] = value;
            json!([good, one])
        };
        for (value, names, reason) in [
            (json!({}), "portMappings", Reason::InvalidConfig),
            (json!([7]), "portMappings[0]", Reason::InvalidConfig),
            (with("hostPort", json!(0)), "[1].hostPort", Reason::InvalidConfig),
            (with("hostPort", json!(65536)), "[1].hostPort", Reason::InvalidConfig),
            (with("hostPort", json!("80")), "[1].hostPort", Reason::InvalidConfig),
            (with("containerPort", json!(-1)), "[1].containerPort", Reason::InvalidConfig),
            (with("protocol", json!("icmp")), "[1].protocol", Reason::InvalidConfig),
            (with("protocol", json!(6)), "[1].protocol", Reason::InvalidConfig),
            (with("hostIP", json!("node-1")), "[1].hostIP", Reason::InvalidConfig),
            (with("hostIP", json!("224.0.0.1")), "[1].hostIP", Reason::InvalidConfig),
            (with("hostIP", json!("fe80::1")), "[1].hostIP", Reason::UnsupportedField),
            (with("containerPort", json!(81)), "80/TCP leads to container port 80 already", Reason::InvalidConfig),
        ] {
            let failure = port_mappings(&value).unwrap_err();
            assert!(failure.message.contains(names) && failure.reason == reason, "{failure}");
        }
    }

    #[test]
    fn bits_become_bytes_and_a_burst_that_nobody_means_is_a_tenth_of_a_second() {
        let read = |value: Value| bandwidth(&value).unwrap();
        for nothing in [Value::Null, json!({}), json!({"ingressRate": 0, "ingressBurst": 0})] {
            assert_eq!(read(nothing), None);
        }
        let both = json!({"ingressRate": 80_000_001, "ingressBurst": 16_000_000, "egressRate": 800_000_000, "egressBurst": 4_294_967_295_u32});
        let (ingress, egress) =
            (Limit { rate: 10_000_001, burst: 2_000_000 }, Limit { rate: 100_000_000, burst: 10_000_000 });
        assert_eq!(read(both), Some(Bandwidth { ingress: Some(ingress), egress: Some(egress) }));
        let slow = json!({"egressRate": 1000, "egressBurst": 8});
        let egress = Some(Limit { rate: 125, burst: 128 * 1024 });
        assert_eq!(read(slow), Some(Bandwidth { ingress: None, egress }), "a large packet must pass at all");
        for (value, names) in [
            (json!([]), "bandwidth"),
            (json!({"ingressRate": -1}), "ingressRate"),
            (json!({"egressRate": "1M"}), "egressRate"),
            (json!({"egressRate": 999}), "egressRate: 999 bits per second"),
            (json!({"egressBurst": 8000}), "egressBurst: a burst without egressRate"),
        ] {
            let failure = bandwidth(&value).unwrap_err();
            assert!(failure.message.contains(names), "{failure}");
        }
    }
}
