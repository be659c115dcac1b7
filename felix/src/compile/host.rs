//! HostPolicies into chains: what the node's own interfaces let in and out.
//!
//! A list names the interfaces in its rules, so one that appears later is closed from its first packet. A trial's list is asked instead of
//! the confirmed one as long as its gate, a set that expires, has elements: the kernel goes back by itself.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::lists::{ChainPlan, with_logs};
use super::rules::{self, Draft, Form};
use super::sets::{Layout, digest};
use super::{ChainUse, Compiler};
use crate::base::{self, chain_name, name};
use crate::host::failsafe::{Failsafe, Peers};
use crate::host::{Plan, Program, Trial};
use crate::model::{self, Direction, InterfaceName, Way};
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
        for way in Way::ALL {
            let confirmed = self.acquire_host_list(&plan.confirmed, way);
            let trial = plan.trial.as_ref().map(|trial| {
                let list = self.acquire_host_list(&trial.program, way);
                (Name::from(trial.gate.as_str()), list)
            });
            heads.extend(confirmed.iter().chain(trial.iter().filter_map(|(_, list)| list.as_ref())).cloned());
            let rules = if plan.closes(way) { dispatch(way, confirmed, trial) } else { Vec::new() };
            self.desired.set_rules(&chain_name(dispatch_chain(way)), rules);
            if let Some(chain) = failsafe_chain(way) {
                let failsafes = if plan.closes(way) { failsafes(&plan.failsafes, way) } else { Vec::new() };
                self.desired.set_rules(&chain_name(chain), failsafes);
            }
        }
        self.hook_sending(plan.closes(Way::Out));
        self.follow_gate(gate, plan.trial.as_ref());
        self.host.compiled = plan;
        std::mem::replace(&mut self.host.heads, heads)
    }

    /// The base chain at the postrouting hook stands only while something from the host is closed. Not at the output hook: where a Service's
    /// address is translated there, the kernel goes on to tell the interface by which that address would have been reached.
    fn hook_sending(&mut self, closed: bool) {
        let sends = chain_name(base::HOST_SENDS);
        let there = self.desired.ruleset().chains.contains_key(&sends);
        if closed && !there {
            let base = Some(Base { kind: BaseKind::Filter, hook: Hook::Postrouting, priority: FILTER });
            let verdict = |matches, verdict| Rule::new(matches, Action::Verdict(verdict));
            let known = Match::CtState(CtStates::ESTABLISHED.or(CtStates::RELATED));
            let rules = vec![
                // First, so that of what is forwarded only new connections pay for the next.
                verdict(vec![known], Verdict::Accept),
                verdict(vec![Match::ForeignSource], Verdict::Return).comment("the host only sends it on"),
                verdict(Vec::new(), Verdict::Goto(chain_name(dispatch_chain(Way::Out)))),
            ];
            self.desired.add_chain(&sends, Chain { base, rules });
        } else if !closed && there {
            self.desired.remove_chain(&sends);
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

    fn acquire_host_list(&mut self, program: &Program, way: Way) -> Option<Name> {
        let plan = list(program, way, self.is_told())?;
        let head = plan.name.clone();
        self.add_chain(plan);
        if let Some(ChainUse { users, .. }) = self.chains.get_mut(&head) {
            *users += 1;
        }
        Some(head)
    }
}

/// The chain that a base chain leads to.
fn dispatch_chain(way: Way) -> &'static str {
    match way {
        Way::In => base::HOST_INGRESS,
        Way::Out => base::HOST_EGRESS,
        Way::Through => base::HOST_THROUGH,
    }
}

/// The chain of failsafes; none: what goes that way is for somebody else, whichever port it came to, and nothing of it serves the node.
fn failsafe_chain(way: Way) -> Option<&'static str> {
    match way {
        Way::In => Some(base::HOST_FAILSAFE_IN),
        Way::Out => Some(base::HOST_FAILSAFE_OUT),
        Way::Through => None,
    }
}

fn side(way: Way) -> ruleset::Direction {
    match way.direction() {
        Direction::Ingress => ruleset::Direction::In,
        Direction::Egress => ruleset::Direction::Out,
    }
}

