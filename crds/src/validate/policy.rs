//! Defaults and rules of NetworkPolicy (`pkg/apis/networking` of Kubernetes: defaults, then validation).

use super::{Problem, metadata, selector};
use crate::NetworkPolicy;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

/// `policyTypes` is Ingress, and Egress if there are egress rules; a port's protocol is TCP. A policy without spec, or
/// without `podSelector`, selects all pods of its namespace.
pub(super) fn default(object: &mut Value) {
    if object["spec"].is_null() {
        object["spec"] = json!({});
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("podSelector").is_none_or(Value::is_null) {
        spec.insert("podSelector".into(), json!({}));
    }
    let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
    let types = spec.entry("policyTypes").or_insert(Value::Null);
    if types.is_null() || types.as_array().is_some_and(Vec::is_empty) {
        *types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
    for direction in ["ingress", "egress"] {
        for rule in spec.get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
            for port in rule.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(port) = port.as_object_mut() else { continue };
                let protocol = port.entry("protocol").or_insert(Value::Null);
                if protocol.is_null() {
                    *protocol = "TCP".into();
                }
            }
        }
    }
}

/// Rules of a policy.
pub(super) fn check(policy: &NetworkPolicy) -> Result<(), Problem> {
    let Some(spec) = &policy.spec else { return Ok(()) };
    selector::check_any("spec.podSelector", spec.pod_selector.as_ref())?;
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.len() > 2 {
        return Err(Problem::new("spec.policyTypes", "has more than two entries; use Ingress, Egress or both"));
    }
    if let Some(n) = types.iter().position(|name| !matches!(name.as_str(), "Ingress" | "Egress")) {
        let problem = format!("\"{}\" is no type; use Ingress or Egress", types[n]);
        return Err(Problem::new(format!("spec.policyTypes[{n}]"), problem));
    }
    for (n, rule) in spec.ingress.iter().flatten().enumerate() {
        ports(&format!("spec.ingress[{n}].ports"), rule.ports.as_deref())?;
        peers(&format!("spec.ingress[{n}].from"), rule.from.as_deref())?;
    }
    for (n, rule) in spec.egress.iter().flatten().enumerate() {
        ports(&format!("spec.egress[{n}].ports"), rule.ports.as_deref())?;
        peers(&format!("spec.egress[{n}].to"), rule.to.as_deref())?;
    }
    Ok(())
}

fn ports(field: &str, ports: Option<&[NetworkPolicyPort]>) -> Result<(), Problem> {
    for (n, entry) in ports.unwrap_or_default().iter().enumerate() {
        port(&format!("{field}[{n}]"), entry)?;
    }
    Ok(())
}

fn port(field: &str, entry: &NetworkPolicyPort) -> Result<(), Problem> {
    if let Some(protocol) = entry.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
        let problem = format!("\"{protocol}\" is no protocol; use TCP, UDP or SCTP");
        return Err(Problem::new(format!("{field}.protocol"), problem));
    }
    match &entry.port {
        Some(IntOrString::Int(number)) => numbered(&format!("{field}.port"), *number)?,
        Some(IntOrString::String(name)) => port_name(&format!("{field}.port"), name)?,
        None => {}
    }
    let Some(end) = entry.end_port else { return Ok(()) };
    let field = format!("{field}.endPort");
    match &entry.port {
        Some(IntOrString::Int(start)) if end < *start => {
            Err(Problem::new(field, format!("is {end}, less than port {start}; give the range from low to high")))
        }
        Some(IntOrString::Int(_)) => numbered(&field, end),
        _ => Err(Problem::new(field, "is set without a numeric port; set port to the first of the range")),
    }
}

pub(super) fn numbered(field: &str, number: i32) -> Result<(), Problem> {
    if (1..=65535).contains(&number) {
        return Ok(());
    }
    Err(Problem::new(field, format!("is {number}; use 1 to 65535")))
}

