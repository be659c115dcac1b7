//! From one configuration to the next: which session is new, goes, has to start again, or need not notice.

use super::config::{Config, Peer};
use crate::rib::PeerId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a new configuration means for each peer of the old and the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Not there before.
    Added(PeerId),
    /// Not there any more.
    Removed(PeerId),
    /// Address, AS, source, password, families or capabilities differ: the session starts again.
    Reset(PeerId),
    /// Something else differs: the session stays.
    Soft(PeerId),
}

impl PeerChange {
    /// The peer.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        match self {
            Self::Added(peer) | Self::Removed(peer) | Self::Reset(peer) | Self::Soft(peer) => *peer,
        }
    }
}

/// A configuration with numbers for its peers and the difference to the one before.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The configuration.
    pub config: Arc<Config>,
    /// Peers by number; a peer keeps its number for as long as its name or its address is configured.
    pub ids: BTreeMap<PeerId, String>,
    /// Differences, one per peer that differs. Removed ones first.
    pub changes: Vec<PeerChange>,
}

impl Plan {
    /// The first configuration.
    #[must_use]
    pub fn first(config: Config) -> Self {
        let ids: BTreeMap<_, _> = (1..).map(PeerId).zip(config.peers.keys().cloned()).collect();
        let changes = ids.keys().map(|id| PeerChange::Added(*id)).collect();
        Self { config: Arc::new(config), ids, changes }
    }

    /// The configuration after this one.
    #[must_use]
    pub fn next(&self, config: Config) -> Self {
        let mut ids = self.ids.clone();
        self.rename(&mut ids, &config);
        ids.retain(|_, name| config.peers.contains_key(name));
        let removed = self.ids.keys().filter(|id| !ids.contains_key(id));
        let mut changes: Vec<_> = removed.map(|id| PeerChange::Removed(*id)).collect();
        for (id, name) in &ids {
            let before = &self.ids[id];
            let change = self.change(*id, &self.config.peers[before], &config, &config.peers[name]);
            changes.extend(change.or((before != name).then_some(PeerChange::Soft(*id))));
        }
        // Numbers of removed peers rest for this one step, so that no plan has a number in two meanings.
        let mut free = (1..).map(PeerId).filter(|id| !self.ids.contains_key(id));
        let known: std::collections::BTreeSet<_> = ids.values().cloned().collect();
        for name in config.peers.keys().filter(|name| !known.contains(*name)) {
            if let Some(id) = free.next() {
                ids.insert(id, name.clone());
                changes.push(PeerChange::Added(id));
            }
        }
        Self { config: Arc::new(config), ids, changes }
    }

    /// A session that is configured under another name now, by an object instead of the topology, say, is the same: known by its address.
    fn rename(&self, ids: &mut BTreeMap<PeerId, String>, config: &Config) {
        let fresh = config.peers.iter().filter(|(name, _)| !self.config.peers.contains_key(*name));
        let fresh: BTreeMap<_, _> = fresh.map(|(name, peer)| (peer.remote(), name)).collect();
        for name in ids.values_mut().filter(|name| !config.peers.contains_key(*name)) {
            if let Some(new) = fresh.get(&self.config.peers[name].remote()) {
                (*new).clone_into(name);
            }
        }
    }

