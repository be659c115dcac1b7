//! Base chains and the sets they look into. The order of the rules is the design; each step says why it stands where it does.

use super::{
    CUT_V4, CUT_V6, FROM_POD, HOST_EGRESS, HOST_FAILSAFE_IN, HOST_FAILSAFE_OUT, HOST_INGRESS, HOST_THROUGH, KNOWN,
    LOGGED, NAT_V4, NAT_V6, NODES_V4, NODES_V6, POOLS_V4, POOLS_V6, Reason, SERVICES_V4, SERVICES_V6, SOURCE_V4,
    SOURCE_V6, TO_POD, chain_name, hostport, name,
};
use crate::ruleset::{
    Action, Base, BaseKind, Chain, CtStates, Direction, End, Family, Field, Hook, Interface, KeyType, Match, Name,
    Rule, Ruleset, Set, Verdict,
};
use std::collections::BTreeSet;
use std::time::Duration;
use twill_crds::names;

/// What the skeleton depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP ports of the VXLAN device: the one it has, and those that it had or may have on other nodes for a moment.
    pub vxlan_ports: BTreeSet<u16>,
    /// Whether denied packets are told of: the kernel must have NFLOG.
    pub told: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { vxlan_ports: [names::VXLAN_PORT].into(), told: true }
    }
}

const FILTER: i32 = 0;
/// After kube-proxy's (100): its masquerading of Service traffic decides first.
const SOURCE_NAT: i32 = 110;
/// Longer than a TCP sender keeps retransmitting (15 retries, 924 s with Linux's defaults): until then one late segment of the
/// denied connection would be taken for a new flow, in either direction.
pub const CUT_FOR: Duration = Duration::from_secs(1200);

/// Longer than a rate takes to fill up again, so that forgetting a pair gives it nothing.
const LOGGED_FOR: Duration = Duration::from_secs(60);
/// Pairs of interfaces between which packets are denied at a time; of more nothing is told.
const LOGGED_PAIRS: u32 = 65_535;

const IP_IN_IP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// FIN, SYN, RST, ACK.
const TCP_FLAGS: u8 = 0x17;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
/// MLD query, report and done, router and neighbour solicitation, neighbour advertisement, MLDv2 report: what an IPv6 host says
/// on its link. Router advertisements and redirects are not among them: no workload is its node's router.
const LINK_TYPES: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];

/// The table with no workload and no policy: every workload interface is closed, every tunnel packet dropped.
///
/// Filter chains stand at priority filter, after destination NAT and before source NAT, so policy sees pods' own addresses.
/// At the output hook the skeleton judges only what the host passes on. A chain of HostPolicies, at the postrouting hook, judges only what
/// the host itself sends, and never what goes to a workload: a node always reaches its own pods.
#[must_use]
pub fn skeleton(settings: &Settings) -> Ruleset {
    let chain = |base, rules| Chain { base, rules };
    let filter = |hook| Some(Base { kind: BaseKind::Filter, hook, priority: FILTER });
    let nat = Some(Base { kind: BaseKind::Nat, hook: Hook::Postrouting, priority: SOURCE_NAT });
    let drops = Reason::ALL.map(|reason| reason.drop(settings.told));
    Ruleset {
        chains: [
            (chain_name("forward"), chain(filter(Hook::Forward), forward())),
            (chain_name("input"), chain(filter(Hook::Input), input(settings))),
            (chain_name("output"), chain(filter(Hook::Output), output())),
            (chain_name("passed_on"), chain(None, passed_on())),
            (chain_name("postrouting"), chain(nat, postrouting())),
            (chain_name("workload"), chain(None, workload(settings))),
            (chain_name("workload_input"), chain(None, workload_input())),
            (chain_name("tunnel"), chain(None, tunnel())),
            (chain_name("tunnel_onward"), chain(None, tunnel_onward())),
            (chain_name("cut"), chain(None, cut())),
            (chain_name(HOST_INGRESS), chain(None, Vec::new())),
            (chain_name(HOST_EGRESS), chain(None, Vec::new())),
            (chain_name(HOST_THROUGH), chain(None, Vec::new())),
            (chain_name(HOST_FAILSAFE_IN), chain(None, Vec::new())),
            (chain_name(HOST_FAILSAFE_OUT), chain(None, Vec::new())),
        ]
        .into_iter()
        .chain(hostport::chains())
        .chain(drops)
        .collect(),
        sets: sets(settings),
    }
}

