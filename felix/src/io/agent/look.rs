//! A look at the kernel's connections, and which of them policy forbids.
//!
//! Cutting and its forecast are both made of this, so that what is foretold is what happens.

use crate::compile::Compiler;
use crate::cut::{Judge, Suspects};
use crate::io::conntrack::{self, Connection};
use crate::io::link::{self, KernelError, Trying};
use crate::io::rtnl::Rtnl;
use crate::ruleset::{Delta, Key, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// This node's workloads: names of their interfaces, and what they send from.
#[derive(Clone, Debug, Default)]
pub(super) struct Workloads(Vec<(String, Vec<IpAddr>)>);

impl Workloads {
    pub(super) fn new(all: impl IntoIterator<Item = (String, Vec<IpAddr>)>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Each with its addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = IpAddr>)> {
        self.0.iter().map(|(ifname, addresses)| (ifname.as_str(), addresses.iter().copied()))
    }

    /// The addresses of all.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.0.iter().flat_map(|(_, addresses)| addresses.iter().copied()).collect()
    }

    /// Whom a delta may forbid something, once it is in the kernel.
    pub(super) fn suspects(&self, delta: &Delta, ruleset: &Ruleset) -> Suspects {
        let by_key: BTreeMap<Key, &Vec<IpAddr>> =
            self.0.iter().map(|(ifname, addresses)| (Key::interface(ifname), addresses)).collect();
        Suspects::after(delta, ruleset, |key| by_key.get(key).copied().cloned().unwrap_or_default())
    }
}

/// What a look found.
#[derive(Debug)]
pub struct Look {
    /// Connections of suspects.
    found: Vec<Connection>,
    /// The host's own addresses.
    host: BTreeSet<IpAddr>,
    took: Duration,
}

impl Look {
    /// Looks at the connections of suspects that have an end at one of these addresses. Takes time with the number of all.
    pub(super) fn at(suspects: &Suspects, local: &BTreeSet<IpAddr>) -> Result<Self, KernelError> {
        let begun = Instant::now();
        let ours = |ends: [IpAddr; 2]| ends.iter().any(|end| local.contains(end));
        let found = conntrack::find(|one| ours(one.flow.ends()) && suspects.holds(one.flow.ends()))?;
        let mut host = BTreeSet::new();
        if !found.is_empty() {
            let mut rtnl = Rtnl::open().trying(|| "opening a netlink socket".to_owned())?;
            host.extend(link::addresses(&mut rtnl)?.into_iter().map(|(_, address)| address));
        }
        Ok(Self { found, host, took: begun.elapsed() })
    }

    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// Judges what it found by a ruleset, which follows from what this compiler knows.
    pub(super) fn judge<'a>(
        &'a self,
        ruleset: &'a Ruleset,
        compiler: &Compiler,
        workloads: &'a Workloads,
    ) -> Judge<'a> {
        let live = workloads.iter().filter(|(ifname, _)| compiler.is_live(ifname));
        Judge::new(ruleset, live, &self.host)
    }

    /// Those that a judge forbids. What belongs to another connection goes with that one, and is not judged.
    pub(super) fn forbidden(&self, judge: &Judge<'_>) -> Vec<Connection> {
        self.found.iter().filter(|one| !one.expected && judge.forbids(&one.flow)).cloned().collect()
    }
}
