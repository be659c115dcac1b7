//! Settings that tunnels need and the kernel refuses, although the devices are there: in flow changes of devices and how they went, out flow a sentence for each.

use super::route::Transport;
use super::tunnel::{self, Failure, Step};
use super::world::World;
use super::{Config, Pool};
use ipnet::IpNet;
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_crds::Protocol;
use twill_crds::names::VXLAN_DEVICE;

/// What was refused, by the change that was tried.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    now: FxHashMap<Step, String>,
    /// In the round before.
    before: FxHashMap<Step, String>,
    total: u64,
}

impl Refusals {
    /// All that is wanted is tried again: what is refused is known anew.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Remembers how a change went. True if it is refused, is needed, and was not known to be refused.
    pub(super) fn note(&mut self, config: &Config, world: &World, step: &Step, failure: Option<&Failure>) -> bool {
        let Some(failure) = failure.filter(|_| is_needed(config, world, step)) else {
            self.now.remove(step);
            return false;
        };
        let words = match failure {
            Failure::Other(words) => words.clone(),
            Failure::Unsupported | Failure::PortInUse => "the kernel lacks it".to_owned(),
        };
        self.total += 1;
        let known = self.now.insert(step.clone(), words).is_some();
        !known && !self.before.contains_key(step)
    }

    /// Whether something is refused now.
    #[must_use]
    pub(super) fn any(&self) -> bool {
        !self.now.is_empty()
    }

    /// How often something was refused since the start.
    #[must_use]
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// A sentence for each, one for all neighbours of a kind, in the order of the alphabet.
    #[must_use]
    pub(super) fn texts(&self, world: &World) -> Vec<String> {
        let mut texts: Vec<String> = self.now.iter().filter_map(|(step, words)| sentence(world, step, words)).collect();
        let mut neighbours: BTreeMap<(u32, bool, &str), BTreeSet<IpAddr>> = BTreeMap::new();
        for (step, words) in &self.now {
            if let Step::AddNeighbour(link, address, _) = step {
                neighbours.entry((*link, address.is_ipv6(), words)).or_default().insert(*address);
            }
        }
        let device = |link| name(world, link);
        texts.extend(neighbours.iter().map(|((link, v6, words), all)| of_neighbours(device(*link), *v6, words, all)));
        texts.sort_unstable();
        texts
    }
}

/// Whether packets of some pool depend on a step whose device can be used without it.
fn is_needed(config: &Config, world: &World, step: &Step) -> bool {
    let any = |needs: &dyn Fn(&Pool) -> bool| config.pools.iter().any(needs);
    let tunnelled = |pool: &Pool, v6: bool| {
        pool.encapsulation.protocol != Protocol::None && matches!(pool.cidr, IpNet::V6(_)) == v6
    };
    match step {
        Step::Loosen(..) => any(&|pool| tunnelled(pool, false)),
        Step::DisableChecksumOffload { transport, .. } => {
            any(&|pool| Transport::of(pool.encapsulation.protocol) == *transport)
        }
        // IP-in-IP carries no IPv6.
        Step::AddAddress(link, address) => {
            let v6 = address.is_ipv6();
            any(&|pool| tunnelled(pool, v6)) && (!v6 || name(world, *link) == VXLAN_DEVICE)
        }
        // Of the VXLAN device alone.
        Step::AddNeighbour(_, IpAddr::V6(_), _) => tunnel::needs_ipv6(config).is_some(),
        Step::AddNeighbour(_, IpAddr::V4(_), _) => {
            any(&|pool| tunnelled(pool, false) && pool.encapsulation.protocol == Protocol::VXLAN)
        }
        _ => false,
    }
}

/// What cannot be set, why, what that does, and the way out.
fn sentence(world: &World, step: &Step, words: &str) -> Option<String> {
    Some(match step {
        Step::Loosen(_, link) => format!(
            "link {link}: rp_filter cannot be set to 2 (loose): {words}; packets whose way back is another link are dropped there until somebody \
             writes 2 into /proc/sys/net/ipv4/conf/{link}/rp_filter on the node; it is tried again"
        ),
        Step::DisableChecksumOffload { transport, why } => {
            let device = transport.device();
            format!(
                "device {device}: checksum offload cannot be turned off: {words}; {why}; run ethtool -K {device} tx off on the node, or set \
                 tunnelChecksumOffload of BGPConfiguration default to Unchanged; it is tried again"
            )
        }
        Step::AddAddress(link, address) => {
            let device = name(world, *link);
            let way_out = match address {
                IpAddr::V4(_) => format!("take away what ip addr show dev {device} shows to be in its way"),
                IpAddr::V6(_) => with_ipv6(device),
            };
            format!("device {device}: address {address} cannot be added: {words}; {way_out}; it is tried again")
        }
        _ => return None,
    })
}

fn of_neighbours(device: &str, v6: bool, words: &str, all: &BTreeSet<IpAddr>) -> String {
    let first = all.first().map(IpAddr::to_string).unwrap_or_default();
    let more = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
    let (family, other) = if v6 { ("ipv6", format!("{}, and ", with_ipv6(device))) } else { ("ipv4", String::new()) };
    format!(
        "device {device}: neighbour {first}{more} cannot be set, so pods behind are not reached: {words}; {other}raise \
         net.{family}.neigh.default.gc_thresh3 if the table of neighbours is full; it is tried again"
    )
}

fn with_ipv6(device: &str) -> String {
    format!("let the device have IPv6: sysctl -w net.ipv6.conf.{device}.disable_ipv6=0")
}

fn name(world: &World, link: u32) -> &str {
    world.links.get(&link).map_or("(gone)", |link| link.name.as_str())
}
