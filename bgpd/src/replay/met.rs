//! Peers of a recording that the configuration has no address of: routers on interfaces, and callers.

use crate::mrt::{Ends, Records};
use crate::nd::Sight;
use crate::scoped::{ScopedAddr, is_link_local};
use crate::speaker::{Config, PeerAsn, Seen};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// What was met so far.
#[derive(Debug, Default)]
pub(super) struct Met {
    seen: Seen,
    /// Names of interfaces by their index: a recording has indices alone.
    interfaces: BTreeMap<u32, String>,
}

impl Met {
    /// Finds out which interface of the configuration is which: by the AS that is configured for its peer, those with a number first, and
    /// else in the order of their indices and of the names of peers.
    ///
    /// # Errors
    /// The recording ends inside a record.
    pub(super) fn with(config: &Config, recording: &[u8]) -> Result<Self, String> {
        let mut asns: BTreeMap<u32, u32> = BTreeMap::new();
        for record in Records::new(recording) {
            let Ends { peer, peer_asn, interface, .. } = record?.ends;
            if is_link_local(peer) && peer_asn > 0 {
                asns.entry(interface.into()).or_insert(peer_asn);
            }
        }
        let mut interfaces = BTreeMap::new();
        let mut left: Vec<_> = config.templates.unnumbered.values().collect();
        for exactly in [true, false] {
            for (index, asn) in &asns {
                let fits = |wanted: PeerAsn| match wanted {
                    PeerAsn::Number(number) => exactly && number == *asn,
                    PeerAsn::External => !exactly,
                };
                let at = left.iter().position(|template| fits(template.peer.asn));
                if let Some(at) = at.filter(|_| !interfaces.contains_key(index)) {
                    interfaces.insert(*index, left.remove(at).interface.clone());
                }
            }
        }
        Ok(Self { seen: Seen::default(), interfaces })
    }

    /// The configuration with the peer at these ends, if it can be one.
    pub(super) fn meet(&mut self, config: &Config, ends: &Ends) -> Option<Config> {
        let remote = ScopedAddr::new(ends.peer, ends.interface.into());
        match ends.peer {
            IpAddr::V6(router) if remote.zone > 0 => {
                let own = if let IpAddr::V6(local) = ends.local { local } else { Ipv6Addr::UNSPECIFIED };
                let sight = Sight::Up { index: remote.zone, own, router: Some(router), others: 0 };
                self.seen.sights.insert(self.interfaces.get(&remote.zone)?.clone(), sight);
            }
            address => {
                let (range, _) = config.templates.range_of(address)?;
                self.seen.callers.insert(remote, range.to_owned());
            }
        }
        Some(self.seen.expand(config))
    }
}
