//! How many routes the kernel has, by its own statistics: nothing has to be dumped or followed.

use super::peers::Heard;
use anyhow::Context;
use std::time::{Duration, Instant};

/// How often the kernel is asked. It walks all routes for the answer, a few milliseconds for 100,000.
const PAUSE: Duration = Duration::from_millis(10);

/// IPv4 prefixes in the main table of the caller's network namespace.
pub(crate) fn prefixes() -> anyhow::Result<u32> {
    let text =
        std::fs::read_to_string("/proc/thread-self/net/fib_triestat").context("the kernel has no FIB statistics")?;
    let main = text.split_once("Main:").context("no main table in fib_triestat")?.1;
    let line =
        main.lines().find_map(|line| line.trim().strip_prefix("Prefixes:")).context("no count in fib_triestat")?;
    Ok(line.trim().parse()?)
}

/// Waits until there are so many more than `before`, or for so long.
pub(crate) fn fill(before: u32, total: u32, limit: Duration) -> anyhow::Result<Heard> {
    let deadline = Instant::now() + limit;
    loop {
        let distinct = prefixes()?.saturating_sub(before);
        let at = Instant::now();
        if distinct >= total || at > deadline {
            return Ok(Heard { at, distinct, updates: 0 });
        }
        std::thread::sleep(PAUSE);
    }
}
