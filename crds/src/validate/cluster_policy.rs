//! Rules of ClusterNetworkPolicy (the definition that network-policy-api v0.2 installs). It defaults nothing.

use super::policy::{numbered, port_name, range};
use super::{Problem, selector};
use crate::ClusterNetworkPolicy;
use crate::cluster_network_policy::{EgressPeer, NamespacedPod, PortMatch, ProtocolMatch, Transport};

/// Most rules of a direction, peers and protocols of a rule, networks of a peer.
const MOST: usize = 25;

pub(super) fn check(policy: &ClusterNetworkPolicy) -> Result<(), Problem> {
    let spec = &policy.spec;
    one_of("spec.tier", &spec.tier, &["Admin", "Baseline"])?;
    if !(0..=1000).contains(&spec.priority) {
        return Err(Problem::new(
            "spec.priority",
            format!("is {}; use 0 to 1000, lower is judged first", spec.priority),
        ));
    }
    let subject = [("namespaces", spec.subject.namespaces.is_some()), ("pods", spec.subject.pods.is_some())];
    exactly_one("spec.subject", &subject)?;
    selector::check_any("spec.subject.namespaces", spec.subject.namespaces.as_ref())?;
    pods("spec.subject.pods", spec.subject.pods.as_ref())?;
    at_most("spec.ingress", spec.ingress.len())?;
    for (n, rule) in spec.ingress.iter().enumerate() {
        let field = format!("spec.ingress[{n}]");
        head(&field, rule.name.as_deref(), &rule.action)?;
        peers(&format!("{field}.from"), rule.from.iter().cloned().map(EgressPeer::from), &["namespaces", "pods"])?;
        protocols(&format!("{field}.protocols"), &rule.protocols)?;
    }
    at_most("spec.egress", spec.egress.len())?;
    for (n, rule) in spec.egress.iter().enumerate() {
        let field = format!("spec.egress[{n}]");
        let known = ["namespaces", "pods", "nodes", "networks", "domainNames"];
        head(&field, rule.name.as_deref(), &rule.action)?;
        peers(&format!("{field}.to"), rule.to.iter().cloned(), &known)?;
        protocols(&format!("{field}.protocols"), &rule.protocols)?;
        outside(&field, &rule.action, &rule.to, &rule.protocols)?;
    }
    Ok(())
}

fn head(field: &str, name: Option<&str>, action: &str) -> Result<(), Problem> {
    let length = name.map_or(0, |name| name.chars().count());
    if length > 100 {
        let problem = format!("has {length} characters, must have at most 100; shorten it");
        return Err(Problem::new(format!("{field}.name"), problem));
    }
    one_of(&format!("{field}.action"), action, &["Accept", "Deny", "Pass"])
}

fn peers(field: &str, peers: impl ExactSizeIterator<Item = EgressPeer>, known: &[&str]) -> Result<(), Problem> {
    if peers.len() == 0 {
        return Err(Problem::new(field, "is empty; name at least one peer, {namespaces: {}} for all pods"));
    }
    at_most(field, peers.len())?;
    for (n, peer) in peers.enumerate() {
        let field = format!("{field}[{n}]");
        let set = [
            ("namespaces", peer.namespaces.is_some()),
            ("pods", peer.pods.is_some()),
            ("nodes", peer.nodes.is_some()),
            ("networks", peer.networks.is_some()),
            ("domainNames", peer.domain_names.is_some()),
        ];
        exactly_one(&field, &set[..known.len()])?;
        selector::check_any(&format!("{field}.namespaces"), peer.namespaces.as_ref())?;
        pods(&format!("{field}.pods"), peer.pods.as_ref())?;
        selector::check_any(&format!("{field}.nodes"), peer.nodes.as_ref())?;
        for (list, texts) in [("networks", &peer.networks), ("domainNames", &peer.domain_names)] {
            let Some(texts) = texts else { continue };
            if texts.is_empty() {
                return Err(Problem::new(
                    format!("{field}.{list}"),
                    "is empty; name at least one, or leave the peer out",
                ));
            }
            at_most(&format!("{field}.{list}"), texts.len())?;
            let twice = (1..texts.len()).find(|n| texts[..*n].contains(&texts[*n]));
            if let Some(n) = twice {
                let problem = format!("{} stands there twice; leave this one out", texts[n]);
                return Err(Problem::new(format!("{field}.{list}[{n}]"), problem));
            }
        }
        for (n, text) in peer.networks.iter().flatten().enumerate() {
            range(&format!("{field}.networks[{n}]"), text)?;
        }
    }
    Ok(())
}

