//! Network namespaces on one segment.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use twill_e2e::succeeded;

/// Namespaces that go with the value.
pub(crate) struct Namespaces {
    prefix: String,
    names: Vec<String>,
}

impl Namespaces {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("twint-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { prefix, names: Vec::new() }
    }

    /// Makes that of a member; its name.
    pub(crate) fn add(&mut self, member: &str) -> String {
        let netns = self.netns(member);
        ip(&format!("netns add {netns}"));
        self.names.push(netns.clone());
        ip(&format!("-n {netns} link set lo up"));
        netns
    }

    /// Name of a member's namespace.
    pub(crate) fn netns(&self, member: &str) -> String {
        format!("{}-{member}", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for netns in &self.names {
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
    }
}

/// Namespaces of a scenario, each with `eth0` on the same bridge.
pub(crate) struct Segment {
    namespaces: Namespaces,
}

impl Segment {
    /// A namespace per member; the first has 10.99.0.1 and fd99::1, and so on.
    pub(crate) fn new(members: &[&str]) -> Self {
        let mut namespaces = Namespaces::new();
        let lan = namespaces.add("lan");
        ip(&format!("-n {lan} link add br0 type bridge"));
        ip(&format!("-n {lan} link set br0 up"));
        for (host, member) in (1..).zip(members) {
            let netns = namespaces.add(member);
            ip(&format!("-n {netns} link add eth0 type veth peer name p{host} netns {lan}"));
            ip(&format!("-n {lan} link set p{host} master br0 up"));
            ip(&format!("-n {netns} address add 10.99.0.{host}/24 dev eth0"));
            ip(&format!("-n {netns} address add fd99::{host}/64 dev eth0 nodad"));
            ip(&format!("-n {netns} link set eth0 up"));
        }
        Self { namespaces }
    }

    /// Name of a member's namespace.
    pub(crate) fn netns(&self, member: &str) -> String {
        self.namespaces.netns(member)
    }
}

pub(crate) fn ip(arguments: &str) {
    succeeded(Command::new("ip").args(arguments.split_whitespace()).output().unwrap()).unwrap();
}
