//! HostPolicies into chains: what the node's own interfaces let in and out.
//!
//! A list names the interfaces in its rules, so one that appears later is closed from its first packet. A trial's list is asked instead of
//! the confirmed one as long as its gate, a set that expires, has elements: the kernel goes back by itself.

use super::lists::{ChainPlan, with_logs};
use super::rules::{self, Draft, Form};
use super::sets::{Layout, digest};
use super::{ChainUse, Compiler};
use crate::base::{self, chain_name, name};
use crate::host::failsafe::{Failsafe, Peers};
use crate::host::{Plan, Program, Trial};
use crate::model::{self, Direction, InterfaceName};
use crate::ruleset::{
    self, Action, Base, BaseKind, Chain, CtStates, End, Family, Field, Hook, Interface, Key, KeyType, Match, Name,
    Rule, Set, Value, Verdict,
};
use ipnet::IpNet;
use std::sync::Arc;
use twill_crds::names;

/// What the ruleset holds of HostPolicies.
#[derive(Debug, Default)]
pub(super) struct Host {
    wanted: Arc<Plan>,
    compiled: Arc<Plan>,
    /// Chains in use, of both directions.
    heads: Vec<Name>,
    gate: Option<Name>,
}

impl Host {
    /// What shall be in force.
    pub(super) fn wanted(&self) -> Arc<Plan> {
        self.wanted.clone()
    }
}

const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];
const FILTER: i32 = 0;
const UDP: u8 = 17;
const IGMP: u8 = 2;
/// Errors of ICMPv6 (RFC 4443 section 2.1), and what hosts and routers say on their link (RFC 4861, RFC 2710, RFC 3810).
const LINK_TYPES: [u8; 13] = [1, 2, 3, 4, 130, 131, 132, 133, 134, 135, 136, 137, 143];
/// A DHCP client, v4 and v6, and its servers.
const DHCP_CLIENT: [u16; 2] = [68, 546];
const DHCP_SERVER: [u16; 2] = [67, 547];

impl Compiler {
    /// What the table shall hold of HostPolicies from the next commit on. Says whether that is another than before.
    pub fn plan_host(&mut self, plan: Plan) -> bool {
        let changed = *self.host.wanted != plan;
        if changed {
            self.host.wanted = Arc::new(plan);
        }
        changed
    }

    /// Compiles the plan, if it is another. Returns the chains that are used no more.
    pub(super) fn update_host(&mut self) -> Vec<Name> {
        if Arc::ptr_eq(&self.host.wanted, &self.host.compiled) {
            return Vec::new();
        }
        let plan = self.host.wanted.clone();
        let gate = plan.trial.as_ref().map(|trial| Name::from(trial.gate.as_str()));
        let mut heads = Vec::new();
        for direction in DIRECTIONS {
            let confirmed = self.acquire_host_list(&plan.confirmed, direction);
            let trial = plan.trial.as_ref().map(|trial| {
                let list = self.acquire_host_list(&trial.program, direction);
                (Name::from(trial.gate.as_str()), list)
            });
            heads.extend(confirmed.iter().chain(trial.iter().filter_map(|(_, list)| list.as_ref())).cloned());
            let rules = if plan.closes(direction) { dispatch(direction, confirmed, trial) } else { Vec::new() };
            self.desired.set_rules(&chain_name(dispatch_chain(direction)), rules);
            let failsafes = plan.failsafes.iter().filter(|one| one.direction == direction && plan.closes(direction));
            self.desired
                .set_rules(&chain_name(failsafe_chain(direction)), failsafes.flat_map(failsafe_rules).collect());
        }
        self.hook_output(plan.closes(Direction::Egress));
        self.follow_gate(gate, plan.trial.as_ref());
        self.host.compiled = plan;
        std::mem::replace(&mut self.host.heads, heads)
    }

    /// The base chain at the output hook stands only while something from the host is closed.
    fn hook_output(&mut self, closed: bool) {
        let output = chain_name(base::HOST_OUTPUT);
        let there = self.desired.ruleset().chains.contains_key(&output);
        if closed && !there {
            let base = Some(Base { kind: BaseKind::Filter, hook: Hook::Output, priority: FILTER });
            let onward = Verdict::Goto(chain_name(dispatch_chain(Direction::Egress)));
            let rules = vec![Rule::new(Vec::new(), Action::Verdict(onward))];
            self.desired.add_chain(&output, Chain { base, rules });
        } else if !closed && there {
            self.desired.remove_chain(&output);
        }
    }