/// The rules that know ports of the VXLAN device, by their chains.
#[must_use]
pub fn tunnel_guards(settings: &Settings) -> [(Name, Vec<Rule>); 2] {
    [(chain_name("input"), input(settings)), (chain_name("workload"), workload(settings))]
}

fn sets(settings: &Settings) -> std::collections::BTreeMap<Name, Set> {
    use KeyType::{Interface, Port, Protocol, V4, V6};
    let logged = Set::of([Interface, Interface]).expiring(LOGGED_FOR).dynamic(LOGGED_PAIRS);
    let logged = (name(LOGGED), logged.comment("of denied packets that are told of"));
    let all = [
        (name(KNOWN), Set::of([Interface]).comment("workload interfaces set up by felix")),
        (name(SOURCE_V4), Set::of([Interface, V4]).comment("what workloads may send from")),
        (name(SOURCE_V6), Set::of([Interface, V6]).comment("what workloads may send from")),
        (name(CUT_V4), Set::of([V4, V4, Protocol, Port, Port]).expiring(CUT_FOR).comment("connections to be cut")),
        (name(CUT_V6), Set::of([V6, V6, Protocol, Port, Port]).expiring(CUT_FOR).comment("connections to be cut")),
        (name(FROM_POD), Set::of([Interface]).verdict_map().comment("egress lists")),
        (name(TO_POD), Set::of([Interface]).verdict_map().comment("ingress lists")),
        (name(POOLS_V4), Set::of([V4]).interval().comment("all pools")),
        (name(POOLS_V6), Set::of([V6]).interval().comment("all pools")),
        (name(NAT_V4), Set::of([V4]).interval().comment("pools with natOutgoing")),
        (name(NAT_V6), Set::of([V6]).interval().comment("pools with natOutgoing")),
        (name(NODES_V4), Set::of([V4]).comment("nodes")),
        (name(NODES_V6), Set::of([V6]).comment("nodes")),
        (name(SERVICES_V4), Set::of([V4]).interval().comment("Services told to routers")),
        (name(SERVICES_V6), Set::of([V6]).interval().comment("Services told to routers")),
    ];
    all.into_iter().chain(hostport::sets()).chain(settings.told.then_some(logged)).collect()
}

fn forward() -> Vec<Rule> {
    vec![
        // Before anything about connections: an interface is closed from its first moment, whatever conntrack remembers of
        // the one that had its address before, and it stays closed while no agent runs.
        unknown(Direction::In),
        unknown(Direction::Out),
        Rule::new(vec![workload_interface(Direction::In)], jump("workload")),
        Rule::new(vec![tunnel_device(Direction::In)], jump("tunnel_onward")),
        // Before established: a cut connection is one.
        Rule::new(vec![], jump("cut")),
        // Before established, too, which the answer to a SYN is.
        clamp_mss(vec![tunnel_device(Direction::Out)]),
        // For workload interfaces only: what else this host forwards is not ours to judge.
        established(Direction::In),
        established(Direction::Out),
        invalid(Direction::In),
        invalid(Direction::Out),
        // Routers send here what is in the ranges. What no Service has was translated by nobody, and would go back to them.
        no_service(Family::V4),
        no_service(Family::V6),
        // NodePorts and the like, where a HostPolicy asks for them.
        Rule::new(vec![Match::Translated], jump(HOST_THROUGH)),
        // Lists return when they allow: a packet from one pod to another of this node passes both.
        dispatch(Field::InInterface, FROM_POD),
        dispatch(Field::OutInterface, TO_POD),
    ]
}

