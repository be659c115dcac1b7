//! Takes away what felix leaves on a node when it ends: workload interfaces, local routes, connections of their addresses, the table.
//!
//! In flows the kernel as it is, out flow deletes. Nothing is remembered, so what an interrupted removal has left, the next one finds. The
//! table goes last: a workload is guarded as long as it has an interface.

use crate::io::calls::Tombstones;
use crate::io::link::{self, KernelError, Link, Trying};
use crate::io::rtnl::Rtnl;
use crate::io::{conntrack, nft, route, shaping};
use crate::workload::{HOST_MAC, from_alias, is_interface_name};
use nix::errno::Errno;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use twill_crds::names::FELIX_SOCKET;

/// How long the kernel may take to part the table from a felix that has just ended.
const OWNER_PATIENCE: Duration = Duration::from_secs(5);

/// What was taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Workload interfaces.
    pub interfaces: usize,
    /// Local routes.
    pub routes: usize,
    /// Tables: one or none.
    pub tables: usize,
    /// What is still there and why, one sentence each.
    pub problems: Vec<String>,
}

/// Removes what felix made from the calling thread's network namespace. felix must have ended. What it set for the whole node
/// ([`crate::io::sysctl::node`]) stays: what was before is not known, and others may need it by now.
#[must_use]
pub fn remove() -> Removed {
    let mut removed = Removed::default();
    if let Err(error) = workloads_and_routes(&mut removed) {
        removed.problems.push(error.to_string());
    }
    match nft::remove(OWNER_PATIENCE) {
        Ok(there) => removed.tables = usize::from(there),
        Err(error) if error.is_refused_with(Errno::EPERM) => removed.problems.push(
            "table inet twill belongs to another living process, which nft list table inet twill names; end it first"
                .to_owned(),
        ),
        // A kernel without nf_tables has no table.
        Err(nft::Error::Io(error)) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {}
        Err(error) => removed.problems.push(format!("table inet twill is still there: {error}")),
    }
    removed
}

/// The workload interfaces in the calling thread's network namespace: by felix's alias, whatever their name, or by name and hardware
/// address where felix died before it gave one its alias.
///
/// # Errors
/// What the kernel said.
pub fn workloads() -> Result<Vec<Link>, KernelError> {
    let mut links = link::all(&mut open()?)?;
    links.retain(is_workload);
    Ok(links)
}

/// Identity of this machine's store of addresses: from its directory, or from the interfaces that it attached.
#[must_use]
pub fn claimant(state_dir: &Path) -> Option<String> {
    let attached =
        || workloads().ok()?.iter().find_map(|link| crate::workload::claimant(&link.alias).map(str::to_owned));
    twill_ipam::io::identity::kept(&store_dir(state_dir)).or_else(attached)
}

/// The files that felix makes, as far as they are there.
///
/// # Errors
/// The directory of the store cannot be read.
pub fn files(run_dir: &Path, state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = twill_ipam::io::store::files(&store_dir(state_dir))?;
    files.push(run_dir.join(FELIX_SOCKET));
    files.push(super::host::kept::path(state_dir));
    files.extend(super::memory::files(state_dir));
    files.extend(Tombstones::of(state_dir, run_dir).files());
    Ok(files)
}

/// Directory of the store of addresses inside the state directory.
#[must_use]
pub fn store_dir(state_dir: &Path) -> PathBuf {
    state_dir.join(twill_ipam::io::store::DIRECTORY)
}

fn is_workload(link: &Link) -> bool {
    let half_made = link.alias.is_empty() && is_interface_name(&link.name) && link.mac == Some(HOST_MAC);
    link.veth && (from_alias(&link.alias).is_some() || half_made)
}

fn workloads_and_routes(removed: &mut Removed) -> Result<(), KernelError> {
    let mut rtnl = open()?;
    let addresses: Vec<IpAddr> = route::locals(&mut rtnl)?.into_keys().collect();
    for workload in workloads()? {
        match link::delete(&mut rtnl, &workload.name) {
            Ok(there) => removed.interfaces += usize::from(there),
            Err(error) => removed.problems.push(error.to_string()),
        }
    }
    for link in link::all(&mut rtnl)? {
        let Some(host_name) = shaping::whose(&link.name) else { continue };
        if let Err(error) = shaping::remove(&mut rtnl, &host_name) {
            removed.problems.push(error.to_string());
        }
    }
    // Most went with their interfaces.
    for address in route::locals(&mut rtnl)?.into_keys() {
        if let Err(error) = route::delete(&mut rtnl, address) {
            removed.problems.push(error.to_string());
        }
    }
    removed.routes = addresses.len().saturating_sub(route::locals(&mut rtnl)?.len());
    // They would end by themselves, but whoever gets such an address next should not inherit them until then.
    if let Err(error) = conntrack::forget_addresses(&addresses) {
        tracing::warn!(%error, "connections of pods are not forgotten; they end by themselves");
    }
    Ok(())
}

fn open() -> Result<Rtnl, KernelError> {
    Rtnl::open().trying(|| "opening a netlink socket".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, alias: &str, mac: [u8; 6], veth: bool) -> Link {
        Link {
            index: 7,
            name: name.into(),
            alias: alias.into(),
            mac: Some(mac),
            mtu: 1500,
            up: true,
            veth,
            loopback: false,
            master: None,
            settings: Default::default(),
        }
    }

    #[test]
    fn a_workload_is_known_by_its_alias_and_a_half_made_one_by_name_and_hardware_address() {
        let alias = "twill:11111111-2222-3333-4444-555555555555/eth0/0123456789abcdef";
        let (name, other) = ("twl60373cf9024", [2, 0, 0, 0, 0, 1]);
        for workload in
            [link(name, alias, HOST_MAC, true), link("renamed", alias, other, true), link(name, "", HOST_MAC, true)]
        {
            assert!(is_workload(&workload), "{workload:?}");
        }
        for foreign in [
            link(name, "", other, true),
            link(name, "uplink", HOST_MAC, true),
            link(name, "", HOST_MAC, false),
            link("twl0", "", HOST_MAC, true),
            link("eth0", "", HOST_MAC, true),
        ] {
            assert!(!is_workload(&foreign), "{foreign:?}");
        }
    }
}