    fn follow_gate(&mut self, gate: Option<Name>, trial: Option<&Trial>) {
        if self.host.gate == gate {
            return;
        }
        if let Some(old) = self.host.gate.take() {
            self.desired.remove_set(&old);
        }
        if let (Some(gate), Some(trial)) = (&gate, trial) {
            let set =
                Set::of([KeyType::Family]).expiring(trial.within).comment("a trial of HostPolicies, while it lasts");
            let lasts = |family| (Key::family(family), Value::Expires(trial.within));
            self.desired.add_set(gate, set.with([Family::V4, Family::V6].map(lasts)));
        }
        self.host.gate = gate;
    }

    fn acquire_host_list(&mut self, program: &Program, direction: Direction) -> Option<Name> {
        let plan = list(program, direction, self.is_told())?;
        let head = plan.name.clone();
        self.add_chain(plan);
        if let Some(ChainUse { users, .. }) = self.chains.get_mut(&head) {
            *users += 1;
        }
        Some(head)
    }
}

/// The chain that a base chain leads to.
fn dispatch_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => base::HOST_INGRESS,
        Direction::Egress => base::HOST_EGRESS,
    }
}

fn failsafe_chain(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => base::HOST_FAILSAFE_IN,
        Direction::Egress => base::HOST_FAILSAFE_OUT,
    }
}

fn side(direction: Direction) -> ruleset::Direction {
    match direction {
        Direction::Ingress => ruleset::Direction::In,
        Direction::Egress => ruleset::Direction::Out,
    }
}

/// What comes before any policy, and which list is asked.
fn dispatch(direction: Direction, confirmed: Option<Name>, trial: Option<(Name, Option<Name>)>) -> Vec<Rule> {
    let side = side(direction);
    let spared = |name| {
        let own = Match::Interface { side, name, negated: false };
        Rule::new(vec![own], Action::Verdict(Verdict::Return)).comment("never closed by a HostPolicy")
    };
    let passes = |matches| Rule::new(matches, Action::Verdict(Verdict::Accept));
    let dhcp = |source: u16, destination: u16| {
        let port =
            |side, port: u16| Match::Ports { protocol: UDP, side, ranges: std::iter::once(port..=port).collect() };
        passes(vec![port(End::Source, source), port(End::Destination, destination)]).comment("DHCP")
    };
    let mut rules: Vec<Rule> =
        ["lo", names::VXLAN_DEVICE, names::IPIP_DEVICE].map(|own| spared(Interface::Named(own.into()))).into();
    // A node always reaches its own pods.
    rules.push(spared(Interface::Prefix(names::WORKLOAD_PREFIX.into())));
    rules.push(passes(vec![Match::CtState(CtStates::ESTABLISHED.or(CtStates::RELATED))]));
    rules.push(passes(vec![Match::Icmpv6Types(LINK_TYPES.to_vec())]).comment("neighbours, routers and errors of IPv6"));
    rules.push(passes(vec![Match::Protocol(IGMP)]).comment("multicast groups"));
    for (client, server) in DHCP_CLIENT.into_iter().zip(DHCP_SERVER) {
        rules.push(match direction {
            Direction::Ingress => dhcp(server, client),
            Direction::Egress => dhcp(client, server),
        });
    }
    if let Some((gate, list)) = trial {
        let lasts = Match::Set { key: vec![Field::Family], set: gate, negated: false };
        let verdict = list.map_or(Verdict::Return, Verdict::Goto);
        rules.push(Rule::new(vec![lasts], Action::Verdict(verdict)).comment("on trial"));
    }
    rules.extend(confirmed.map(|list| Rule::new(Vec::new(), Action::Verdict(Verdict::Goto(list)))));
    rules
}

/// The chain that judges a direction; none if the program leaves it open.
fn list(program: &Program, direction: Direction, told: bool) -> Option<ChainPlan> {
    let closing = || program.iter().filter(|policy| policy.closes(direction));
    closing().next()?;
    let (mut rules, mut sets) = (Vec::new(), Vec::new());
    if closing().any(|policy| policy.failsafes) {
        rules.push(Rule::new(Vec::new(), Action::Verdict(Verdict::Jump(chain_name(failsafe_chain(direction))))));
    }
    // They are few: their sets stay their own.
    let both = Form { v4: true, v6: true, layout: Layout::Own };
    for policy in closing() {
        for draft in rules::drafts(&policy.rules, direction, both) {
            let of = |interface| rule_of(&draft, interface);
            rules.extend(interfaces(&policy.interfaces, direction).into_iter().map(of));
            sets.extend(draft.sets);
        }
    }
    for policy in closing() {
        let end = format!("no rule of {} and others accepts it", policy.rules.key);
        let of = |interface: Option<Match>| Rule::deny(interface.into_iter().collect()).comment(end.clone());
        rules.extend(interfaces(&policy.interfaces, direction).into_iter().map(of));
    }
    let name = Name::from(format!("{}{}", base::LIST, digest(&rules)));
    let rules = with_logs(rules, &name, told);
    Some(ChainPlan { name, chain: Chain { base: None, rules }, sets, next: None })
}

