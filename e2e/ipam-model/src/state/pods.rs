//! Pods: bound, attached, ended; and those for which addresses are kept.

use super::{Action, Rules, State};
use crate::cluster::PodObject;
use crate::machine::{COOL_DOWN, Link, Why, Wish, sandbox};
use crate::mutants::Mutant;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

impl State {
    /// What can happen with addresses that are kept for pods of this machine.
    pub(super) fn of_kept(&self, m: usize, others: &[IpNet], mutant: Option<Mutant>, all: &mut Vec<Action>) {
        let machine = &self.machines[m];
        for wish in machine.wishes(self.now, others, mutant) {
            if machine.is_looked_at(&wish, self.now, others, mutant) {
                all.push(Action::Settle(m, wish.reservation, wish.why));
            }
        }
        all.extend(machine.settling().filter(|_| machine.hears()).map(|(name, _)| Action::Ask(m, name)));
        // That a reservation is deleted while it gives a pod its address is not covered.
        let stands = |pod: u8| {
            let by = machine.kept_by(pod);
            by.is_none_or(|(name, uid)| self.cluster.reservations.all.get(&name).is_some_and(|one| one.uid == uid))
        };
        let coming = machine.coming().filter(|pod| stands(*pod));
        all.extend(
            coming
                .filter(|pod| machine.given(*pod, self.now, others, mutant).is_some())
                .map(|pod| Action::Attach(m, pod)),
        );
    }

    /// Pods for which addresses may be kept and that can be made: there is one of a name at a time.
    pub(super) fn to_run(&self, rules: &Rules) -> impl Iterator<Item = Action> {
        let there = |name: u8| self.cluster.pods.values().any(|pod| pod.name == Some(name));
        let can = move |(node, name): &&(usize, u8)| self.cluster.nodes.contains_key(node) && !there(*name);
        rules.named.iter().filter(can).map(|(node, name)| Action::Run(*node, *name))
    }

    /// Somebody creates a reservation, or edits it.
    pub fn keep(&mut self, name: u8, address: IpAddr, pod: u8) {
        let now = self.now;
        self.cluster_mut().reservations.put(name, address, pod, now);
    }

    fn wish(&self, m: usize, name: u8, why: Why, mutant: Option<Mutant>) -> Option<Wish> {
        let all = self.machines[m].wishes(self.now, &self.routes(m), mutant);
        all.into_iter().find(|wish| (wish.reservation, wish.why) == (name, why))
    }

    pub(super) fn settle(&mut self, m: usize, name: u8, why: Why, mutant: Option<Mutant>) {
        let (now, others) = (self.now, self.routes(m));
        if let Some(wish) = self.wish(m, name, why, mutant) {
            self.machine(m).settle(&wish, now, &others, mutant);
        }
    }

    /// Whether a look that can begin leads to more than to another one.
    pub(super) fn is_fruitful(&self, action: Action, mutant: Option<Mutant>) -> bool {
        let Action::Settle(m, name, why) = action else { return true };
        let wish = self.wish(m, name, why, mutant);
        wish.is_some_and(|wish| self.machines[m].is_fruitful(&wish, self.now, &self.routes(m), &self.cluster))
    }

    /// Within one step of the clock whoever hears, has heard, what was under way has ended, what can be seen of pods was told, and who had an
    /// address before it was kept for it is written down.
    pub(super) fn is_prompt(&self, mutant: Option<Mutant>) -> bool {
        let ended = |m: usize| {
            let machine = &self.machines[m];
            let told = |pod: &u8| self.cluster.pods.get(pod).is_none_or(|object| object.address.is_some());
            let others = self.routes(m);
            let wishes = machine.wishes(self.now, &others, mutant);
            let mut down = wishes.iter().filter(|wish| wish.why == Why::WriteDown);
            machine.heard
                && machine.knows(&self.cluster)
                && machine.settling().next().is_none()
                && machine.pods().iter().all(told)
                && !down.any(|wish| machine.is_fruitful(wish, self.now, &others, &self.cluster))
        };
        (0..self.machines.len()).filter(|m| self.machines[*m].hears()).all(ended)
    }

    /// With the disk goes what was let go when. Who keeps his blocks, for his pods tell his identity, may give such an address at once.
    pub(super) fn wipe(&mut self, m: usize) {
        let machine = &self.machines[m];
        let kept = machine.ledger.blocks().filter(|_| machine.ledger.attachments().next().is_some());
        let lost: Vec<IpNet> = kept.map(|(cidr, _)| *cidr).collect();
        Arc::make_mut(&mut self.let_go).retain(|address, _| !lost.iter().any(|cidr| cidr.contains(address)));
        self.machine(m).wipe();
    }

    /// That an address rests is promised by the owner of its block, as long as he is registered and hears what becomes of it.
    pub(super) fn lets_go(&mut self, m: usize, mut addresses: Vec<IpAddr>) {
        let (now, machine) = (self.now, &self.machines[m]);
        let promises = machine.link != Link::Unheard && self.cluster.nodes.contains_key(&machine.name);
        let own = self.cluster.blocks.values().filter(|one| machine.owner.owns(&one.seen)).map(|one| one.seen.cidr);
        let own: Vec<IpNet> = own.filter(|_| promises).collect();
        addresses.retain(|address| own.iter().any(|cidr| cidr.contains(address)));
        Arc::make_mut(&mut self.let_go).extend(addresses.into_iter().map(|address| (address, now)));
    }

    pub(super) fn attach(&mut self, m: usize, pod: u8, mutant: Option<Mutant>) -> Result<(), String> {
        let others = self.routes(m);
        let Some((address, kept)) = self.machines[m].given(pod, self.now, &others, mutant) else { return Ok(()) };
        self.machine(m).attach(pod, address);
        if kept {
            return Ok(());
        }
        let rested = self.let_go.get(&address).is_none_or(|at| self.now >= at + COOL_DOWN);
        if rested || self.machines[m].link == Link::Alone {
            return Ok(());
        }
        Err(format!("{address} was let go a moment ago, and pod {pod} on machine {m} has it"))
    }

    pub(super) fn bind(&mut self, node: usize, name: Option<u8>) -> u8 {
        self.left.pods = self.left.pods.saturating_sub(1);
        let pod = self.next_pod;
        self.cluster_mut().pods.insert(pod, PodObject { node, address: None, name });
        self.next_pod += 1;
        pod
    }

    pub(super) fn report(&mut self, m: usize, pod: u8) {
        let held = self.machines[m].ledger.attachment(&sandbox(pod)).map(|held| held.addresses[0]);
        if let Some(object) = self.cluster_mut().pods.get_mut(&pod) {
            object.address = held;
        }
    }
}
