//! Which links are to take packets whose way back is another one.

use super::*;
use crate::fib::world::ReversePath;

/// What is made loose where the kernel is strict with every link.
fn made_loose(config: &Config) -> Vec<String> {
    let mut world = world();
    world.links.values_mut().for_each(|link| link.reverse_path = ReversePath::Strict);
    let name = |step| match step {
        tunnel::Step::Loosen(_, name) => Some(name),
        _ => None,
    };
    tunnel::additions(config, &world, &BTreeMap::new()).into_iter().filter_map(name).collect()
}

#[test]
fn the_uplink_is_let_be_where_nothing_is_sent_through_a_tunnel_and_other_links_always() {
    let uplink = world().links[&UPLINK].name.clone();
    let vxlan = config(Protocol::VXLAN, When::CrossSubnet);
    assert_eq!(made_loose(&vxlan), ["twill-vxlan", "twill-ipip", uplink.as_str()]);
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
