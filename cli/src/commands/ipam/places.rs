//! What addresses lie in, and which reservations keep them for a pod, found by address: there may be a hundred thousand of them.

use super::World;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::ip_reservation::Holder;
use twill_crds::{IPBlock, IPReservation, Object, Pod};

/// What addresses lie in and are kept by, found by address.
pub(super) struct Places<'a> {
    blocks: BTreeMap<IpNet, Vec<&'a IPBlock>>,
    /// Lengths of their prefixes.
    lengths: BTreeSet<u8>,
    /// Reservations that keep an address for a pod.
    kept: BTreeMap<IpAddr, Vec<&'a IPReservation>>,
}

/// What reservations that keep a pod's address say of it.
#[derive(Clone, Copy)]
pub(super) enum Keeping<'a> {
    /// It is this very pod's.
    Holds,
    /// It is another's by now, who may have this one's name; felix cuts this one off.
    Lost(&'a IPReservation, &'a Holder),
    /// It is kept for this pod, which had it before.
    Unheld(&'a IPReservation),
}

impl<'a> Places<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        let mut places = Self { blocks: BTreeMap::new(), lengths: BTreeSet::new(), kept: BTreeMap::new() };
        for block in &world.blocks {
            places.lengths.insert(block.spec.cidr.prefix_len());
            places.blocks.entry(block.spec.cidr.trunc()).or_default().push(block);
        }
        for one in &world.reservations {
            for address in &one.spec.addresses {
                places.kept.entry(*address).or_default().push(one);
            }
        }
        places
    }

    /// Blocks that contain an address.
    pub(super) fn around(&self, address: IpAddr) -> impl Iterator<Item = &'a IPBlock> {
        let prefixes = self.lengths.iter().filter_map(move |len| Some(IpNet::new(address, *len).ok()?.trunc()));
        prefixes.filter_map(|prefix| self.blocks.get(&prefix)).flatten().copied()
    }

    /// None: none keeps it, or for another pod, which has not got it yet.
    pub(super) fn keeping(&self, address: IpAddr, pod: &Pod) -> Option<Keeping<'a>> {
        let all = self.kept.get(&address)?;
        let held = |one: &&'a IPReservation| Some((*one, one.holder()?));
        let mut holders = all.iter().filter_map(held);
        let is_else = |(_, holder): &(_, &Holder)| Some(&holder.pod_uid) != pod.metadata.uid.as_ref();
        if let Some((one, holder)) = holders.clone().find(is_else) {
            return Some(Keeping::Lost(one, holder));
        }
        if holders.next().is_some() {
            return Some(Keeping::Holds);
        }
        let is_for = |one: &&&IPReservation| {
            one.spec.pod.as_ref().is_some_and(|of| of.namespace == pod.namespace() && of.name == pod.name())
        };
        all.iter().find(is_for).map(|one| Keeping::Unheld(one))
    }
}
