//! Reads the kernel into the FIB's words, and performs the FIB's steps.

use super::decode::{self, Route};
use super::encode;
use super::ethtool::Ethtool;
use super::socket::{BATCH, Refused, Requests};
use crate::fib::Config;
use crate::fib::route::{Found, Step};
use crate::fib::tunnel::{self, Failure};
use crate::fib::world::{Link, Release, ReversePath, World};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE, WORKLOAD_PREFIX};

/// Dumps are repeated this often when the kernel says that they changed meanwhile; the event that did it brings another.
const DUMP_TRIES: usize = 3;

/// Where the kernel says its release.
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// The kernel as a whole.
pub(crate) struct Kernel {
    requests: Requests,
    ethtool: Ethtool,
    release: Option<Release>,
    /// By index and name of a link: they stay with it.
    drivers: BTreeMap<(u32, String), Option<Arc<str>>>,
}

impl Kernel {
    pub(crate) fn open() -> io::Result<Self> {
        let release = std::fs::read_to_string(RELEASE).ok().and_then(|text| Release::parse(&text));
        Ok(Self { requests: Requests::open()?, ethtool: Ethtool::open()?, release, drivers: BTreeMap::new() })
    }

    /// The number by which notifications name us as the author.
    pub(crate) fn port(&self) -> u32 {
        self.requests.port()
    }

    pub(super) fn requests(&mut self) -> &mut Requests {
        &mut self.requests
    }

    /// Reads links, addresses, neighbours and the routes of both families.
    pub(crate) fn read(&mut self, config: &Config) -> io::Result<(World, Vec<Found>)> {
        let mut world = self.links()?;
        let mut found = Vec::new();
        for v6 in [false, true] {
            for route in self.routes(config, v6)? {
                match route {
                    Route::Ours(route) => found.push(route),
                    Route::Foreign(route) => world.routes.insert(route),
                    Route::Host(route) => drop(world.hosts.insert(route)),
                }
            }
        }
        Ok((world, found))
    }

    /// Reads links, addresses and neighbours; the routes of others are taken over from `known`.
    pub(crate) fn read_devices(&mut self, known: &World) -> io::Result<World> {
        let mut world = self.links()?;
        (world.routes, world.hosts) = (known.routes.clone(), known.hosts.clone());
        Ok(world)
    }

    /// Performs changes of routes, `between` called after each send; what the kernel refused, with its words.
    pub(crate) fn write<'a>(
        &mut self,
        steps: &'a [Step],
        config: &Config,
        mut between: impl FnMut(),
    ) -> io::Result<Vec<(&'a Step, String)>> {
        let mut failed = Vec::new();
        for batch in steps.chunks(BATCH) {
            let requests = batch.iter().map(|step| encode::route(step, config)).collect();
            for refused in self.requests.batch(requests)? {
                let step = &batch[refused.index];
                let gone = matches!(step, Step::Delete(..)) && refused.error.raw_os_error() == Some(libc::ESRCH);
                if !gone {
                    failed.push((step, words(&refused)));
                }
            }
            between();
        }
        Ok(failed)
    }

    /// Performs one change of a device.
    pub(crate) fn device(&mut self, step: &tunnel::Step) -> io::Result<Option<Failure>> {
        let Some(request) = encode::device(step) else { return Ok(self.set(step)) };
        let refused = self.requests.batch(vec![request])?;
        Ok(refused.first().map(|refused| match refused.error.raw_os_error() {
            Some(libc::EOPNOTSUPP)
                if matches!(step, tunnel::Step::CreateVxlan { .. } | tunnel::Step::CreateIpip { .. }) =>
            {
                Failure::Unsupported
            }
            Some(libc::EADDRINUSE | libc::EEXIST) if step.device().is_some() => Failure::PortInUse,
            _ => Failure::Other(words(refused)),
        }))
    }

    /// Performs a change of a device of which rtnetlink knows nothing.
    fn set(&self, step: &tunnel::Step) -> Option<Failure> {
        let tunnel::Step::DisableChecksumOffload { transport, .. } = step else { return None };
        self.ethtool
            .set_checksum_offload(transport.device(), false)
            .err()
            .map(|error| Failure::Other(error.to_string()))
    }

    /// What ethtool knows of links. Workloads' are many, and no tunnel stands on one.
    fn describe(&mut self, links: &mut BTreeMap<u32, Link>) {
        let mut drivers = BTreeMap::new();
        for link in links.values_mut().filter(|link| !link.name.starts_with(WORKLOAD_PREFIX)) {
            let key = (link.index, link.name.clone());
            let driver = match self.drivers.remove(&key) {
                Some(known) => known,
                None => self.ethtool.driver(&link.name).map(Arc::from),
            };
            link.driver.clone_from(&driver);
            drivers.insert(key, driver);
            if [VXLAN_DEVICE, IPIP_DEVICE].contains(&link.name.as_str()) {
                link.checksum_offload = self.ethtool.checksum_offload(&link.name);
            }
        }
        self.drivers = drivers;
    }

    fn links(&mut self) -> io::Result<World> {
        let mut world = World { release: self.release, ..World::default() };
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let of_all = reverse_path_of_all();
        self.requests.dump(request, |_, body| {
            if let Some(mut link) = decode::link(body) {
                link.reverse_path = link.reverse_path.max(of_all);
                world.links.insert(link.index, link);
            }
        })?;
        self.describe(&mut world.links);
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.requests.dump(request, |_, body| world.addresses.extend(decode::address(body)))?;
        if let Some(index) = world.link(VXLAN_DEVICE).map(|link| link.index) {
            let mut message = NeighbourMessage::default();
            message.attributes.push(netlink_packet_route::neighbour::NeighbourAttribute::IfIndex(index));
            let request = RouteNetlinkMessage::GetNeighbour(message);
            self.requests.dump(request, |_, body| world.neighbours.extend(decode::neighbour(body, index)))?;
        }
        Ok(world)
    }

    fn routes(&mut self, config: &Config, v6: bool) -> io::Result<Vec<Route>> {
        let mut result = Vec::new();
        for _ in 0..DUMP_TRIES {
            result.clear();
            let mut message = RouteMessage::default();
            message.header.address_family = encode::family(v6);
            message.header.table = u8::try_from(config.table).unwrap_or_default();
            message.attributes.push(RouteAttribute::Table(config.table));
            let request = RouteNetlinkMessage::GetRoute(message);
            let consistent = self.requests.dump(request, |_, body| result.extend(decode::route(body, config)));
            match consistent {
                Ok(true) => break,
                Ok(false) => {}
                // A table comes into being with its first route.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(result)
    }
}

/// Of the calling thread's network namespace. A link's own setting counts where it is greater.
fn reverse_path_of_all() -> ReversePath {
    match std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").as_deref().map(str::trim) {
        Ok("1") => ReversePath::Strict,
        Ok("2") => ReversePath::Loose,
        _ => ReversePath::Off,
    }
}

fn words(refused: &Refused) -> String {
    if refused.text.is_empty() { refused.error.to_string() } else { format!("{} ({})", refused.text, refused.error) }
}
