//! One rule of the model into rules of the kernel.

use super::sets::{Content, Layout, SetSpec, short};
use crate::model::{
    Action, Direction, Peer, Peers, PodSelector, Policy, Port, PortNumber, Ports, Protocol, Ranges, Rule,
};
use crate::ruleset::{End, Family, Field, Match};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::ops::RangeInclusive;

/// A rule of a list, before it is known where a Pass leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draft {
    /// What it does.
    pub(super) action: Action,
    /// When.
    pub(super) matches: Vec<Match>,
    /// The same as text, to find rules that say it twice.
    pub(super) condition: String,
    /// The sets that it looks into.
    pub(super) sets: Vec<SetSpec>,
    /// Whose rule it is.
    pub(super) comment: String,
}

/// All rules of a policy for a direction, as far as packets of these families can meet them.
pub(super) fn drafts(policy: &Policy, direction: Direction, form: Form) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for (i, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
        let comment = short(format!("{} {direction}[{i}]", policy.key));
        for condition in conditions(rule, direction, &policy.subject, form) {
            let Condition { matches, sets, .. } = condition;
            let condition = matches.iter().map(Match::to_string).collect::<Vec<_>>().join(" ");
            drafts.push(Draft { action: rule.action, matches, condition, sets, comment: comment.clone() });
        }
    }
    drafts
}

/// A conjunction of matches.
#[derive(Clone, Debug, Default)]
struct Condition {
    /// The family that it demands.
    family: Option<Family>,
    matches: Vec<Match>,
    sets: Vec<SetSpec>,
}

impl Condition {
    fn lookup(mut self, spec: SetSpec, source: bool) -> Self {
        self.family = Some(spec.family());
        self.matches.push(Match::Set { key: spec.key(source), set: spec.slot().set.clone(), negated: false });
        self.sets.push(spec);
        self
    }
}

/// What the rules of all policies depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Whether there are IPv4 packets to be judged.
    pub(super) v4: bool,
    /// IPv6.
    pub(super) v6: bool,
    /// What the sets are that they look into.
    pub(super) layout: Layout,
}

impl Form {
    fn families(self) -> impl Iterator<Item = Family> {
        [(Family::V4, self.v4), (Family::V6, self.v6)].into_iter().filter_map(|(family, is)| is.then_some(family))
    }
}

/// The rule as a disjunction.
fn conditions(rule: &Rule, direction: Direction, subject: &PodSelector, form: Form) -> Vec<Condition> {
    let source = direction == Direction::Ingress;
    let peers = peer_conditions(&rule.peers, source, form);
    let Ports::Of(ports) = &rule.ports else { return peers };
    let mut all = Vec::new();
    for port in numbered(ports).into_iter().map(shared) {
        for peer in &peers {
            let mut condition = peer.clone();
            condition.matches.splice(0..0, port.matches.iter().cloned());
            condition.sets.extend(port.sets.iter().cloned());
            all.push(condition);
        }
    }
    for (protocol, name) in named(ports) {
        let spec = |selector: &PodSelector, family| {
            SetSpec::new(Content::Ports(selector.clone(), protocol, name.to_owned()), family, form.layout)
        };
        match (direction, &rule.peers) {
            // The port is resolved at the pod that the packet arrives at, which is one of the policy's subjects.
            (Direction::Ingress, _) => all.extend(peers.iter().flat_map(|peer| {
                let families = form.families().filter(|f| peer.family.is_none_or(|own| own == *f));
                families.map(|family| peer.clone().lookup(spec(subject, family), false)).collect::<Vec<_>>()
            })),
            (Direction::Egress, Peers::Any) => {
                let everything = PodSelector::everything();
                all.extend(form.families().map(|family| Condition::default().lookup(spec(&everything, family), false)));
            }
            // The set of ports holds addresses of the peer's pods only, so it says all. Blocks and nodes have no named ports.
            (Direction::Egress, Peers::Of(of)) => {
                for peer in of {
                    if let Peer::Pods(selector) = peer {
                        let of =
                            form.families().map(|family| Condition::default().lookup(spec(selector, family), false));
                        all.extend(of);
                    }
                }
            }
        }
    }
    all
}

