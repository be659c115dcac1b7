//! What others have on this node: links, chains, network configurations, ports.

use crate::args::Install;
use crate::fitness::{others, ports};
use anyhow::Context;
use std::fs;
use std::os::unix::net::UnixStream;
use twill_crds::names::BGPD_SOCKET;
use twill_felix::io::conflist::Conflist;
use twill_felix::io::link::{self, Link};
use twill_felix::io::nft;

/// State `TCP_LISTEN` as the kernel writes it.
const LISTEN: &str = "0A";

/// Networks and firewalls of others, beside these links.
///
/// # Errors
/// The runtime's directory cannot be read.
pub(crate) fn others(args: &Install, links: &[Link]) -> anyhow::Result<others::Facts> {
    let conflists = Conflist::new(&args.cni_conf_dir, &args.node.run_dir).preferred().map_err(anyhow::Error::msg)?;
    let (chains, unreadable) = match nft::others() {
        Ok(chains) => (chains, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let tables = ["ip_tables_names", "ip6_tables_names"].map(|file| lines(&format!("/proc/net/{file}")));
    Ok(others::Facts {
        conflists,
        links: links.iter().map(|link: &Link| link.name.clone()).collect(),
        chains,
        unreadable,
        legacy_tables: tables.into_iter().flatten().collect(),
    })
}

/// Ports in use.
///
/// # Errors
/// Netlink does not answer.
pub(crate) fn ports(args: &Install) -> anyhow::Result<ports::Facts> {
    let sockets = ["tcp", "tcp6"].map(|file| lines(&format!("/proc/net/{file}")));
    let listening = |line: String| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
        (state == LISTEN).then(|| local.to_owned())
    };
    Ok(ports::Facts {
        listeners: sockets.into_iter().flatten().filter_map(listening).collect(),
        own_bgpd: UnixStream::connect(args.node.run_dir.join(BGPD_SOCKET)).is_ok(),
        vxlan_devices: twill_bgpd::io::netlink::vxlan_ports().context("netlink does not answer")?,
    })
}

/// All links of this namespace.
///
/// # Errors
/// Netlink does not answer.
pub(crate) fn links() -> anyhow::Result<Vec<Link>> {
    let mut rtnl = twill_felix::io::rtnl::Rtnl::open().context("netlink cannot be opened")?;
    Ok(link::all(&mut rtnl)?)
}

/// A file that is not there has none.
fn lines(path: &str) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
