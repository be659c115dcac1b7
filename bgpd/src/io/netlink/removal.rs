//! Takes away what bgpd leaves in the kernel when it ends: its routes, then its tunnel devices, with which their addresses and
//! neighbours go.
//!
//! In flows the kernel as it is, out flow deletes; what went is what a look before has and a look after has not. Nothing is
//! remembered, so what an interrupted removal has left, the next one finds.

use super::kernel::Kernel;
use crate::fib::Config;
use crate::fib::route::{Found, Step, Transport};
use crate::fib::tunnel;
use crate::fib::world::{Link, LinkKind, World};
use std::io;
use twill_crds::names::{IPIP_DEVICE, VXLAN_DEVICE};

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Routes: learned and unreachable, of both families.
    pub routes: usize,
    /// Tunnel devices.
    pub tunnels: usize,
    /// What is still there and why, one sentence each.
    pub problems: Vec<String>,
}

/// Removes bgpd's routes and tunnel devices from the calling thread's network namespace. bgpd must have ended, or it puts them back.
#[must_use]
pub fn remove() -> Removed {
    let mut removed = Removed::default();
    if let Err(error) = try_remove(&mut removed) {
        removed.problems.push(format!("bgpd's routes and tunnel devices: {error}"));
    }
    removed
}

fn try_remove(removed: &mut Removed) -> io::Result<()> {
    let mut kernel = Kernel::open()?;
    let config = Config::default();
    let (world, routes) = kernel.read(&config)?;
    let steps: Vec<Step> = routes.iter().map(|route| Step::Delete(route.prefix, route.metric)).collect();
    let refused = kernel.write(&steps, &config, || ())?;
    let refused = refused.first().map(|(_, words)| words.clone());
    let devices: Vec<tunnel::Step> =
        tunnels(&world).map(|(transport, link)| tunnel::Step::Remove(transport, link.index)).collect();
    for step in &devices {
        kernel.device(step)?;
    }
    let (world, left) = kernel.read(&config)?;
    removed.routes = routes.len().saturating_sub(left.len());
    removed.tunnels = devices.len().saturating_sub(tunnels(&world).count());
    removed.problems.extend(routes_left(&left, refused));
    removed.problems.extend(
        tunnels(&world)
            .map(|(_, link)| format!("device {0} is still there; remove it with: ip link delete {0}", link.name)),
    );
    Ok(())
}

fn routes_left(left: &[Found], refused: Option<String>) -> Option<String> {
    let first = left.first()?;
    let why = refused.unwrap_or_else(|| "another process puts them back; is a bgpd still running?".to_owned());
    Some(format!("{} routes of bgpd are still there, one to {}: {why}", left.len(), first.prefix))
}

/// The devices of our names that are of our kind. Another's of such a name is its own.
fn tunnels(world: &World) -> impl Iterator<Item = (Transport, &Link)> {
    let vxlan = world.link(VXLAN_DEVICE).filter(|link| matches!(link.kind, LinkKind::Vxlan { external: true, .. }));
    let ipip = world.link(IPIP_DEVICE).filter(|link| matches!(link.kind, LinkKind::Ipip { external: true }));
    vxlan.map(|link| (Transport::Vxlan, link)).into_iter().chain(ipip.map(|link| (Transport::Ipip, link)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::netns::Netns;
    use std::fmt::Write;
    use std::time::Instant;

    fn node() -> Netns {
        let node = Netns::new("removal");
        node.ip("link add up0 type veth peer name up1");
        node.ip("address add 172.31.1.11/24 dev up0");
        node.ip("address add fd31::11/64 dev up0 nodad");
        node.ip("link set up0 up");
        node.ip("link set up1 up");
        node
    }

    fn listing(node: &Netns) -> String {
        [node.ip("route show table all"), node.ip("-6 route show table all"), node.ip("-o link")].concat()
    }

    #[test]
    #[ignore = "needs root: make test"]
    fn what_bgpd_made_goes_and_what_others_made_stays() {
        let node = node();
        // Another protocol under our metrics, our protocol under another's metric or in another table, a device of our name.
        for foreign in [
            "route add 10.42.1.0/26 via 172.31.1.2 proto 77 metric 512",
            "route add unreachable 10.42.2.0/26 proto 77 metric 4096",
            "route add 10.42.3.0/26 via 172.31.1.2 proto 84 metric 99",
            "route add 10.42.4.0/26 via 172.31.1.2 proto 84 metric 512 table 100",
            "-6 route add fd42:1::/122 via fd31::2 proto 77 metric 512",
            "link add twill-ipip type veth peer name other",
            "link add vxlan9 type vxlan id 9 dstport 4799 local 172.31.1.11",
        ] {
            node.ip(foreign);
        }
        let before = listing(&node);
        for ours in [
            "link add twill-vxlan type vxlan external nolearning dstport 4789",
            "link set twill-vxlan up",
            "address add 10.42.9.0/32 dev twill-vxlan",
            "neighbour add 172.31.2.11 lladdr 02:00:ac:1f:02:0b dev twill-vxlan nud permanent",
            "route add 10.42.5.0/26 via 172.31.1.2 proto 84 metric 512",
            "route add 10.42.6.0/26 proto 84 metric 512 nexthop via 172.31.1.2 nexthop via 172.31.1.3",
            "route add 10.42.7.0/26 encap ip id 4096 ttl 64 dst 172.31.2.11 via 172.31.2.11 dev twill-vxlan onlink proto 84 metric 512",
            "route add unreachable 10.42.9.0/26 proto 84 metric 4096",
            "-6 route add fd42:5::/122 proto 84 metric 512 nexthop via fd31::2 nexthop via fd31::3",
            "-6 route add unreachable fd42:9::/122 proto 84 metric 4096",
        ] {
            node.ip(ours);
        }
        let removed = node.enter(remove);
        assert_eq!(removed, Removed { routes: 6, tunnels: 1, problems: Vec::new() });
        assert_eq!(listing(&node), before);
        assert_eq!(node.enter(remove), Removed::default(), "twice is no error");
    }

    #[test]
    #[ignore = "needs root: make test"]
    fn a_full_table_goes_in_about_a_second() {
        let node = node();
        let mut batch = String::new();
        for n in 0..100_000_u32 {
            let prefix = std::net::Ipv4Addr::from((10 << 24) + (n << 6));
            let _ = writeln!(batch, "route add {prefix}/26 via 172.31.1.2 proto 84 metric 512");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        node.ip(&format!("-batch {}", file.path().display()));
        let began = Instant::now();
        let removed = node.enter(remove);
        eprintln!("100,000 routes removed in {:?}", began.elapsed());
        assert_eq!(removed, Removed { routes: 100_000, tunnels: 0, problems: Vec::new() });
    }
}