fn peer_conditions(peers: &Peers, source: bool, form: Form) -> Vec<Condition> {
    let Peers::Of(peers) = peers else { return vec![Condition::default()] };
    let mut all = Vec::new();
    let mut blocks = Vec::new();
    for peer in peers {
        match peer {
            Peer::Block(ranges) => blocks.push(ranges),
            Peer::Pods(selector) => all.extend(addresses(&Content::Pods(selector.clone()), source, form)),
            Peer::Nodes(selector) => all.extend(addresses(&Content::Nodes(selector.clone()), source, form)),
            Peer::SentByNodes(selector) => all.extend(addresses(&Content::SentByNodes(selector.clone()), source, form)),
        }
    }
    let blocks = Ranges::union(blocks);
    all.extend(form.families().filter_map(|family| block_condition(&blocks, family, source)));
    all
}

/// One of these addresses.
fn addresses(content: &Content, source: bool, form: Form) -> impl Iterator<Item = Condition> {
    let spec = move |family| SetSpec::new(content.clone(), family, form.layout);
    form.families().map(move |family| Condition::default().lookup(spec(family), source))
}

/// Addresses of one family: a set only if one network cannot say it.
fn block_condition(ranges: &Ranges, family: Family, source: bool) -> Option<Condition> {
    let networks: Vec<IpNet> = match family {
        Family::V4 => ranges.v4().flat_map(|(a, b)| ipnet::Ipv4Subnets::new(a, b, 0)).map(IpNet::V4).take(2).collect(),
        Family::V6 => ranges.v6().flat_map(|(a, b)| ipnet::Ipv6Subnets::new(a, b, 0)).map(IpNet::V6).take(2).collect(),
    };
    let side = if source { End::Source } else { End::Destination };
    let matched = match networks.as_slice() {
        [] => return None,
        [net] if *net == IpNet::V4(Ipv4Net::default()) || *net == IpNet::V6(Ipv6Net::default()) => {
            Match::Family(family)
        }
        [net] => Match::Address { side, net: *net, negated: false },
        _ => {
            let spec = SetSpec::new(Content::Block(ranges.of_family(family == Family::V4)), family, Layout::Own);
            return Some(Condition::default().lookup(spec, source));
        }
    };
    Some(Condition { family: Some(family), matches: vec![matched], sets: Vec::new() })
}

/// The ports that have numbers, one match per protocol.
fn numbered(ports: &[Port]) -> Vec<Match> {
    let mut all = Vec::new();
    for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::ICMP, Protocol::ICMPV6] {
        let of_protocol = || ports.iter().filter(move |p| p.protocol == protocol);
        if of_protocol().any(|p| p.number == PortNumber::Any) {
            all.push(Match::Protocol(protocol.0));
            continue;
        }
        let ranges = of_protocol().filter_map(|p| match p.number {
            PortNumber::Range(first, last) => Some((first, last)),
            _ => None,
        });
        let ranges = join(ranges.collect());
        if !ranges.is_empty() {
            all.push(Match::Ports { protocol: protocol.0, side: End::Destination, ranges });
        }
    }
    all
}

/// Ranges of ports in a rule, beyond which they are a set with a name: else each of a rule's peers would bring all of them once more.
const MANY_PORTS: usize = 64;

/// The same ports, as a set that rules share if there are many.
fn shared(ports: Match) -> Condition {
    match ports {
        Match::Ports { protocol, side: End::Destination, ranges } if ranges.len() > MANY_PORTS => {
            let spec = SetSpec::numbers(ranges);
            let one_of = Match::Set { key: vec![Field::DestinationPort], set: spec.slot().set.clone(), negated: false };
            Condition { family: None, matches: vec![Match::Protocol(protocol), one_of], sets: vec![spec] }
        }
        other => Condition { matches: vec![other], ..Condition::default() },
    }
}

/// The ports that have names.
fn named(ports: &[Port]) -> impl Iterator<Item = (Protocol, &str)> {
    ports.iter().filter_map(|p| match &p.number {
        PortNumber::Named(name) => Some((p.protocol, name.as_str())),
        _ => None,
    })
}