    /// The peer with this number.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<(&str, &Peer)> {
        let name = self.ids.get(&id)?;
        self.config.peers.get(name).map(|peer| (name.as_str(), peer))
    }

    fn change(&self, id: PeerId, old: &Peer, config: &Config, new: &Peer) -> Option<PeerChange> {
        let identity = |config: &Config, peer: &Peer| {
            let asn = peer.local_asn.unwrap_or(config.asn);
            let link = (peer.address, peer.interface.clone(), peer.source, peer.password.clone());
            let open =
                (asn, config.router_id, peer.asn, peer.families, peer.graceful_restart, peer.long_lived, peer.role);
            let add_path = (peer.add_path.receive, peer.add_path.send > 0);
            (link, open, add_path, peer.extended_next_hop)
        };
        if identity(&self.config, old) != identity(config, new) {
            return Some(PeerChange::Reset(id));
        }
        (old != new).then_some(PeerChange::Soft(id))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::super::config::AddPath;
    use super::super::config::tests::peer;
    use super::*;
    use crate::fsm::LocalRole;
    use crate::wire::Role;

    pub(crate) fn config(peers: &[(&str, Peer)]) -> Config {
        Config {
            asn: 65000,
            router_id: [10, 0, 0, 1].into(),
            listen: Vec::new(),
            originate: Default::default(),
            peers: peers.iter().map(|(name, peer)| ((*name).to_owned(), peer.clone())).collect(),
            templates: Default::default(),
            shared: Default::default(),
            bmp: Default::default(),
            exclusive: false,
            step: None,
            complete: true,
            shutdown: None,
            leaving: false,
        }
    }

    #[test]
    fn only_the_peer_that_differs_in_its_session_starts_again() {
        let base = [("a", peer("10.0.0.2", 65002)), ("b", peer("10.0.0.3", 65003)), ("c", peer("10.0.0.4", 65004))];
        let plan = Plan::first(config(&base));
        assert!(plan.next(config(&base)).changes.is_empty());

        let mut changed = base.clone();
        changed[0].1.password = Some("secret".to_owned());
        changed[1].1.hold_time = 9;
        let next = plan.next(config(&changed));
        assert_eq!(next.changes, [PeerChange::Reset(PeerId(1)), PeerChange::Soft(PeerId(2))]);

        let mut other = config(&base);
        other.router_id = [10, 0, 0, 9].into();
        assert_eq!(plan.next(other).changes.len(), 3);
    }

    #[test]
    fn everything_that_is_said_in_open_or_to_the_kernel_resets_and_nothing_else_does() {
        let base = Peer { add_path: AddPath { receive: false, send: 2 }, ..peer("10.0.0.2", 65002) };
        let interface = super::super::config::Interface { name: "eth0".to_owned(), index: 2 };
        let resets = [
            Peer { address: "10.0.0.9".parse().unwrap(), ..base.clone() },
            Peer { asn: super::super::config::PeerAsn::External, ..base.clone() },
            Peer { local_asn: Some(1), ..base.clone() },
            Peer { source: Some("10.0.0.1".parse().unwrap()), ..base.clone() },
            Peer { password: Some("x".to_owned()), ..base.clone() },
            Peer { families: crate::wire::Families::NONE, ..base.clone() },
            Peer { graceful_restart: Some(120), ..base.clone() },
            Peer { extended_next_hop: true, ..base.clone() },
            Peer { interface: Some(interface), ..base.clone() },
            Peer { long_lived: Some(3600), ..base.clone() },
            Peer { role: Some(LocalRole { ours: Role::Customer, strict: false }), ..base.clone() },
            Peer { add_path: AddPath { receive: true, send: 2 }, ..base.clone() },
            Peer { add_path: AddPath { receive: false, send: 0 }, ..base.clone() },
        ];
        let bfd = super::super::config::Bfd { min_tx: 100, min_rx: 100, multiplier: 3, hops: Default::default() };
        let soft = [
            Peer { import: super::super::config::Import::None, ..base.clone() },
            Peer { export: super::super::config::Export::Own, ..base.clone() },
            Peer { hold_time: 30, ..base.clone() },
            Peer { passive: true, ..base.clone() },
            Peer { reflector_client: true, ..base.clone() },
            Peer { bfd: Some(bfd), ..base.clone() },
            Peer { add_path: AddPath { receive: false, send: 3 }, ..base.clone() },
        ];
        let plan = Plan::first(config(&[("a", base)]));
        for peer in resets {
            assert_eq!(plan.next(config(&[("a", peer)])).changes, [PeerChange::Reset(PeerId(1))]);
        }
        for peer in soft {
            assert_eq!(plan.next(config(&[("a", peer)])).changes, [PeerChange::Soft(PeerId(1))]);
        }
    }

    #[test]
    fn a_session_under_another_name_is_the_same() {
        let a = peer("10.0.0.2", 65002);
        let plan = Plan::first(config(&[("a", a.clone())]));
        let next = plan.next(config(&[("special", Peer { hold_time: 30, ..a.clone() })]));
        assert_eq!(next.changes, [PeerChange::Soft(PeerId(1))]);
        assert_eq!(next.peer(PeerId(1)).unwrap().0, "special");
        assert_eq!(
            next.next(config(&[("a", Peer { hold_time: 30, ..a.clone() })])).changes,
            [PeerChange::Soft(PeerId(1))]
        );
        let other = Peer { password: Some("x".to_owned()), ..a };
        assert_eq!(plan.next(config(&[("special", other)])).changes, [PeerChange::Reset(PeerId(1))]);
    }

    #[test]
    fn a_number_stays_with_its_name_and_rests_once_before_it_comes_back() {
        let (a, b) = (peer("10.0.0.2", 65002), peer("10.0.0.3", 65003));
        let (c, d) = (peer("10.0.0.4", 65002), peer("10.0.0.5", 65002));
        let plan = Plan::first(config(&[("a", a), ("b", b.clone())]));
        let next = plan.next(config(&[("b", b.clone()), ("c", c.clone())]));
        assert_eq!(next.changes, [PeerChange::Removed(PeerId(1)), PeerChange::Added(PeerId(3))]);
        assert_eq!(next.peer(PeerId(2)).unwrap().0, "b");
        let last = next.next(config(&[("b", b), ("c", c), ("d", d)]));
        assert_eq!(last.changes, [PeerChange::Added(PeerId(1))]);
    }
}