fn rule_of(draft: &Draft, interface: Option<Match>) -> Rule {
    let matches = interface.into_iter().chain(draft.matches.iter().cloned()).collect();
    let rule = match draft.action {
        model::Action::Deny => Rule::deny(matches),
        model::Action::Allow | model::Action::Pass => Rule::allow(matches),
    };
    rule.comment(draft.comment.clone())
}

/// A match for each interface; one that is none for all of them.
fn interfaces(names: &[InterfaceName], direction: Direction) -> Vec<Option<Match>> {
    let all = |name: &InterfaceName| matches!(name, InterfaceName::Beginning(beginning) if beginning.is_empty());
    if names.is_empty() || names.iter().any(all) {
        return vec![None];
    }
    let one = |name: &InterfaceName| {
        let name = match name {
            InterfaceName::Exactly(name) => Interface::Named(name.clone()),
            InterfaceName::Beginning(beginning) => Interface::Prefix(beginning.clone()),
        };
        Some(Match::Interface { side: side(direction), name, negated: false })
    };
    names.iter().map(one).collect()
}

fn failsafe_rules(failsafe: &Failsafe) -> Vec<Rule> {
    let other = if failsafe.direction == Direction::Ingress { End::Source } else { End::Destination };
    let what = match failsafe.ports {
        Some((first, last)) => {
            let ranges = std::iter::once(first..=last).collect();
            Match::Ports { protocol: failsafe.protocol, side: End::Destination, ranges }
        }
        None => Match::Protocol(failsafe.protocol),
    };
    let rule = |peer: Option<Match>| {
        let matches = std::iter::once(what.clone()).chain(peer).collect();
        Rule::new(matches, Action::Verdict(Verdict::Accept)).comment(failsafe.reason.clone())
    };
    match &failsafe.peers {
        Peers::Any => vec![rule(None)],
        Peers::Nodes => {
            let node = |field, set| Match::Set { key: vec![field], set: name(set), negated: false };
            let fields = match other {
                End::Source => [(Field::SourceV4, base::NODES_V4), (Field::SourceV6, base::NODES_V6)],
                End::Destination => [(Field::DestinationV4, base::NODES_V4), (Field::DestinationV6, base::NODES_V6)],
            };
            fields.map(|(field, set)| rule(Some(node(field, set)))).into()
        }
        Peers::Addresses(all) => {
            let one =
                |address: &std::net::IpAddr| Match::Address { side: other, net: IpNet::from(*address), negated: false };
            all.iter().map(|address| rule(Some(one(address)))).collect()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::compile::interpret::{Fate, Packet, interpret};
    use crate::host::failsafe::{Facts, failsafes};
    use crate::host::sort;
    use crate::index::Event;
    use crate::model::{Labels, Node, host_policy};
    use crate::ruleset::{Delta, Ruleset};
    use serde_json::{Value as Json, json};
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn program(specs: &[Json]) -> Program {
        let one = |(n, spec): (usize, &Json)| {
            let raw = json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": format!("h{n}")}, "spec": spec});
            Arc::new(host_policy(&serde_json::from_value(raw).unwrap()))
        };
        let mut program: Program = specs.iter().enumerate().map(one).collect();
        sort(&mut program);
        program
    }

    fn compiler() -> Compiler {
        let mut compiler = Compiler::new(base::skeleton(&base::Settings::default()));
        let addresses: BTreeSet<_> = ["192.0.2.1".parse().unwrap()].into();
        let node = Node { name: "n1".into(), labels: Labels::default(), known_as: addresses.clone(), addresses };
        compiler.apply(Event::NodesChanged(vec![node]));
        compiler
    }

    /// A program in force, on a node where SSH listens.
    fn confirmed(specs: &[Json]) -> Compiler {
        let mut compiler = compiler();
        let facts = Facts { listening: [22].into(), ..Facts::default() };
        compiler.plan_host(Plan { confirmed: program(specs), failsafes: failsafes(&facts), ..Plan::default() });
        compiler.commit();
        compiler.ruleset().check().unwrap();
        compiler
    }

    fn passes(ruleset: &Ruleset, hook: Hook, interface: &str, peer: &str, protocol: u8, port: u16) -> bool {
        let own = if peer.contains(':') { "fd00::9" } else { "198.51.100.9" };
        let inbound = hook == Hook::Input;
        let (src, dst) = if inbound { (peer, own) } else { (own, peer) };
        let packet = Packet {
            in_interface: inbound.then(|| interface.to_owned()),
            out_interface: (!inbound).then(|| interface.to_owned()),
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol,
            src_port: 40_000,
            dst_port: port,
        };
        interpret(ruleset, hook, &packet) == Fate::Passed
    }

    #[test]
    fn without_policies_nothing_is_closed_and_nothing_stands_at_the_output_hook() {
        let mut compiler = compiler();
        assert!(!compiler.plan_host(Plan::default()));
        compiler.commit();
        let ruleset = compiler.ruleset();
        assert!(passes(ruleset, Hook::Input, "eth0", "203.0.113.5", 6, 80));
        assert!(!ruleset.chains.values().any(|chain| chain.base.is_some_and(|base| base.hook == Hook::Output)));
    }

    #[test]
    fn a_closed_node_lets_in_what_it_needs_and_what_rules_accept_on_every_interface() {
        let rules = json!([{"action": "Deny", "from": [{"cidrs": ["203.0.113.66/32"]}]}, {"ports": [{"port": 80}, {"protocol": "ICMP"}]},
            {"from": [{"cidrs": ["203.0.113.0/24"]}], "ports": [{"protocol": "UDP", "port": 7, "endPort": 9}]}]);
        let compiler = confirmed(&[json!({"ingress": rules})]);
        let open =
            |interface, peer, protocol, port| passes(compiler.ruleset(), Hook::Input, interface, peer, protocol, port);
        for interface in ["eth0", "whatever"] {
            assert!(open(interface, "203.0.113.5", 6, 80) && open(interface, "fd00::5", 6, 80));
            assert!(!open(interface, "203.0.113.5", 6, 81) && !open(interface, "fd00::5", 6, 81));
        }
        assert!(
            open("eth0", "203.0.113.5", 17, 8)
                && !open("eth0", "203.0.114.5", 17, 8)
                && !open("eth0", "fd00::5", 17, 8)
        );
        assert!(open("eth0", "203.0.113.5", 1, 0) && open("eth0", "fd00::5", 58, 0));
        assert!(!open("eth0", "203.0.113.66", 6, 80) && open("eth0", "203.0.113.66", 6, 22), "failsafes come first");
        assert!(open("eth0", "192.0.2.1", 6, 179) && !open("eth0", "192.0.2.2", 6, 179), "BGP with nodes");
        for never in ["lo", names::VXLAN_DEVICE] {
            assert!(open(never, "192.0.2.1", 6, 81), "{never}");
        }
        assert!(passes(compiler.ruleset(), Hook::Output, "eth0", "203.0.113.5", 6, 81), "only one direction is closed");
    }

    #[test]
    fn interfaces_are_named_or_begin_alike_and_policies_have_an_order() {
        let first =
            json!({"priority": 1, "interfaces": ["eth0"], "ingress": [{"action": "Deny", "ports": [{"port": 80}]}]});
        let second = json!({"priority": 2, "interfaces": ["eth*", "bond0"], "ingress": [{"ports": [{"port": 80}, {"port": 81}]}]});
        let compiler = confirmed(&[second, first]);
        let open = |interface, port| passes(compiler.ruleset(), Hook::Input, interface, "203.0.113.5", 6, port);
        assert!(!open("eth0", 80) && open("eth0", 81) && !open("eth0", 82));
        assert!(open("eth1", 80) && !open("eth1", 82) && open("bond0", 80) && !open("bond0", 82));
        assert!(open("bond1", 82) && open("wlan0", 82));
    }

    #[test]
    fn what_goes_out_is_closed_but_never_to_the_nodes_own_pods() {
        let compiler = confirmed(&[
            json!({"directions": ["Egress"], "egress": [{"to": [{"nodes": {}}], "ports": [{"port": 5000}]}]}),
        ]);
        let open = |interface, peer, port| passes(compiler.ruleset(), Hook::Output, interface, peer, 6, port);
        assert!(
            open("eth0", "192.0.2.1", 5000) && !open("eth0", "192.0.2.2", 5000) && !open("eth0", "192.0.2.1", 5001)
        );
        assert!(
            open("lo", "127.0.0.1", 1)
                && open("twl00000000001", "10.42.0.7", 1)
                && open(names::VXLAN_DEVICE, "10.42.1.7", 1)
        );
        assert!(passes(compiler.ruleset(), Hook::Input, "eth0", "192.0.2.2", 6, 1), "only one direction is closed");
    }

    #[test]
    fn no_failsafes_only_where_all_policies_say_so() {
        let risky = json!({"failsafes": "None", "lockoutRisk": "Accepted"});
        let ssh = |specs: &[Json]| passes(confirmed(specs).ruleset(), Hook::Input, "eth0", "203.0.113.5", 6, 22);
        assert!(!ssh(std::slice::from_ref(&risky)) && ssh(&[risky, json!({"interfaces": ["eth9"]})]));
    }

    /// The same with the gate's elements as the kernel has them until they expire.
    fn during(delta: &Delta, ruleset: &Ruleset) -> Ruleset {
        let mut ruleset = ruleset.clone();
        for (name, set) in delta.add_sets.iter().filter(|(_, set)| set.timeout.is_some()) {
            ruleset.sets.get_mut(name).unwrap().elements = set.elements.clone();
        }
        ruleset
    }

    #[test]
    fn a_trial_is_asked_in_place_of_what_is_confirmed_as_long_as_its_gate_lasts() {
        let mut compiler = confirmed(&[json!({"ingress": [{"ports": [{"port": 80}]}]})]);
        let before = compiler.ruleset().clone();
        let confirmed = program(&[json!({"ingress": [{"ports": [{"port": 80}]}]})]);
        let tried = program(&[json!({"directions": ["Ingress", "Egress"], "ingress": [{"ports": [{"port": 81}]}]})]);
        let trial = Trial { gate: "host_trial_1".into(), program: tried, within: Duration::from_secs(9) };
        assert!(compiler.plan_host(Plan { confirmed: confirmed.clone(), trial: Some(trial), failsafes: Vec::new() }));
        let delta = compiler.commit();
        let gate = &delta.add_sets["host_trial_1"];
        assert_eq!(gate.elements.values().collect::<Vec<_>>(), [&Value::Expires(Duration::from_secs(9)); 2]);
        assert!(compiler.ruleset().sets["host_trial_1"].elements.is_empty(), "a repair must not begin it anew");
        let open = |ruleset: &Ruleset, port| passes(ruleset, Hook::Input, "eth0", "203.0.113.5", 6, port);
        let lasting = during(&delta, compiler.ruleset());
        assert!(
            !open(&lasting, 80) && open(&lasting, 81) && !passes(&lasting, Hook::Output, "eth0", "203.0.113.5", 6, 81)
        );
        // The kernel alone goes back, in both directions.
        let over = compiler.ruleset();
        assert!(open(over, 80) && !open(over, 81) && passes(over, Hook::Output, "eth0", "203.0.113.5", 6, 81));
        // And what is left of it goes, too.
        let facts = Facts { listening: [22].into(), ..Facts::default() };
        compiler.plan_host(Plan { confirmed, trial: None, failsafes: failsafes(&facts) });
        let delta = compiler.commit();
        assert_eq!(compiler.ruleset(), &before);
        assert!(delta.remove_sets.contains("host_trial_1"));
    }

    #[test]
    fn the_ruleset_does_not_depend_on_the_road_and_the_last_policy_leaves_nothing() {
        let bare = {
            let mut compiler = compiler();
            compiler.commit();
            compiler.ruleset().clone()
        };
        let pods = json!({"directions": ["Ingress", "Egress"], "ingress": [{"from": [{"pods": {}}, {"nodes": {}}]}], "egress": [{"action": "Deny", "to": [{"pods": {}}]}]});
        let mut compiler = confirmed(&[json!({"ingress": [{}]}), pods.clone()]);
        let facts = Facts { listening: [22].into(), ..Facts::default() };
        compiler.plan_host(Plan {
            confirmed: program(std::slice::from_ref(&pods)),
            trial: None,
            failsafes: failsafes(&facts),
        });
        compiler.commit();
        assert_eq!(compiler.ruleset(), confirmed(&[pods]).ruleset());
        compiler.plan_host(Plan::default());
        let delta = compiler.commit();
        assert_eq!(compiler.ruleset(), &bare);
        assert!(compiler.sets.is_empty() && compiler.chains.is_empty() && !delta.remove_sets.is_empty());
    }
}