/// Disjoint ranges in ascending order: the kernel refuses overlapping ones.
fn join(mut ranges: Vec<(u16, u16)>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined.into_iter().map(|(first, last)| first..=last).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::network_policy;
    use serde_json::json;

    /// The rules as nft would write their matches, set names cut to their kind.
    fn shown(direction: Direction, rule: serde_json::Value) -> Vec<String> {
        let field = if direction == Direction::Ingress { "ingress" } else { "egress" };
        let raw = json!({"metadata": {"namespace": "n", "name": "p"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], field: [rule]}});
        let policy = network_policy(&serde_json::from_value(raw).unwrap());
        let text = |draft: &Draft| {
            let words = draft.condition.split(' ').map(|w| w.split('_').next().unwrap().to_owned()).collect::<Vec<_>>();
            words.join(" ")
        };
        drafts(&policy, direction, Form { v4: true, v6: true, layout: Layout::Own }).iter().map(text).collect()
    }

    #[test]
    fn ranges_of_ports_are_joined_because_the_kernel_refuses_overlaps() {
        let ports = json!([{"port": 80, "endPort": 90}, {"port": 82}, {"port": 91}, {"port": 443}, {"port": 53, "protocol": "UDP"}]);
        assert_eq!(shown(Direction::Ingress, json!({"ports": ports})), ["tcp dport { 80-91, 443 }", "udp dport 53"]);
        let any = json!([{"port": 80}, {"protocol": "TCP"}]);
        assert_eq!(shown(Direction::Ingress, json!({"ports": any})), ["meta l4proto tcp"]);
    }

    #[test]
    fn a_block_that_is_one_network_needs_no_set() {
        let block = |cidr: &str, except: &[&str]| {
            shown(Direction::Egress, json!({"to": [{"ipBlock": {"cidr": cidr, "except": except}}]}))
        };
        assert_eq!(block("0.0.0.0/0", &[]), ["meta nfproto ipv4"]);
        assert_eq!(block("::/0", &[]), ["meta nfproto ipv6"]);
        assert_eq!(block("10.0.0.0/8", &[]), ["ip daddr 10.0.0.0/8"]);
        assert_eq!(block("fd00::/8", &["fd80::/9"]), ["ip6 daddr fd00::/9"]);
        assert_eq!(block("10.0.0.0/8", &["10.1.0.0/16"]), ["ip daddr @cidr4"]);
        assert_eq!(block("10.0.0.0/8", &["10.0.0.0/8"]), Vec::<String>::new());
    }

    #[test]
    fn many_ports_are_one_set_that_all_peers_share() {
        let ports: Vec<_> =
            (0..100).map(|n| json!({"port": 1000 + 2 * n})).chain([json!({"port": 9, "protocol": "UDP"})]).collect();
        let peers = json!([{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]);
        assert_eq!(
            shown(Direction::Ingress, json!({"from": peers, "ports": ports})),
            [
                "meta l4proto tcp th dport @ports ip saddr @sel4",
                "meta l4proto tcp th dport @ports ip6 saddr @sel6",
                "meta l4proto tcp th dport @ports ip saddr 10.0.0.0/8",
                "udp dport 9 ip saddr @sel4",
                "udp dport 9 ip6 saddr @sel6",
                "udp dport 9 ip saddr 10.0.0.0/8",
            ]
        );
    }

    #[test]
    fn named_ports_are_looked_up_at_the_destination() {
        let ports = json!([{"port": "web"}]);
        let peers = json!([{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]);
        assert_eq!(
            shown(Direction::Ingress, json!({"from": peers, "ports": ports})),
            [
                "ip saddr @sel4 ip daddr . meta l4proto . th dport @np4",
                "ip6 saddr @sel6 ip6 daddr . meta l4proto . th dport @np6",
                "ip saddr 10.0.0.0/8 ip daddr . meta l4proto . th dport @np4",
            ]
        );
        let both = ["ip daddr . meta l4proto . th dport @np4", "ip6 daddr . meta l4proto . th dport @np6"];
        assert_eq!(shown(Direction::Egress, json!({"to": peers, "ports": ports})), both);
        assert_eq!(shown(Direction::Egress, json!({"ports": ports})), both);
    }

    #[test]
    fn a_rule_without_peers_and_ports_has_no_condition_and_one_for_nobody_is_no_rule() {
        assert_eq!(shown(Direction::Ingress, json!({})), [""]);
        assert_eq!(shown(Direction::Ingress, json!({"from": [{}]})), Vec::<String>::new());
    }
}
