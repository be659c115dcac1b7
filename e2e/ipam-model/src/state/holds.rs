//! What must hold in a state.

use super::{Action, Bounds, Rules, State};
use crate::cluster::{NAMES, Stored};
use crate::machine::{Link, Machine};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

impl State {
    /// No address is in use twice.
    pub(super) fn check(&self, rules: &Rules) -> Result<(), String> {
        let mut users: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (m, machine) in self.machines.iter().enumerate().filter(|(_, one)| rules.strict || one.link != Link::Alone)
        {
            for held in machine.ledger.attachments().filter(|held| !machine.cut.contains_key(&held.sandbox)) {
                if self.is_not_covered(machine, held.addresses[0]) {
                    continue;
                }
                if let Some(other) = users.insert(held.addresses[0], m) {
                    return Err(format!("{} is in use on machines {other} and {m}", held.addresses[0]));
                }
            }
        }
        Ok(())
    }

    /// What the design does not promise of addresses that are kept, of a machine without datastore: it has one of a block that somebody else has
    /// by now, or had it before it was kept and has not heard of that.
    fn is_not_covered(&self, machine: &Machine, address: IpAddr) -> bool {
        let reservations = &self.cluster.reservations;
        if machine.hears() || !reservations.concern(address) {
            return false;
        }
        let owns = |block: &Stored| machine.owner.owns(&block.seen) && block.seen.cidr.contains(&address);
        let other = |block: &Stored| !machine.owner.owns(&block.seen) && block.seen.cidr.contains(&address);
        let lost = machine.view.blocks.values().any(owns) && self.cluster.blocks.values().any(other);
        let heard = &machine.view.reservations.all;
        let news = reservations.all.iter().filter(|(_, one)| one.address == address);
        lost || news
            .into_iter()
            .any(|(name, one)| heard.get(name).is_none_or(|before| (before.uid, before.address) != (one.uid, address)))
    }

    /// For people.
    pub fn blocks(&self) -> String {
        let all = self.cluster.blocks.values().map(|one| {
            let of = one.seen.claimant.as_deref().unwrap_or_default();
            format!("{} of {of}{}", one.seen.cidr, if one.releasing { " (going)" } else { "" })
        });
        all.collect::<Vec<_>>().join(", ")
    }

    /// Whether everything that nobody needs becomes free, if nothing fails any more: all pods end, and who can act does. What is left over.
    pub fn drained(&self, rules: &Rules) -> Result<(), String> {
        let mut state = self.clone();
        state.rest();
        let rules = Rules { faults: Vec::new(), strict: false, ..rules.clone() };
        for _ in 0..20 {
            // Whoever acts first, acts until there is nothing to do.
            for _ in 0..60 {
                let waits = |action: &Action| matches!(action, Action::Bind(_) | Action::Run(..) | Action::Tick);
                let mut actions = state.actions(&rules).into_iter().filter(|action| !waits(action));
                let next = actions.find(|action| state.is_fruitful(*action, rules.mutant));
                let Some(action) = next else { break };
                state.perform(action, &rules)?;
                state.check(&rules)?;
            }
            if state.leftover().is_ok() {
                return Ok(());
            }
            state.perform(Action::Tick, &rules)?;
        }
        state.leftover().map_err(|what| format!("{what}; blocks {}", state.blocks()))
    }

    /// Links are whole, pods end, their objects go, and so does whatever hinders.
    pub fn rest(&mut self) {
        for m in 0..self.machines.len() {
            if self.machines[m].link != Link::Whole && !self.machines[m].off {
                self.at_machine(Action::Heal(m), None);
            }
            let now = self.now;
            self.machine(m).end_all(now);
        }
        self.cluster_mut().pods.clear();
        self.left = Bounds { ticks: 0, pods: 0, faults: 0 };
        self.let_go = Arc::default();
        self.next_pod = 0;
    }

    fn leftover(&self) -> Result<(), String> {
        for (name, holder) in
            self.cluster.reservations.all.iter().filter_map(|(name, one)| Some((name, one.holder.as_ref()?)))
        {
            // Of a machine that is off whoever wants its addresses passes it over.
            let mut namesakes = self.machines.iter().filter(|machine| NAMES[machine.name] == holder.node);
            if namesakes.all(|machine| !machine.off) {
                return Err(format!("what reservation {name} keeps is {}'s for ever", holder.node));
            }
        }
        for stored in self.cluster.blocks.values() {
            let of = |machine: &&Arc<Machine>| {
                machine.owner.owns(&stored.seen) && self.cluster.nodes.contains_key(&machine.name)
            };
            let Some(owner) = self.machines.iter().find(of) else {
                return Err(format!("block {} of {} is never free", stored.seen.cidr, stored.seen.node));
            };
            let all = self.cluster.blocks.values().filter(|other| owner.owner.owns(&other.seen)).count();
            if all > 1 {
                return Err(format!("machine {} keeps {all} blocks, and has no pod", owner.owner.claimant));
            }
        }
        Ok(())
    }
}