/// To an address of a range of Services that is neither a pod's nor a node's: it is nobody's. Not what comes from a pod, which kube-proxy may have
/// an answer for; where it has none, the packet comes back from the router, and ends here.
fn no_service(family: Family) -> Rule {
    let (field, services, pools, nodes) = match family {
        Family::V4 => (Field::DestinationV4, SERVICES_V4, POOLS_V4, NODES_V4),
        Family::V6 => (Field::DestinationV6, SERVICES_V6, POOLS_V6, NODES_V6),
    };
    let one_of = |set: &str, negated| Match::Set { key: vec![field], set: name(set), negated };
    let other = no_interface(Direction::In, names::WORKLOAD_PREFIX);
    Rule::deny(vec![other, one_of(services, false), one_of(pools, true), one_of(nodes, true)])
        .comment("no such Service")
}

fn input(settings: &Settings) -> Vec<Rule> {
    let udp_port =
        |port| Match::Ports { protocol: UDP, side: End::Destination, ranges: std::iter::once(port..=port).collect() };
    let not_a_node = |family| {
        let (field, set) = if family == Family::V4 { (Field::SourceV4, NODES_V4) } else { (Field::SourceV6, NODES_V6) };
        Match::Set { key: vec![field], set: name(set), negated: true }
    };
    let stranger = "tunnel packet from other than a node";
    let vxlan = settings.vxlan_ports.iter().flat_map(|port| {
        let vni = Match::VxlanVni { port: *port, vni: names::VXLAN_VNI, negated: true };
        [
            Rule::deny(vec![udp_port(*port), not_a_node(Family::V4)]).comment(stranger),
            Rule::deny(vec![udp_port(*port), not_a_node(Family::V6)]).comment(stranger),
            Rule::deny(vec![vni]).comment("foreign VXLAN network"),
        ]
    });
    let mut rules = vec![
        Rule::new(
            vec![workload_interface(Direction::In)],
            Action::Verdict(Verdict::Goto(chain_name("workload_input"))),
        ),
        Rule::new(vec![tunnel_device(Direction::In)], jump("tunnel")),
        // The tunnel devices are collect-metadata devices: they take packets from anybody, so this is their only guard.
        Rule::deny(vec![Match::Protocol(IP_IN_IP), not_a_node(Family::V4)]).comment(stranger),
    ];
    rules.extend(vxlan);
    // What is left is for the host itself, from outside.
    rules.push(Rule::new(vec![], Action::Verdict(Verdict::Goto(chain_name(HOST_INGRESS)))));
    rules
}

/// IPVS takes packets to a Service in at the input hook and sends them out to a pod, past the forward hook.
fn output() -> Vec<Rule> {
    let onward = Action::Verdict(Verdict::Goto(chain_name("passed_on")));
    vec![Rule::new(vec![workload_interface(Direction::Out), Match::ForeignSource], onward)]
}

/// As in `forward`, by all that is still known: not where the packet came in.
fn passed_on() -> Vec<Rule> {
    vec![
        unknown(Direction::Out),
        Rule::new(vec![], jump("cut")),
        established(Direction::Out),
        invalid(Direction::Out),
        dispatch(Field::OutInterface, TO_POD),
    ]
}

/// A pod to its own node: egress lists apply, and nothing else does.
fn workload_input() -> Vec<Rule> {
    let link = |more: Option<Match>| {
        let matches = std::iter::once(Match::Icmpv6Types(LINK_TYPES.to_vec())).chain(more).collect();
        Rule::new(matches, Action::Verdict(Verdict::Accept))
    };
    let from = |net: ipnet::IpNet| Match::Address { side: End::Source, net, negated: false };
    let link_local = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let unspecified = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 128);
    vec![
        unknown(Direction::In),
        // Neighbour discovery never depends on policy: without it there is no IPv6 at all. Its sources are link-local, or none
        // while an address is being probed; with another source it must pass the source check first.
        link(Some(from(link_local.into()))),
        link(Some(from(unspecified.into()))),
        Rule::new(vec![], jump("workload")),
        link(None),
        Rule::new(vec![], jump("cut")),
        // Answers to the node's own connections, such as probes.
        established(Direction::In),
        invalid(Direction::In),
        dispatch(Field::InInterface, FROM_POD),
    ]
}

