//! Builds the underlay of a [`Plan`]: namespaces, bridges, wires, addresses, routes, by netlink inside each namespace.

use crate::io::netns;
use crate::names::mac;
use crate::plan::{End, Machine, Plan, Wire};
use anyhow::{Context, anyhow};
use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, RouteNextHopBuilder,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// Makes everything that the plan says. What was made before an error stays, for the caller to take down.
///
/// # Errors
/// The kernel refuses; the sentence names the machine.
pub fn build(plan: &Plan) -> anyhow::Result<()> {
    for machine in &plan.machines {
        netns::create(&machine.netns, netns::as_router)?;
    }
    for machine in &plan.machines {
        with_netlink(&machine.netns, async |handle| bridges(handle, &plan.lab, machine).await)
            .with_context(|| format!("bridges of {}", machine.name))?;
    }
    for wire in &plan.wires {
        wired(plan, wire)?;
    }
    for machine in &plan.machines {
        with_netlink(&machine.netns, async |handle| number(handle, machine).await)
            .with_context(|| format!("addresses of {}", machine.name))?;
    }
    Ok(())
}

/// Takes a machine's power: its wires are gone at once, its namespace loses its name. What runs inside must be dead already. No error
/// if nothing is there.
///
/// # Errors
/// The kernel refuses.
pub fn unplug(plan: &Plan, machine: usize) -> anyhow::Result<()> {
    for (_, far) in plan.wires_of(machine) {
        let there = &plan.machines[far.machine];
        with_netlink(&there.netns, async |handle| match indices(handle).await?.get(&far.device) {
            Some(port) => Ok(handle.link().del(*port).execute().await?),
            None => Ok(()),
        })
        .with_context(|| format!("port {} of {}", far.device, there.name))?;
    }
    netns::remove(&plan.machines[machine].netns)
}

/// Makes a machine that was unplugged anew, with its wires; their other ends are up only with `carrier`. Bridges are not made: nodes
/// have none.
///
/// # Errors
/// The kernel refuses.
pub fn plug(plan: &Plan, machine: usize, carrier: bool) -> anyhow::Result<()> {
    let own = &plan.machines[machine];
    netns::create(&own.netns, netns::as_router)?;
    for (wire, _) in plan.wires_of(machine) {
        wired(plan, wire)?;
    }
    with_netlink(&own.netns, async |handle| number(handle, own).await)
        .with_context(|| format!("addresses of {}", own.name))?;
    set_carrier(plan, machine, carrier)
}

/// Cuts a machine's wires at their other ends, or restores them: the machine sees a link without carrier, and keeps its addresses.
///
/// # Errors
/// The kernel refuses.
pub fn set_carrier(plan: &Plan, machine: usize, carrier: bool) -> anyhow::Result<()> {
    for (_, far) in plan.wires_of(machine) {
        let there = &plan.machines[far.machine];
        with_netlink(&there.netns, async |handle| {
            let port = LinkUnspec::new_with_index(index(&indices(handle).await?, &far.device)?);
            let port = if carrier { port.up() } else { port.down() };
            Ok(handle.link().set(port.build()).execute().await?)
        })
        .with_context(|| format!("port {} of {}", far.device, there.name))?;
    }
    Ok(())
}

/// Destinations of the main table's unicast routes in a namespace.
///
/// # Errors
/// The namespace is not there, or the kernel refuses.
pub fn destinations(netns_name: &str) -> anyhow::Result<Vec<IpNet>> {
    let mut found = Vec::new();
    let all = &mut found;
    with_netlink(netns_name, async move |handle| {
        let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let mut routes = handle.route().get(family).execute();
            while let Some(route) = routes.try_next().await? {
                let unicast =
                    route.header.kind == RouteType::Unicast && route.header.table == RouteHeader::RT_TABLE_MAIN;
                all.extend(destination(&route).filter(|_| unicast));
            }
        }
        Ok(())
    })?;
    Ok(found)
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// Brings up the loopback of the calling thread's namespace, as a container runtime does for a pod.
///
/// # Errors
/// The kernel refuses.
pub fn loopback_up() -> anyhow::Result<()> {
    netlink(async |handle| {
        let links = indices(handle).await?;
        let up = LinkUnspec::new_with_index(index(&links, "lo")?).up().build();
        handle.link().set(up).execute().await.context("lo up")
    })
}

/// Whether this kernel makes IP-in-IP devices: one is made in a namespace that vanishes at once.
#[must_use]
pub fn kernel_has_ipip() -> bool {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        netlink(async |handle| {
            // Without collecting metadata it would be the namespace's tunl0 once more.
            let external = InfoData::IpTunnel(vec![InfoIpTunnel::CollectMetadata]);
            let link = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::IpIp)
                .name("probe")
                .set_info_data(external)
                .build();
            handle.link().add(link).execute().await.context("ipip")
        })
    });
    matches!(thread.join(), Ok(Ok(())))
}

