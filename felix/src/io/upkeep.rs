//! What others changed of a workload's interface on the node, and the way back. In flow what it is to be and what the kernel has, out flow sentences about what
//! was seen. Its MTU is not among it: what an interface has is its own from its first moment on.

use super::link::{self, KernelError, Link, Trying};
use super::netns::Netns;
use super::rtnl::Rtnl;
use super::sysctl;
use crate::workload::{HOST_MAC, Mac, Plan};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use twill_crds::names::GATEWAY_V6;

/// What a link is a part of, by name.
#[must_use]
pub fn master<'a>(links: &'a BTreeMap<u32, Link>, link: &Link) -> Option<&'a str> {
    // One of another namespace is in no list of this one.
    link.master.map(|index| links.get(&index).map_or("an interface elsewhere", |master| &master.name))
}

/// What the kernel has beside links. Read before them: an interface that goes meanwhile is then not taken for one that lacks something.
pub struct Seen {
    /// Links with the address that IPv6 pods route through, by index.
    gateways: BTreeSet<u32>,
    /// Who is behind which link.
    behind: BTreeSet<(u32, IpAddr)>,
}

impl Seen {
    /// Reads it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read(rtnl: &mut Rtnl) -> Result<Self, KernelError> {
        let all = link::addresses(rtnl)?.into_iter();
        let gateways = all.filter(|(_, address)| *address == IpAddr::V6(GATEWAY_V6)).map(|(index, _)| index).collect();
        Ok(Self { gateways, behind: link::permanent_neighbours(rtnl)? })
    }
}

/// Makes an interface that is up again what it was made to be. `master`: what it is a part of; `netns`: where its other end is, empty if that is not known. One
/// sentence for each thing that was otherwise.
///
/// # Errors
/// What the kernel said.
pub fn mend(
    rtnl: &mut Rtnl,
    seen: &Seen,
    found: &Link,
    master: Option<&str>,
    plan: &Plan,
    netns: &Path,
) -> Result<Vec<String>, KernelError> {
    let name = &found.name;
    let mut was = Vec::new();
    // First: what the pod sends comes in by the bridge until then, where nobody knows it for a pod's.
    if let Some(master) = master {
        link::take_out(rtnl, found, master)?;
        was.push(format!("it was a part of {master}"));
    }
    if found.mac != Some(HOST_MAC) {
        link::set_mac(rtnl, found, HOST_MAC)?;
        was.push("it had another MAC address".to_owned());
    }
    let settings = sysctl::workload_differs(name, &found.settings, plan.ipv6());
    if !settings.is_empty() {
        sysctl::workload(name, plan.ipv6()).trying(|| format!("putting the settings of interface {name} right"))?;
        was.extend(settings);
    }
    // The last thing that an interface gets, so by it a later felix knows that this one is whole.
    if found.alias != plan.alias {
        link::set_alias(rtnl, plan)?;
        was.push(format!("it had the alias {:?}", found.alias));
    }
    if plan.ipv6() && !seen.gateways.contains(&found.index) {
        link::add_gateway(rtnl, found.index, name)?;
        was.push(format!("it had lost {GATEWAY_V6}"));
    }
    let lost = plan.addresses.iter().filter(|address| !seen.behind.contains(&(found.index, **address)));
    let lost: Vec<IpAddr> = lost.copied().collect();
    // Without them the kernel asks the pod, which answers: nothing hangs on a namespace that cannot be entered.
    if let (false, Some(mac)) = (lost.is_empty(), mac_inside(netns, &plan.pod_name)) {
        for address in lost {
            link::add_behind(rtnl, found, address, mac)?;
            was.push(format!("it had lost its neighbour {address}"));
        }
    }
    Ok(was)
}

/// The MAC address of the pod's end: which one its runtime asked for is not kept.
fn mac_inside(netns: &Path, ifname: &str) -> Option<Mac> {
    let netns = Netns::open(netns).ok()?;
    let inside = netns.run(|| link::by_name(&mut Rtnl::open().ok()?, ifname).ok()?);
    inside.ok()??.mac
}