/// What comes before any policy, and which list is asked.
fn dispatch(way: Way, confirmed: Option<Name>, trial: Option<(Name, Option<Name>)>) -> Vec<Rule> {
    let side = side(way);
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
    let known = Match::CtState(CtStates::ESTABLISHED.or(CtStates::RELATED));
    if way == Way::Through {
        // The pod's own policy comes after this.
        rules.push(Rule::allow(vec![known]));
    } else {
        rules.push(passes(vec![known]));
        let link = Match::Icmpv6Types(LINK_TYPES.to_vec());
        rules.push(passes(vec![link]).comment("neighbours, routers and errors of IPv6"));
        rules.push(passes(vec![Match::Protocol(IGMP)]).comment("multicast groups"));
        for (client, server) in DHCP_CLIENT.into_iter().zip(DHCP_SERVER) {
            rules.push(if way == Way::In { dhcp(server, client) } else { dhcp(client, server) });
        }
    }
    if let Some((gate, list)) = trial {
        let lasts = Match::Set { key: vec![Field::Family], set: gate, negated: false };
        let verdict = list.map_or(Verdict::Return, Verdict::Goto);
        rules.push(Rule::new(vec![lasts], Action::Verdict(verdict)).comment("on trial"));
    }
    rules.extend(confirmed.map(|list| Rule::new(Vec::new(), Action::Verdict(Verdict::Goto(list)))));
    rules
}

/// The chain that judges a way; none if the program leaves it open.
fn list(program: &Program, way: Way, told: bool) -> Option<ChainPlan> {
    let closing = || program.iter().filter(|policy| policy.closes(way));
    closing().next()?;
    let (mut rules, mut sets) = (Vec::new(), Vec::new());
    // What any policy of the node leaves to it passes both to it and from it.
    if let Some(chain) = failsafe_chain(way).filter(|_| program.iter().any(|policy| policy.failsafes)) {
        rules.push(Rule::new(Vec::new(), Action::Verdict(Verdict::Jump(chain_name(chain)))));
    }
    // They are few: their sets stay their own.
    let both = Form { v4: true, v6: true, layout: Layout::Own };
    for policy in closing() {
        for draft in rules::drafts(&policy.rules, way.direction(), both) {
            let of = |interface| as_it_came(rule_of(&draft, interface), way);
            rules.extend(interfaces(&policy.interfaces, way).into_iter().flat_map(of));
            sets.extend(draft.sets);
        }
    }
    for policy in closing() {
        let end = format!("no rule of {} and others accepts it", policy.rules.key);
        let of = |interface: Option<Match>| Rule::deny(interface.into_iter().collect()).comment(end.clone());
        rules.extend(interfaces(&policy.interfaces, way).into_iter().map(of));
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
fn interfaces(names: &[InterfaceName], way: Way) -> Vec<Option<Match>> {
    let all = |name: &InterfaceName| matches!(name, InterfaceName::Beginning(beginning) if beginning.is_empty());
    if names.is_empty() || names.iter().any(all) {
        return vec![None];
    }
    let one = |name: &InterfaceName| {
        let name = match name {
            InterfaceName::Exactly(name) => Interface::Named(name.clone()),
            InterfaceName::Beginning(beginning) => Interface::Prefix(beginning.clone()),
        };
        Some(Match::Interface { side: side(way), name, negated: false })
    };
    names.iter().map(one).collect()
}

/// What passes before the rules of a way.
fn failsafes(all: &[Failsafe], way: Way) -> Vec<Rule> {
    let of_way = all.iter().filter(|one| one.direction == way.direction());
    of_way.flat_map(failsafe_rules).collect()
}

/// A rule about what is forwarded is about the port that it came to.
fn as_it_came(rule: Rule, way: Way) -> Vec<Rule> {
    if way != Way::Through {
        return vec![rule];
    }
    let port = rule.matches.iter().enumerate().find_map(|(place, condition)| match condition {
        Match::Ports { protocol, side: End::Destination, ranges } => Some((place, *protocol, ranges.clone())),
        _ => None,
    });
    let Some((place, protocol, ranges)) = port else { return vec![rule] };
    let of = |range| {
        let mut one = rule.clone();
        one.matches[place] = Match::OriginalPorts { protocol, range };
        one
    };
    ranges.into_iter().map(of).collect()
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
