//! Network namespaces joined by a cable each, without a subnet on it: what unnumbered peers are on.

use super::segment::{Namespaces, ip};

/// The first member, with a cable to each of the others: `eth0` to the second, `eth1` to the third; on their side it is `eth0`.
///
/// The only addresses are those of `lo`, 10.99.255.N and fd99:255::N for the N-th member, and link-local ones: fe80::ff:fe00:10N on the
/// first member's `ethN`, fe80::ff:fe00:20N on the N-th member's `eth0`.
pub(crate) struct Wires {
    namespaces: Namespaces,
    others: Vec<String>,
}

impl Wires {
    pub(crate) fn new(members: &[&str]) -> Self {
        let mut namespaces = Namespaces::new();
        for (number, member) in (1..).zip(members) {
            let netns = namespaces.add(member);
            ip(&format!("-n {netns} address add 10.99.255.{number}/32 dev lo"));
            ip(&format!("-n {netns} address add fd99:255::{number}/128 dev lo"));
        }
        let hub = namespaces.netns(members[0]);
        for (number, member) in (0..).zip(&members[1..]) {
            let netns = namespaces.netns(member);
            ip(&format!(
                "-n {hub} link add eth{number} address 02:00:00:00:01:0{number} type veth peer name eth0 address 02:00:00:00:02:0{} netns {netns}",
                number + 2
            ));
            ip(&format!("-n {hub} link set eth{number} up"));
            ip(&format!("-n {netns} link set eth0 up"));
        }
        Self { namespaces, others: members[1..].iter().map(|member| (*member).to_owned()).collect() }
    }

    pub(crate) fn netns(&self, member: &str) -> String {
        self.namespaces.netns(member)
    }

    /// Takes the cable of a member out on its side, or puts it in.
    pub(crate) fn cable(&self, member: &str, there: bool) {
        assert!(self.others.iter().any(|other| other == member), "steps.yaml: {member} has no cable of its own");
        ip(&format!("-n {} link set eth0 {}", self.netns(member), if there { "up" } else { "down" }));
    }
}
