//! Which links are to take packets whose way back is another one.

use super::*;
use crate::fib::world::ReversePath;

/// What is made loose where the kernel is strict with every link.
fn made_loose(config: &Config) -> Vec<String> {
    made_loose_in(config, world())
}

fn made_loose_in(config: &Config, mut world: World) -> Vec<String> {
    world.links.values_mut().for_each(|link| link.reverse_path = ReversePath::Strict);
    let name = |step| match step {
        tunnel::Step::Loosen(_, name) => Some(name),
        _ => None,
    };
    tunnel::additions(config, &world, &BTreeMap::new()).into_iter().filter_map(name).collect()
}

#[test]
fn uplinks_are_let_be_where_nothing_is_sent_through_a_tunnel_and_other_links_always() {
    let mut vxlan = config(Protocol::VXLAN, When::CrossSubnet);
    assert_eq!(made_loose(&vxlan), ["twill-vxlan", "twill-ipip", "eth0", "eth1"]);
    // No other node is reached by the second.
    vxlan.nodes.retain(|node| node.name != "n4");
    assert_eq!(made_loose(&vxlan), ["twill-vxlan", "twill-ipip", "eth0"]);
    let mut six = vxlan.clone();
    six.pools[0].cidr = net("fd42::/64");
    // The devices hear of others' tunnels before this node has one.
    for config in [config(Protocol::None, When::Always), six] {
        assert_eq!(made_loose(&config), ["twill-vxlan", "twill-ipip"]);
    }
    let alone = Config { alone: true, ..vxlan.clone() };
    let reads_only = Config { install: false, ..vxlan.clone() };
    let mut no_address = vxlan;
    no_address.local.v4 = None;
    for config in [alone, reads_only, no_address] {
        assert_eq!(made_loose(&config), [""; 0]);
    }
}

#[test]
fn an_address_on_the_loopback_does_not_hide_the_uplinks() {
    let mut routed = world();
    routed.addresses.remove(&(UPLINK, net("172.31.1.11/24")));
    routed.addresses.insert((1, net("172.31.1.11/32")));
    routed.links.insert(1, Link { loopback: true, ..link(1, "lo", 65_536, LinkKind::Other) });
    let config = config(Protocol::VXLAN, When::CrossSubnet);
    assert_eq!(made_loose_in(&config, routed), ["twill-vxlan", "twill-ipip", "eth0", "eth1"]);
}
