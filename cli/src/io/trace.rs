//! Packets of a connection, as the kernel of this node tells of them for a while.

use anyhow::Context;
use std::time::{Duration, Instant};
use twill_felix::io::nft::{self, Filter};
use twill_felix::trace::{Journey, Journeys};

/// A packet of which nothing has been told for this long has left the tables behind.
const QUIET: Duration = Duration::from_millis(200);

/// Hands each packet to `each`, once its way has ended, until the time is over or `each` says that it is enough.
pub(crate) fn watch(
    filters: &[Filter],
    lasts: Duration,
    mut each: impl FnMut(&Journey) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let why = "packets cannot be traced here; this needs root on the node, and a kernel with nftrace";
    let mut trace = nft::Trace::start(filters, lasts).context(why)?;
    let end = Instant::now() + lasts;
    let mut journeys = Journeys::new(trace.table(), nft::comments().context(why)?);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let event = match trace.next(left.min(QUIET)) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => None,
            other => other.context("the kernel tells of packets no more")?,
        };
        let now = Instant::now();
        event.into_iter().for_each(|event| journeys.take(event, now));
        for journey in &journeys.ended(if left.is_zero() { now } else { now.checked_sub(QUIET).unwrap_or(now) }) {
            if !each(journey)? {
                return Ok(());
            }
        }
        if left.is_zero() {
            return Ok(());
        }
    }
}

/// Name of an interface; one that has gone has its number.
pub(crate) fn interface(index: u32) -> String {
    let name = nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| index.to_string())
}
