//! What a table shows of an object beside name and age.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use twill_crds::Kind;

/// A column's head, and what stands in it.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// The columns of a kind.
pub(super) fn of(kind: &Kind) -> &'static [Column] {
    match kind.kind.as_ref() {
        "IPPool" => &[
            ("CIDR", |o| text(o, "/spec/cidr")),
            ("BLOCK", block_size),
            ("ENCAPSULATION", encapsulation),
            ("NAT", |o| yes_no(o, "/spec/natOutgoing")),
            ("DISABLED", |o| yes_no(o, "/spec/disabled")),
        ],
        "IPBlock" => &[
            ("CIDR", |o| text(o, "/spec/cidr")),
            ("NODE", |o| text(o, "/spec/node")),
            ("USED", |o| text(o, "/status/used")),
        ],
        "BGPPeer" => &[("REMOTE", |o| text(o, "/spec/remote/address")), ("AS", |o| text(o, "/spec/asn"))],
        "BGPConfiguration" => &[
            ("AS", |o| text(o, "/spec/asn")),
            ("TOPOLOGY", |o| text(o, "/spec/topology")),
            ("PORT", |o| text(o, "/spec/listenPort")),
        ],
        "IPReservation" => &[
            ("RANGES", |o| list(o, "/spec/reservedCIDRs", "")),
            ("ADDRESSES", |o| list(o, "/spec/addresses", "")),
            ("POD", |o| text(o, "/spec/pod/name")),
            ("NODE", |o| text(o, "/status/holder/node")),
        ],
        "NodeNetwork" => &[
            ("ADDRESSES", |o| list(o, "/status/bgp/addresses", "")),
            ("AS", |o| text(o, "/status/bgp/asn")),
            ("TUNNEL", |o| list(o, "/status/bgp/tunnelAddresses", "")),
            ("DRAINED", drained),
            ("NOT READY", conditions),
        ],
        "Node" => {
            &[("ADDRESSES", |o| list(o, "/status/addresses", "/address")), ("LABELS", |o| map(o, "/metadata/labels"))]
        }
        "Namespace" => &[("PHASE", |o| text(o, "/status/phase")), ("LABELS", |o| map(o, "/metadata/labels"))],
        "Pod" => &[
            ("PHASE", |o| text(o, "/status/phase")),
            ("IP", pod_ips),
            ("NODE", |o| text(o, "/spec/nodeName")),
            ("LABELS", |o| map(o, "/metadata/labels")),
        ],
        "Service" => &[
            ("ADDRESSES", service_ips),
            ("EXTERNAL", external_ips),
            ("PORTS", |o| list(o, "/spec/ports", "/port")),
            ("NODE PORTS", |o| list(o, "/spec/ports", "/nodePort")),
        ],
        "NetworkPolicy" => {
            &[("PODS", |o| map(o, "/spec/podSelector/matchLabels")), ("TYPES", |o| list(o, "/spec/policyTypes", ""))]
        }
        "ClusterNetworkPolicy" => &[("TIER", |o| text(o, "/spec/tier")), ("PRIORITY", |o| text(o, "/spec/priority"))],
        "NamespaceIsolation" => &[
            ("NAMESPACES", |o| map(o, "/spec/namespaceSelector/matchLabels")),
            ("DIRECTIONS", |o| list(o, "/spec/directions", "")),
            ("ALLOW", |o| list(o, "/spec/allow", "")),
        ],
        "HostPolicy" => &[
            ("PRIORITY", |o| text(o, "/spec/priority")),
            ("DIRECTIONS", |o| list(o, "/spec/directions", "")),
            ("INTERFACES", |o| list(o, "/spec/interfaces", "")),
            ("CONFIRMATION", |o| text(o, "/spec/confirmation/mode")),
        ],
        "Lease" => &[("HOLDER", |o| text(o, "/spec/holderIdentity"))],
        "Event" => &[
            ("TYPE", |o| text(o, "/type")),
            ("REASON", |o| text(o, "/reason")),
            ("OBJECT", |o| format!("{}/{}", text(o, "/regarding/kind"), text(o, "/regarding/name"))),
            ("NOTE", |o| text(o, "/note")),
        ],
        _ => &[],
    }
}