/// What every packet from a workload must satisfy.
fn workload(settings: &Settings) -> Vec<Rule> {
    let to_port = |port: u16| Match::Ports {
        protocol: UDP,
        side: End::Destination,
        ranges: std::iter::once(port..=port).collect(),
    };
    let foreign_source = |field, set| {
        let check = Match::Set { key: vec![Field::InInterface, field], set: name(set), negated: true };
        Reason::Spoofed.rule(vec![check])
    };
    let mut rules = vec![
        foreign_source(Field::SourceV4, SOURCE_V4),
        foreign_source(Field::SourceV6, SOURCE_V6),
        // With natOutgoing a workload's packet to another node carries this node's address, so the other node would take a
        // tunnel packet for one of ours: it has to end here. Before established, which costs two comparisons, so that no
        // connection state can let one through.
        Reason::Tunnel.rule(vec![Match::Protocol(IP_IN_IP)]),
    ];
    rules.extend(settings.vxlan_ports.iter().map(|port| Reason::Tunnel.rule(vec![to_port(*port)])));
    rules
}

/// What every packet out of a tunnel must satisfy: its sender lives in a pool, or is a node, whose own servers answer pods from
/// its own address.
fn tunnel() -> Vec<Rule> {
    let stranger = |field: Field, pools, nodes| {
        let outside = |set| Match::Set { key: vec![field], set: name(set), negated: true };
        Rule::deny(vec![outside(pools), outside(nodes)]).comment("source out of a tunnel is neither pod nor node")
    };
    vec![stranger(Field::SourceV4, POOLS_V4, NODES_V4), stranger(Field::SourceV6, POOLS_V6, NODES_V6)]
}

fn cut() -> Vec<Rule> {
    let flow = |source, destination, set| {
        let key = vec![source, destination, Field::Protocol, Field::SourcePort, Field::DestinationPort];
        Reason::Cut.rule(vec![Match::Set { key, set: name(set), negated: false }])
    };
    let bare_syn = Match::TcpFlags { mask: TCP_FLAGS, value: TCP_SYN, negated: false };
    vec![
        // A new connection with the old ports is judged by policy as any other.
        Rule::new(vec![Match::Protocol(TCP), bare_syn], Action::Verdict(Verdict::Return)),
        flow(Field::SourceV4, Field::DestinationV4, CUT_V4),
        flow(Field::SourceV6, Field::DestinationV6, CUT_V6),
    ]
}

/// natOutgoing: what leaves all pools carries the node's address; so does what a pod sends to itself by a port of the node.
fn postrouting() -> Vec<Rule> {
    let masquerade = |source, nat, destination, pools| {
        Rule::new(
            vec![
                Match::Set { key: vec![source], set: name(nat), negated: false },
                Match::Set { key: vec![destination], set: name(pools), negated: true },
                no_interface(Direction::Out, names::WORKLOAD_PREFIX),
                no_interface(Direction::Out, names::TUNNEL_PREFIX),
            ],
            Action::Masquerade,
        )
        .comment("natOutgoing")
    };
    vec![
        hostport::hairpin(Family::V4),
        hostport::hairpin(Family::V6),
        masquerade(Field::SourceV4, NAT_V4, Field::DestinationV4, POOLS_V4),
        masquerade(Field::SourceV6, NAT_V6, Field::DestinationV6, POOLS_V6),
    ]
}

