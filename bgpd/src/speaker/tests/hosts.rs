//! Workloads with addresses outside of the speaker's own blocks.

use super::*;
use crate::fib::Hosts;

const MOVED: &str = "10.3.0.9/32";

impl Net {
    fn host(&mut self, node: u8, prefixes: &[&str], complete: bool) {
        let hosts = Hosts { prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(), complete };
        let now = self.now;
        self.nodes.get_mut(&node).unwrap().speaker.handle(Event::Hosts(hosts), now);
        self.settle();
    }

    fn hears(&self, node: u8, prefix: &str) -> Vec<String> {
        self.used(node).into_iter().filter(|route| route.starts_with(prefix)).collect()
    }
}

#[test]
fn what_moved_here_is_told_while_it_is_here_whoever_else_tells_it() {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.reconfigure(2, |config| config.exclusive = true);
    net.host(2, &[MOVED], true);
    assert_eq!(net.hears(1, MOVED), ["10.3.0.9/32 via 10.0.0.2 65002"]);
    assert_eq!(net.hears(3, MOVED), ["10.3.0.9/32 via 10.0.0.2 65002"], "the owner of the block, too");
    net.host(2, &[], true);
    assert!(net.hears(1, MOVED).is_empty() && net.hears(3, MOVED).is_empty());
    net.host(3, &[MOVED], true);
    assert_eq!(net.hears(1, MOVED), ["10.3.0.9/32 via 10.0.0.3 65002 65003"]);
    net.host(2, &[MOVED], true);
    assert_eq!(net.hears(1, MOVED), ["10.3.0.9/32 via 10.0.0.2 65002"], "before its former node has withdrawn it");
    assert!(net.nodes[&2].speaker.problems().is_empty());
    net.reconfigure(2, |config| config.originate.clear());
    assert_eq!(net.hears(1, MOVED).len(), 1, "no configuration takes it away");
}

#[test]
fn end_of_rib_waits_until_the_kernel_has_said_which_workloads_are_here() {
    let mut net = Net::new(&[(1, 65001), (2, 65002)], &[(1, 2)], |_, _, _| ());
    net.host(2, &[MOVED], true);
    assert_eq!(net.hears(1, MOVED).len(), 1);
    net.restart(2);
    let now = net.now;
    let node = net.nodes.get_mut(&2).unwrap();
    node.speaker = Speaker::new(true, true, now);
    node.speaker.handle(Event::Plan(Arc::clone(&node.plan)), now);
    net.connect(1, 2);
    net.settle();
    let hops = net.nodes.get_mut(&2).unwrap().speaker.next_hops().unwrap_or_default();
    let costs = hops.into_iter().map(|hop| (hop, Some(0))).collect();
    net.nodes.get_mut(&2).unwrap().speaker.handle(Event::Costs(costs), now);
    net.host(2, &[], false);
    assert_eq!(net.hears(1, MOVED).len(), 1, "by a snapshot it is not known yet");
    net.host(2, &[MOVED], true);
    assert_eq!(net.hears(1, MOVED).len(), 1);
    net.host(2, &[], true);
    assert!(net.hears(1, MOVED).is_empty());
}