fn with_netlink(netns_name: &str, work: impl AsyncFnOnce(&Handle) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    netns::inside(netns_name, || netlink(work))
}

fn netlink(work: impl AsyncFnOnce(&Handle) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().context("netlink")?;
        let connection = tokio::spawn(connection);
        let done = work(&handle).await;
        connection.abort();
        done
    })
}

async fn bridges(handle: &Handle, lab: &str, machine: &Machine) -> anyhow::Result<()> {
    for bridge in &machine.bridges {
        // Without an address of its own a bridge has the least of its ports', which come and go.
        let link = LinkBridge::new(bridge).address(mac(lab, &machine.name, bridge).to_vec()).build();
        handle.link().add(link).execute().await.with_context(|| bridge.clone())?;
    }
    Ok(())
}

/// Makes both ends at once, each in its own namespace, so that no name is ever in another's way.
fn wired(plan: &Plan, wire: &Wire) -> anyhow::Result<()> {
    let (a, b) = (&plan.machines[wire.a.machine], &plan.machines[wire.b.machine]);
    let there = netns::open(&b.netns)?;
    let mut far = LinkMessage::default();
    let address = |machine: &Machine, end: &End| mac(&plan.lab, &machine.name, &end.device).to_vec();
    far.attributes.push(LinkAttribute::IfName(wire.b.device.clone()));
    far.attributes.push(LinkAttribute::Address(address(b, &wire.b)));
    far.attributes.push(LinkAttribute::NetNsFd(there.as_raw_fd()));
    let veth = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(wire.a.device.clone())
        .address(address(a, &wire.a))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
        .build();
    with_netlink(&a.netns, async |handle| Ok(handle.link().add(veth).execute().await?))
        .with_context(|| format!("wire from {} to {}", a.name, b.name))?;
    for (machine, end) in [(a, &wire.a), (b, &wire.b)] {
        let Some(bridge) = &end.bridge else { continue };
        with_netlink(&machine.netns, async |handle| {
            let links = indices(handle).await?;
            let port =
                LinkUnspec::new_with_index(index(&links, &end.device)?).controller(index(&links, bridge)?).build();
            Ok(handle.link().set(port).execute().await?)
        })
        .with_context(|| format!("port {} of {}", end.device, machine.name))?;
    }
    Ok(())
}

async fn indices(handle: &Handle) -> anyhow::Result<HashMap<String, u32>> {
    let mut links = handle.link().get().execute();
    let mut indices = HashMap::new();
    while let Some(link) = links.try_next().await? {
        let name = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        indices.extend(name.map(|n| (n, link.header.index)));
    }
    Ok(indices)
}

fn index(links: &HashMap<String, u32>, device: &str) -> anyhow::Result<u32> {
    links.get(device).copied().ok_or_else(|| anyhow!("device {device} is missing"))
}

async fn number(handle: &Handle, machine: &Machine) -> anyhow::Result<()> {
    let links = indices(handle).await?;
    for (name, link) in links.iter().filter(|(name, _)| machine.owns(name)) {
        let up = LinkUnspec::new_with_index(*link).up().build();
        handle.link().set(up).execute().await.with_context(|| format!("{name} up"))?;
    }
    for (device, address) in &machine.addresses {
        let add = handle.address().add(index(&links, device)?, address.addr(), address.prefix_len());
        add.execute().await.with_context(|| format!("{address} on {device}"))?;
    }
    for (destination, gateways) in &machine.routes {
        let route = static_route(*destination, gateways)?;
        handle.route().add(route).execute().await.with_context(|| format!("route {destination} via {gateways:?}"))?;
    }
    Ok(())
}

/// Several gateways share the load.
fn static_route(destination: IpNet, gateways: &[IpAddr]) -> anyhow::Result<RouteMessage> {
    let route =
        RouteMessageBuilder::<IpAddr>::new().destination_prefix(destination.addr(), destination.prefix_len())?;
    if let [gateway] = gateways {
        return Ok(route.gateway(*gateway)?.build());
    }
    let hop = |gateway: &IpAddr| {
        let hop = if gateway.is_ipv6() { RouteNextHopBuilder::new_ipv6() } else { RouteNextHopBuilder::new_ipv4() };
        Ok(hop.via(*gateway)?.build())
    };
    Ok(route.multipath(gateways.iter().map(hop).collect::<anyhow::Result<_>>()?).build())
}

impl Machine {
    /// Devices that the kernel makes in every namespace (tunl0, sit0…) stay down; everything else is the lab's.
    fn owns(&self, device: &str) -> bool {
        const KERNELS: [&str; 9] =
            ["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"];
        !KERNELS.contains(&device)
    }
}