/// A chain of its own, which only the forward hook comes to: at the input hook the kernel refuses `rt mtu`, and what comes out of no tunnel is not
/// asked whether it is a SYN.
fn tunnel_onward() -> Vec<Rule> {
    let mut rules = tunnel();
    rules.push(clamp_mss(vec![]));
    rules
}

/// Where ICMP errors are dropped on the way, nothing else tells the ends of a connection what the tunnel carries. In both directions, so that a
/// node without this rule at the other end of the tunnel hinders nobody.
fn clamp_mss(mut matches: Vec<Match>) -> Rule {
    matches.push(Match::TcpFlags { mask: TCP_SYN | TCP_RST, value: TCP_SYN, negated: false });
    Rule::new(matches, Action::ClampMss)
}

/// Either device, by one comparison: every packet that the host passes on pays for it.
fn tunnel_device(side: Direction) -> Match {
    Match::Interface { side, name: Interface::Prefix(names::TUNNEL_PREFIX.into()), negated: false }
}

fn unknown(side: Direction) -> Rule {
    let field = if side == Direction::In { Field::InInterface } else { Field::OutInterface };
    let known = Match::Set { key: vec![field], set: name(KNOWN), negated: true };
    Reason::Unknown.rule(vec![workload_interface(side), known])
}

fn established(side: Direction) -> Rule {
    let states = CtStates::ESTABLISHED.or(CtStates::RELATED);
    Rule::new(vec![workload_interface(side), Match::CtState(states)], Action::Verdict(Verdict::Accept))
}

fn invalid(side: Direction) -> Rule {
    Reason::Invalid.rule(vec![workload_interface(side), Match::CtState(CtStates::INVALID)])
}

fn dispatch(field: Field, map: &str) -> Rule {
    Rule::new(vec![], Action::Map { key: vec![field], map: name(map) })
}

fn workload_interface(side: Direction) -> Match {
    Match::Interface { side, name: Interface::Prefix(names::WORKLOAD_PREFIX.into()), negated: false }
}

fn no_interface(side: Direction, prefix: &str) -> Match {
    Match::Interface { side, name: Interface::Prefix(prefix.into()), negated: true }
}

fn jump(chain: &str) -> Action {
    Action::Verdict(Verdict::Jump(chain_name(chain)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_skeleton_has_its_object() {
        skeleton(&Settings::default()).check().unwrap();
    }

    #[test]
    fn the_skeleton_names_all_its_sets() {
        let sets: Vec<_> = skeleton(&Settings::default()).sets.into_keys().collect();
        let mut named = super::super::SETS.map(name);
        named.sort();
        assert_eq!(sets, named);
    }

    #[test]
    fn the_skeleton_reads_as_designed() {
        insta::assert_snapshot!(skeleton(&Settings::default()));
    }

    #[test]
    fn every_port_of_the_vxlan_device_is_guarded_as_the_only_one_is() {
        let of = |ports: &[u16]| {
            let settings = Settings { vxlan_ports: ports.iter().copied().collect(), ..Settings::default() };
            tunnel_guards(&settings).map(|(_, rules)| rules)
        };
        let (one, other, both) = (of(&[4789]), of(&[8472]), of(&[4789, 8472]));
        for ((one, other), both) in one.iter().zip(&other).zip(&both) {
            assert!(one.iter().chain(other).all(|rule| both.contains(rule)) && one != other);
        }
        let onward = both[0].iter().position(|rule| matches!(rule.action, Action::Verdict(Verdict::Goto(_))));
        assert_eq!(onward, Some(0), "workloads go their own way");
        assert_eq!((both[0].last(), both[0].len()), (one[0].last(), one[0].len() + 3), "the host comes last");
    }

    #[test]
    fn every_drop_counts() {
        let all = skeleton(&Settings::default());
        let drops = |r: &&Rule| r.action == Action::Verdict(Verdict::Drop);
        let rules = all.chains.values().flat_map(|c| &c.rules);
        assert!(rules.clone().filter(drops).count() > 10);
        assert!(rules.filter(drops).all(|r| r.counter));
    }
}