/// Age as `12s`, `5m`, `3h`, `9d`.
pub(super) fn age(created: &str, now: i64) -> String {
    let Ok(created) = created.parse::<Timestamp>() else { return "-".into() };
    match (now - created.as_second()).max(0) {
        s @ ..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

fn text(object: &Value, path: &str) -> String {
    match object.pointer(path) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn yes_no(object: &Value, path: &str) -> String {
    if object.pointer(path) == Some(&Value::Bool(true)) { "yes" } else { "no" }.into()
}

/// The elements at a path, of each what is at `inner`.
fn list(object: &Value, path: &str, inner: &str) -> String {
    let elements = object.pointer(path).and_then(Value::as_array).into_iter().flatten();
    joined(elements.map(|element| text(element, inner)))
}

fn map(object: &Value, path: &str) -> String {
    let pairs = object.pointer(path).and_then(Value::as_object).into_iter().flatten();
    joined(
        pairs
            .filter(|(key, _)| *key != "kubernetes.io/metadata.name")
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())),
    )
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "-".into() } else { parts.join(",") }
}

fn block_size(pool: &Value) -> String {
    let spec: Result<twill_crds::IPPoolSpec, _> = serde_json::from_value(pool["spec"].clone());
    spec.map_or("-".into(), |spec| format!("/{}", spec.block_prefix_len()))
}

fn encapsulation(pool: &Value) -> String {
    let spec: Result<twill_crds::IPPoolSpec, _> = serde_json::from_value(pool["spec"].clone());
    match spec.map(|spec| spec.encapsulation) {
        Ok(e) if e.protocol == twill_crds::Protocol::None => "None".into(),
        Ok(e) => format!("{:?} {:?}", e.protocol, e.when),
        Err(_) => "-".into(),
    }
}

fn service_ips(service: &Value) -> String {
    match list(service, "/spec/clusterIPs", "").as_str() {
        "-" => text(service, "/spec/clusterIP"),
        ips => ips.to_owned(),
    }
}

fn external_ips(service: &Value) -> String {
    let of = [("/spec/externalIPs", ""), ("/status/loadBalancer/ingress", "/ip")];
    joined(of.into_iter().map(|(path, inner)| list(service, path, inner)).filter(|all| all != "-"))
}

fn pod_ips(pod: &Value) -> String {
    match list(pod, "/status/podIPs", "/ip").as_str() {
        "-" => text(pod, "/status/podIP"),
        ips => ips.to_owned(),
    }
}

/// Whether the node is out of routing, or on its way there.
fn drained(network: &Value) -> String {
    if network.pointer("/spec/drain") != Some(&Value::Bool(true)) {
        return "no".into();
    }
    let conditions = network.pointer("/status/bgp/conditions").and_then(Value::as_array);
    let done = conditions.into_iter().flatten().any(|c| c["type"] == "Drained" && c["status"] == "True");
    if done { "yes" } else { "draining" }.into()
}

/// The conditions that do not hold.
fn conditions(object: &Value) -> String {
    let of = |part: &str| object.pointer(part).and_then(Value::as_array).cloned().unwrap_or_default();
    let all = of("/status/bgp/conditions").into_iter().chain(of("/status/felix/conditions"));
    joined(all.filter(|c| c["status"] != "True").map(|c| text(&c, "/type")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ages_are_short() {
        let at = |seconds: i64| age("2026-01-01T00:00:00Z", 1_767_225_600 + seconds);
        assert_eq!([-5, 119, 120, 7200, 172_800].map(at), ["0s", "119s", "2m", "2h", "2d"]);
        assert_eq!(age("", 0), "-");
    }

    #[test]
    fn a_pool_and_a_pod_in_a_line() {
        let line = |kind: &str, object: Value| -> Vec<String> {
            of(&twill_crds::known::named(kind).into_iter().next().unwrap_or_else(|| panic!("{kind}")))
                .iter()
                .map(|(_, cell)| cell(&object))
                .collect()
        };
        let pool =
            json!({"spec": {"cidr": "10.42.0.0/16", "encapsulation": {"protocol": "VXLAN"}, "natOutgoing": true}});
        assert_eq!(line("pool", pool), ["10.42.0.0/16", "/26", "VXLAN CrossSubnet", "yes", "no"]);
        let network = |status: &str| json!({"spec": {"drain": true}, "status": {"bgp": {"conditions": [{"type": "Drained", "status": status}]}}});
        assert_eq!(line("nodenetwork", network("False")), ["-", "-", "-", "draining", "Drained"]);
        assert_eq!(line("nodenetwork", network("True")), ["-", "-", "-", "yes", "-"]);
        let pod = json!({"metadata": {"labels": {"app": "a"}}, "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
        assert_eq!(line("pod", pod), ["-", "10.0.0.1,fd00::1", "-", "app=a"]);
        let service = json!({"spec": {"clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.7"], "ports": [{"port": 80, "nodePort": 30080}, {"port": 53}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}}});
        assert_eq!(line("service", service), ["10.96.0.1", "192.0.2.7,192.0.2.8", "80,53", "30080,-"]);
        assert_eq!(line("service", json!({})), ["-"; 4]);
    }
}
