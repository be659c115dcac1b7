//! Ports of this node that lead to workloads (hostPort): destination NAT by maps, before policy judges and without any change of the source.
//!
//! In flows every new connection to an address of this node, from outside, from workloads (prerouting) and from the node itself (output).
//! What a map knows is sent on to the workload's own address and port; there the forward chain judges it as any other connection to that
//! workload, by its true source. Answers are put right by the kernel's connection.

use super::{HAIRPIN_V4, HAIRPIN_V6, HOSTPORT_AT_V4, HOSTPORT_AT_V6, HOSTPORT_V4, HOSTPORT_V6, chain_name, name};
use crate::ruleset::{
    Action, Base, BaseKind, Chain, End, Family, Field, Hook, KeyType, Match, Name, Rule, Set, Verdict,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// After kube-proxy's (-100): where a NodePort and a port of ours are the same, the Service has it.
const DESTINATION_NAT: i32 = -90;

const HOSTPORT: &str = "hostport";

pub(super) fn chains() -> [(Name, Chain); 3] {
    let nat = |hook| Some(Base { kind: BaseKind::Nat, hook, priority: DESTINATION_NAT });
    let to_this_host = || Rule::new(vec![Match::ToThisHost], Action::Verdict(Verdict::Jump(chain_name(HOSTPORT))));
    [
        (chain_name("hostport_in"), Chain { base: nat(Hook::Prerouting), rules: vec![to_this_host()] }),
        (chain_name("hostport_out"), Chain { base: nat(Hook::Output), rules: from_this_host(to_this_host()) }),
        (chain_name(HOSTPORT), Chain { base: None, rules: translations() }),
    ]
}

/// A port of a loopback address is for the node itself alone, and only where it asks in another address's name, as Kubernetes has it: what is
/// sent in the name of a loopback address leaves by no interface.
fn from_this_host(others: Rule) -> Vec<Rule> {
    let routable = |net: IpNet, field, family, map| {
        let to = Match::Address { side: End::Destination, net, negated: false };
        let from = Match::Address { side: End::Source, net, negated: true };
        Rule::new(vec![to, from], Action::Translate { key: at(field), map: name(map), family })
    };
    let [v4, v6] = loopback();
    vec![
        routable(v4, Field::DestinationV4, Family::V4, HOSTPORT_AT_V4),
        routable(v6, Field::DestinationV6, Family::V6, HOSTPORT_AT_V6),
        others,
    ]
}

fn at(address: Field) -> Vec<Field> {
    vec![address, Field::Protocol, Field::DestinationPort]
}

/// An address that was asked for goes before all addresses.
fn translations() -> Vec<Rule> {
    let translate = |family, fields: Vec<Field>, map| {
        Rule::new(vec![Match::Family(family)], Action::Translate { key: fields, map: name(map), family })
    };
    let port = || vec![Field::Protocol, Field::DestinationPort];
    let mut rules: Vec<Rule> = on_this_host_alone().into_iter().map(spared).collect();
    rules.extend([
        translate(Family::V4, at(Field::DestinationV4), HOSTPORT_AT_V4),
        translate(Family::V4, port(), HOSTPORT_V4),
        translate(Family::V6, at(Field::DestinationV6), HOSTPORT_AT_V6),
        translate(Family::V6, port(), HOSTPORT_V6),
    ]);
    rules
}

/// Who has such an address cannot be answered by another machine: what is sent from 127.0.0.1 leaves no interface unless `route_localnet`
/// opens the whole of 127.0.0.0/8 to it, and a link-local address means another machine on each link.
fn on_this_host_alone() -> [IpNet; 3] {
    let [v4, v6] = loopback();
    [v4, v6, IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10))]
}

fn loopback() -> [IpNet; 2] {
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ]
}

fn spared(net: IpNet) -> Rule {
    let to = Match::Address { side: End::Destination, net, negated: false };
    Rule::new(vec![to], Action::Verdict(Verdict::Return))
}

pub(super) fn sets() -> [(Name, Set); 6] {
    use KeyType::{Port, Protocol, V4, V6};
    let all = "ports of this node that lead to workloads";
    let one = "ports of one address of this node that lead to workloads";
    let hairpin = "workloads that ports of this node lead to";
    [
        (name(HOSTPORT_V4), Set::of([Protocol, Port]).map_to([V4, Port]).comment(all)),
        (name(HOSTPORT_V6), Set::of([Protocol, Port]).map_to([V6, Port]).comment(all)),
        (name(HOSTPORT_AT_V4), Set::of([V4, Protocol, Port]).map_to([V4, Port]).comment(one)),
        (name(HOSTPORT_AT_V6), Set::of([V6, Protocol, Port]).map_to([V6, Port]).comment(one)),
        (name(HAIRPIN_V4), Set::of([V4, V4]).comment(hairpin)),
        (name(HAIRPIN_V6), Set::of([V6, V6]).comment(hairpin)),
    ]
}

/// A workload that reaches itself by a port of its node would be answered by its own address, which it would not take for the other end.
pub(super) fn hairpin(family: Family) -> Rule {
    let (key, set) = match family {
        Family::V4 => (vec![Field::SourceV4, Field::DestinationV4], HAIRPIN_V4),
        Family::V6 => (vec![Field::SourceV6, Field::DestinationV6], HAIRPIN_V6),
    };
    Rule::new(vec![Match::Set { key, set: name(set), negated: false }], Action::Masquerade)
        .comment("hostPort of its own")
}