/// What lies outside the pods has no named ports, and a domain's name can only be accepted.
fn outside(field: &str, action: &str, to: &[EgressPeer], protocols: &[ProtocolMatch]) -> Result<(), Problem> {
    let outside = |peer: &EgressPeer| peer.networks.is_some() || peer.nodes.is_some() || peer.domain_names.is_some();
    let named = protocols.iter().position(|protocol| protocol.destination_named_port.is_some());
    if let (Some(n), true) = (named, to.iter().any(outside)) {
        let problem = "names a port, which only pods have; make the networks, nodes or domainNames a rule of their own";
        return Err(Problem::new(format!("{field}.protocols[{n}].destinationNamedPort"), problem));
    }
    match to.iter().position(|peer| peer.domain_names.is_some()) {
        Some(n) if action != "Accept" => {
            let problem =
                format!("can be accepted only, not with action {action}; accept these and deny the rest after");
            Err(Problem::new(format!("{field}.to[{n}].domainNames"), problem))
        }
        _ => Ok(()),
    }
}

fn pods(field: &str, pods: Option<&NamespacedPod>) -> Result<(), Problem> {
    let Some(pods) = pods else { return Ok(()) };
    selector::check(&format!("{field}.namespaceSelector"), &pods.namespace_selector)?;
    selector::check(&format!("{field}.podSelector"), &pods.pod_selector)
}

fn protocols(field: &str, protocols: &[ProtocolMatch]) -> Result<(), Problem> {
    at_most(field, protocols.len())?;
    for (n, protocol) in protocols.iter().enumerate() {
        let field = format!("{field}[{n}]");
        let named = protocol.destination_named_port.as_deref();
        let transports = [("tcp", &protocol.tcp), ("udp", &protocol.udp), ("sctp", &protocol.sctp)];
        let set: Vec<_> = transports.iter().map(|(name, transport)| (*name, transport.is_some())).collect();
        exactly_one(&field, &[set, vec![("destinationNamedPort", named.is_some())]].concat())?;
        for (name, transport) in transports {
            ports(&format!("{field}.{name}"), transport.as_ref())?;
        }
        if let Some(name) = named {
            port_name(&format!("{field}.destinationNamedPort"), name)?;
        }
    }
    Ok(())
}

fn ports(field: &str, transport: Option<&Transport>) -> Result<(), Problem> {
    let Some(transport) = transport else { return Ok(()) };
    let field = format!("{field}.destinationPort");
    match &transport.destination_port {
        None => Err(Problem::new(field, "is missing; give a number, or the range 1 to 65535")),
        Some(PortMatch { number: Some(number), range: None }) => numbered(&format!("{field}.number"), *number),
        Some(PortMatch { number: None, range: Some(range) }) => {
            numbered(&format!("{field}.range.start"), range.start)?;
            numbered(&format!("{field}.range.end"), range.end)?;
            if range.start < range.end {
                return Ok(());
            }
            let problem = format!("is {}, not above start {}; use number for a single port", range.end, range.start);
            Err(Problem::new(format!("{field}.range.end"), problem))
        }
        Some(_) => Err(Problem::new(field, "needs exactly one of number and range")),
    }
}

fn one_of(field: &str, text: &str, known: &[&str]) -> Result<(), Problem> {
    if known.contains(&text) {
        return Ok(());
    }
    Err(Problem::new(field, format!("\"{text}\" is none of {}", known.join(", "))))
}

fn exactly_one(field: &str, set: &[(&str, bool)]) -> Result<(), Problem> {
    if set.iter().filter(|(_, is)| *is).count() == 1 {
        return Ok(());
    }
    let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
    Err(Problem::new(field, format!("needs exactly one of {}", names.join(", "))))
}