/// IANA service name (RFC 6335): at most 15 lower-case letters, digits and dashes, with a letter in it.
pub(super) fn port_name(field: &str, name: &str) -> Result<(), Problem> {
    let well_formed = metadata::is_dns_label(name)
        && name.len() <= 15
        && !name.contains("--")
        && name.bytes().any(|b| b.is_ascii_lowercase());
    if well_formed {
        return Ok(());
    }
    let problem = format!(
        "\"{name}\" is no port name; use at most 15 lower-case letters, digits or single '-', a letter among them"
    );
    Err(Problem::new(field, problem))
}

fn peers(field: &str, peers: Option<&[NetworkPolicyPeer]>) -> Result<(), Problem> {
    for (n, entry) in peers.unwrap_or_default().iter().enumerate() {
        peer(&format!("{field}[{n}]"), entry)?;
    }
    Ok(())
}

fn peer(field: &str, entry: &NetworkPolicyPeer) -> Result<(), Problem> {
    selector::check_any(&format!("{field}.podSelector"), entry.pod_selector.as_ref())?;
    selector::check_any(&format!("{field}.namespaceSelector"), entry.namespace_selector.as_ref())?;
    let has_selector = entry.pod_selector.is_some() || entry.namespace_selector.is_some();
    match (&entry.ip_block, has_selector) {
        (None, false) => Err(Problem::new(field, "names nobody; set podSelector, namespaceSelector or ipBlock")),
        (Some(_), true) => Err(Problem::new(field, "has ipBlock beside a selector; make them two entries")),
        (Some(block), false) => ip_block(&format!("{field}.ipBlock"), block),
        (None, true) => Ok(()),
    }
}

/// Host bits are taken as an API server takes them: allowed, and ignored. Every `except` lies strictly inside `cidr`.
fn ip_block(field: &str, block: &IPBlock) -> Result<(), Problem> {
    let cidr = range(&format!("{field}.cidr"), &block.cidr)?;
    for (n, text) in block.except.iter().flatten().enumerate() {
        let field = format!("{field}.except[{n}]");
        let except = range(&field, text)?;
        if !cidr.contains(&except) || cidr == except {
            return Err(Problem::new(field, format!("{text} does not lie strictly inside {}", block.cidr)));
        }
    }
    Ok(())
}

