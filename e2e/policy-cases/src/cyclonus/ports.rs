//! Shapes of ports: none, each combination of protocol and port, names and numbers that are not served, and pairs.

use super::{Direction, shape, with_ports};
use crate::Case;
use serde_json::{Value, json};

/// 70 cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let name = format!("{}-no-ports", direction.rules());
        cases.push(shape(&name, "An empty list of ports.", &with_ports(direction, &json!([]))));
    }
    for direction in [Direction::Egress, Direction::Ingress] {
        for port in one().into_iter().chain(odd()) {
            cases.push(of(direction, "One port.", &[port]));
        }
    }
    for direction in [Direction::Egress, Direction::Ingress] {
        for pair in two() {
            cases.push(of(direction, "Two ports, either of which is enough.", &pair));
        }
    }
    cases
}

fn of(direction: Direction, about: &str, ports: &[Value]) -> Case {
    let names: Vec<String> = ports.iter().map(named).collect();
    let name = format!("{}-port-{}", direction.rules(), names.join("-or-"));
    shape(&name, about, &with_ports(direction, &json!(ports)))
}

/// `any`, `80`, `tcp-80`, `udp-serve-81-udp`, `sctp-53-to-80` …
fn named(port: &Value) -> String {
    let protocol = port["protocol"].as_str().map(str::to_lowercase);
    let number = port["port"].as_u64().map(|n| n.to_string());
    let number = number.or_else(|| port["port"].as_str().map(str::to_owned));
    let end = port["endPort"].as_u64().map(|n| format!("to-{n}"));
    let parts: Vec<String> = [protocol, number, end].into_iter().flatten().collect();
    if parts.is_empty() { "any".to_owned() } else { parts.join("-") }
}

fn one() -> Vec<Value> {
    let mut ports = Vec::new();
    for protocol in [None, Some("TCP"), Some("UDP"), Some("SCTP")] {
        for number in [None, Some(80), Some(81)] {
            let mut port = json!({});
            if let Some(protocol) = protocol {
                port["protocol"] = json!(protocol);
            }
            if let Some(number) = number {
                port["port"] = json!(number);
            }
            ports.push(port);
        }
    }
    for protocol in ["TCP", "UDP", "SCTP"] {
        for number in [80, 81] {
            let name = format!("serve-{number}-{}", protocol.to_lowercase());
            ports.push(json!({"protocol": protocol, "port": name}));
        }
    }
    for protocol in ["TCP", "UDP", "SCTP"] {
        for end in [80, 84] {
            ports.push(json!({"protocol": protocol, "port": 53, "endPort": end}));
        }
    }
    ports
}

/// A name of another protocol, a name that nobody serves, a number that nobody serves.
fn odd() -> [Value; 3] {
    [
        json!({"protocol": "TCP", "port": "serve-81-udp"}),
        json!({"protocol": "TCP", "port": "serve-7981-udp"}),
        json!({"protocol": "TCP", "port": 7981}),
    ]
}

fn two() -> Vec<[Value; 2]> {
    let (any, eighty) = (json!({}), json!({"port": 80}));
    let name = json!({"protocol": "UDP", "port": "serve-81-udp"});
    vec![
        [any.clone(), eighty.clone()],
        [any.clone(), json!({"port": "serve-80-tcp"})],
        [any, json!({"protocol": "UDP"})],
        [eighty.clone(), json!({"port": 81})],
        [eighty.clone(), json!({"port": "serve-81-tcp"})],
        [eighty, name.clone()],
        [json!({"protocol": "UDP", "port": 80}), name],
    ]
}