fn at_most(field: &str, found: usize) -> Result<(), Problem> {
    if found <= MOST {
        return Ok(());
    }
    Err(Problem::new(field, format!("has {found} entries, must have at most {MOST}; split it")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Object;
    use crate::validate::admit;
    use serde_json::{Value, json};

    /// A policy that is admitted.
    fn good() -> Value {
        let pods = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}});
        json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "p"},
            "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
                "ingress": [{"name": "a", "action": "Pass", "from": [{"pods": pods}, {"namespaces": {}}],
                    "protocols": [{"destinationNamedPort": "web"}]}],
                "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}, {"nodes": {}}],
                    "protocols": [{"tcp": {"destinationPort": {"number": 80}}},
                        {"udp": {"destinationPort": {"range": {"start": 1, "end": 2}}}}]}]}})
    }

    fn refused(path: &str, value: Value) -> String {
        let mut object = good();
        let (parent, field) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[field] = value;
        let invalid = admit(&crate::ClusterNetworkPolicy::kind(), &mut object, None).unwrap_err();
        format!("{}: {}", invalid.field, invalid.problem)
    }

    #[test]
    fn a_policy_with_everything_is_admitted_unchanged() {
        let mut object = good();
        admit(&crate::ClusterNetworkPolicy::kind(), &mut object, None).unwrap();
        assert_eq!(object, good());
    }

    #[test]
    fn what_the_definition_refuses_is_refused_with_a_way_out() {
        let many = |item: Value| Value::Array(vec![item; 26]);
        let peer = json!({"namespaces": {}});
        let cases = [
            ("/spec/tier", json!("Top"), "spec.tier: \"Top\" is none of Admin, Baseline"),
            ("/spec/priority", json!(1001), "spec.priority: is 1001; use 0 to 1000"),
            ("/spec/subject", json!({}), "spec.subject: needs exactly one of namespaces, pods"),
            ("/spec/ingress", many(json!({"action": "Pass", "from": [peer]})), "spec.ingress: has 26 entries"),
            (
                "/spec/ingress/0/action",
                json!("Allow"),
                "spec.ingress[0].action: \"Allow\" is none of Accept, Deny, Pass",
            ),
            ("/spec/ingress/0/name", json!("x".repeat(101)), "spec.ingress[0].name: has 101 characters"),
            ("/spec/ingress/0/from", json!([]), "spec.ingress[0].from: is empty"),
            ("/spec/ingress/0/from", json!([{}]), "spec.ingress[0].from[0]: needs exactly one of namespaces, pods"),
            ("/spec/egress/0/to", many(peer.clone()), "spec.egress[0].to: has 26 entries"),
            (
                "/spec/egress/0/to",
                json!([{"nodes": {}, "networks": ["::/0"]}]),
                "spec.egress[0].to[0]: needs exactly one",
            ),
            (
                "/spec/egress/0/to",
                json!([{"networks": ["10/8"]}]),
                "spec.egress[0].to[0].networks[0]: \"10/8\" is no range",
            ),
            (
                "/spec/egress/0/to",
                json!([{"networks": ["::/0", "::/0"]}]),
                "spec.egress[0].to[0].networks[1]: ::/0 stands there twice",
            ),
            ("/spec/egress/0/to", json!([{"networks": []}]), "spec.egress[0].to[0].networks: is empty"),
            (
                "/spec/egress/0/to",
                json!([{"domainNames": ["a.b"]}]),
                "spec.egress[0].to[0].domainNames: can be accepted only",
            ),
            (
                "/spec/egress/0/protocols",
                json!([{"destinationNamedPort": "w"}]),
                "spec.egress[0].protocols[0].destinationNamedPort: names a port, which only pods have",
            ),
            (
                "/spec/egress/0/protocols",
                json!([{}]),
                "spec.egress[0].protocols[0]: needs exactly one of tcp, udp, sctp",
            ),
            (
                "/spec/egress/0/protocols",
                json!([{"tcp": {}}]),
                "spec.egress[0].protocols[0].tcp.destinationPort: is missing",
            ),
            (
                "/spec/egress/0/protocols/0/tcp/destinationPort",
                json!({"number": 0}),
                "spec.egress[0].protocols[0].tcp.destinationPort.number: is 0; use 1 to 65535",
            ),
            (
                "/spec/egress/0/protocols/0/tcp/destinationPort",
                json!({"range": {"start": 9, "end": 9}}),
                "spec.egress[0].protocols[0].tcp.destinationPort.range.end: is 9, not above start 9",
            ),
            (
                "/spec/subject/namespaces",
                json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}),
                "spec.subject.namespaces.matchExpressions[0].operator: \"Like\" is no operator",
            ),
        ];
        for (path, value, expected) in cases {
            let found = refused(path, value);
            assert!(found.starts_with(expected), "{path}: {found}");
        }
    }
}