pub(super) fn range(field: &str, text: &str) -> Result<IpNet, Problem> {
    let parsed: Result<IpNet, _> = text.parse();
    parsed
        .map(|net| net.trunc())
        .map_err(|_| Problem::new(field, format!("\"{text}\" is no range; write address/length")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Object;
    use crate::validate::admit;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Result<Value, String> {
        let mut object = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        admit(&crate::NetworkPolicy::kind(), &mut object, None).map_err(|invalid| invalid.field)?;
        Ok(object["spec"].take())
    }

    fn ingress_port(port: Value) -> Result<Value, String> {
        Ok(policy(json!({"podSelector": {}, "ingress": [{"ports": [port]}]}))?["ingress"][0]["ports"][0].take())
    }

    fn egress_peer(peer: Value) -> Option<String> {
        policy(json!({"podSelector": {}, "egress": [{"to": [peer]}]})).err()
    }

    #[test]
    fn types_and_protocols_are_defaulted_as_an_api_server_does() {
        let types = |spec: Value| policy(spec).unwrap()["policyTypes"].take();
        assert_eq!(policy(Value::Null), Ok(json!({"podSelector": {}, "policyTypes": ["Ingress"]})));
        assert_eq!(types(json!({"podSelector": {}})), json!(["Ingress"]));
        assert_eq!(types(json!({"podSelector": {}, "egress": []})), json!(["Ingress"]));
        assert_eq!(types(json!({"podSelector": {}, "egress": [{}]})), json!(["Ingress", "Egress"]));
        assert_eq!(types(json!({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]})), json!(["Egress"]));
        assert_eq!(ingress_port(json!({"port": 53})).unwrap()["protocol"], "TCP");
        assert_eq!(ingress_port(json!({"port": 53, "protocol": "UDP"})).unwrap()["protocol"], "UDP");
    }

    #[test]
    fn ports_and_their_ranges() {
        for good in [json!({}), json!({"port": 1}), json!({"port": "http"}), json!({"port": 80, "endPort": 80})] {
            assert!(ingress_port(good.clone()).is_ok(), "{good}");
        }
        let at =
            |port: Value| ingress_port(port).unwrap_err().trim_start_matches("spec.ingress[0].ports[0].").to_owned();
        assert_eq!(at(json!({"port": 0})), "port");
        assert_eq!(at(json!({"port": 65536})), "port");
        assert_eq!(at(json!({"port": "8080"})), "port");
        assert_eq!(at(json!({"port": "this-is-too-long"})), "port");
        assert_eq!(at(json!({"port": 80, "endPort": 79})), "endPort");
        assert_eq!(at(json!({"port": 80, "endPort": 65536})), "endPort");
        assert_eq!(at(json!({"port": "http", "endPort": 90})), "endPort");
        assert_eq!(at(json!({"endPort": 90})), "endPort");
        assert_eq!(at(json!({"port": 80, "protocol": "ICMP"})), "protocol");
        assert_eq!(at(json!({"port": 80, "protocol": "tcp"})), "protocol");
    }

    #[test]
    fn peers_are_selectors_or_a_range() {
        let block = |cidr: &str, except: &[&str]| egress_peer(json!({"ipBlock": {"cidr": cidr, "except": except}}));
        assert_eq!(egress_peer(json!({"podSelector": {}, "namespaceSelector": {}})), None);
        assert_eq!(egress_peer(json!({})).as_deref(), Some("spec.egress[0].to[0]"));
        assert_eq!(
            egress_peer(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})).as_deref(),
            Some("spec.egress[0].to[0]")
        );
        assert_eq!(block("0.0.0.0/0", &["10.0.0.0/8", "192.168.0.0/16"]), None);
        assert_eq!(block("fd00::/8", &["fd42::/48"]), None);
        for (cidr, except) in [("10.0.0.0/8", "11.0.0.0/16"), ("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.0/8", "fd00::/64")]
        {
            assert_eq!(block(cidr, &[except]).as_deref(), Some("spec.egress[0].to[0].ipBlock.except[0]"));
        }
        assert_eq!(block("10.0.0.0", &[]).as_deref(), Some("spec.egress[0].to[0].ipBlock.cidr"));
    }

    #[test]
    fn types_and_selectors_are_checked() {
        let field = |spec: Value| policy(spec).unwrap_err();
        assert_eq!(field(json!({"podSelector": {}, "policyTypes": ["ingress"]})), "spec.policyTypes[0]");
        assert_eq!(
            field(json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}})),
            "spec.podSelector.matchExpressions[0].operator"
        );
        assert_eq!(
            field(json!({"podSelector": {}, "ingress": [{"ports": [{"port": true}]}]})),
            "spec.ingress[0].ports[0].port"
        );
    }

    proptest! {
        #[test]
        fn what_was_admitted_is_admitted_again_unchanged(
            egress: bool, port in 1..=65535i32, end in prop::option::of(1..=65535i32), types in prop::sample::subsequence(vec!["Ingress", "Egress"], 0..=2),
        ) {
            let port = match end { Some(end) => json!({"port": port, "endPort": end}), None => json!({"port": port}) };
            let mut spec = json!({"podSelector": {}, "policyTypes": types, "ingress": [{"ports": [port]}]});
            if egress { spec["egress"] = json!([{}]); }
            if let Ok(once) = policy(spec) {
                prop_assert_eq!(policy(once.clone()), Ok(once));
            }
        }
    }
}
