//! IPReservations that keep one address for one pod.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use twill_crds::ip_reservation::{Holder, IPReservationStatus, accepted};
use twill_crds::{IPReservation, IPReservationSpec, PodReference};
use twill_ipam::Reserved;

/// An IPReservation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// Number of its creation.
    pub uid: u16,
    pub revision: u16,
    pub address: IpAddr,
    /// Number of the pod's name.
    pub pod: u8,
    pub holder: Option<Holder>,
    /// Since when it keeps this address.
    pub since: u64,
}

/// All of them, by the number of their name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reservations {
    pub all: BTreeMap<u8, Reservation>,
    made: u16,
}

impl Reservations {
    /// Somebody creates one, or edits its spec.
    pub fn put(&mut self, name: u8, address: IpAddr, pod: u8, now: u64) {
        if let Some(one) = self.all.get_mut(&name) {
            let since = if one.address == address { one.since } else { now };
            (one.address, one.pod, one.since) = (address, pod, since);
            one.revision += 1;
            return;
        }
        self.made += 1;
        // Revisions of one that is made again go on.
        let revision = self.made * 100;
        self.all.insert(name, Reservation { uid: self.made, revision, address, pod, holder: None, since: now });
    }

    /// Writes who has it, if the object is still as it was seen; its revision then. `anyhow`: whatever it is by now.
    pub fn write(&mut self, name: u8, seen: (u16, u16), holder: Option<Holder>, anyhow: bool) -> Option<u16> {
        let one = self.all.get_mut(&name)?;
        if (one.uid, one.revision) != seen && !(anyhow && one.uid == seen.0) {
            return None;
        }
        one.holder = holder;
        one.revision += 1;
        Some(one.revision)
    }

    /// As the datastore shows them.
    pub fn objects(&self) -> Vec<IPReservation> {
        self.all.iter().map(|(name, one)| one.object(*name)).collect()
    }

    /// What no pod gets by itself.
    pub fn reserved(&self) -> Reserved {
        Reserved::new(&self.objects())
    }

    /// The one that keeps an address for a pod of this name.
    pub fn kept_for(&self, pod: u8) -> Option<(u8, &Reservation)> {
        let objects = self.objects();
        let counts = accepted(&objects.iter().collect::<Vec<_>>()).0;
        let one = counts.into_iter().find(|one| one.spec.pod == Some(reference(pod)))?;
        let name = one.metadata.name.as_deref()?.parse().unwrap();
        Some((name, &self.all[&name]))
    }

    /// Who has an address, as they say, each with the reservation's name.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = (&str, &Holder)> {
        self.all.iter().filter_map(move |(name, one)| {
            let holder = one.holder.as_ref().filter(|holder| holder.addresses.contains(&address))?;
            Some((NAMES[usize::from(*name)], holder))
        })
    }

    /// Whether an address is kept, or somebody has it.
    pub fn concern(&self, address: IpAddr) -> bool {
        self.holders(address).next().is_some() || self.all.values().any(|one| one.address == address)
    }

    /// Whether a route is that of an address that somebody has by one of them.
    pub fn explain(&self, route: IpNet) -> bool {
        route.prefix_len() == route.max_prefix_len() && self.holders(route.addr()).next().is_some()
    }
}

const NAMES: [&str; 3] = ["0", "1", "2"];

fn reference(pod: u8) -> PodReference {
    PodReference { namespace: "n".into(), name: pod.to_string() }
}

impl Reservation {
    /// As the datastore shows it.
    pub fn object(&self, name: u8) -> IPReservation {
        let spec =
            IPReservationSpec { addresses: vec![self.address], pod: Some(reference(self.pod)), ..Default::default() };
        let mut object = IPReservation::new(NAMES[usize::from(name)], spec);
        object.metadata.uid = Some(self.uid.to_string());
        object.metadata.resource_version = Some(self.revision.to_string());
        object.status = Some(IPReservationStatus { holder: self.holder.clone(), ..Default::default() });
        object
    }

    /// This state of it.
    pub fn version(&self) -> (u16, u16) {
        (self.uid, self.revision)
    }
}
