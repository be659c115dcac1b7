//! Tries the kernel in a network namespace that goes afterwards, with the daemons' own code.

use crate::fitness::kernel::Facts;
use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, unshare};
use std::net::{IpAddr, Ipv4Addr};
use twill_felix::io::{conntrack, nft};

/// What the kernel has.
///
/// # Errors
/// A sentence: no network namespace can be made.
pub(crate) fn kernel() -> anyhow::Result<Facts> {
    // A thread of its own, which leaves this process's namespace for good.
    std::thread::scope(|scope| {
        let trial = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("no network namespace can be made to try the kernel in; run this as root, on the node")?;
            tried()
        });
        trial.join().unwrap_or_else(|_| Err(anyhow!("the trial of the kernel has ended early")))
    })
}

fn tried() -> anyhow::Result<Facts> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let table = runtime.block_on(nft::trial()).map_err(|error| error.to_string());
    // Of nobody (RFC 5737), so that all are listed and none is forgotten.
    let connections = conntrack::forget_addresses(&[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))]);
    let routes = twill_bgpd::io::netlink::trial().context("netlink does not answer")?;
    let works = |words: Option<String>| words.map_or(Ok(()), Err);
    Ok(Facts {
        table,
        conntrack: connections.map(drop).map_err(|error| error.to_string()),
        vxlan: works(routes.vxlan),
        ipip: works(routes.ipip),
        multipath: works(routes.multipath),
        ipv6: works(routes.ipv6),
    })
}
