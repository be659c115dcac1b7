//! A greater MTU waits, a smaller one does not.

use super::*;

/// A table with a route through the tunnel, and one by a router, at an MTU of the default route and of the way to that router.
fn written() -> Table {
    let mut table = table(config(Protocol::VXLAN, When::CrossSubnet));
    table.apply(vec![change("10.42.3.0/26", &["172.31.2.11"]), change("10.99.0.0/24", &["192.0.2.7"])]);
    assert_eq!(table.difference().len(), 3);
    table
}

fn with_mtu(mtu: Option<u32>) -> World {
    let mut world = world();
    world.routes = Default::default();
    for (prefix, gateway, mtu) in [
        ("172.31.1.0/24", None, None),
        ("0.0.0.0/0", Some("172.31.1.1"), mtu),
        ("192.0.2.0/24", Some("172.31.1.9"), mtu),
    ] {
        let ways = vec![Way { gateway: gateway.map(ip), link: UPLINK }];
        world.routes.insert(ForeignRoute { prefix: net(prefix), metric: 0, mtu, ways });
    }
    world
}

/// MTUs that are written, by prefix.
fn mtus(table: &mut Table) -> Vec<(String, Option<u32>)> {
    let mut mtus: Vec<_> = table
        .difference()
        .into_iter()
        .filter_map(|step| match step {
            Step::Replace(prefix, METRIC_LEARNED, forward) => match forward.as_ref() {
                Forward::Unicast { mtu, .. } => Some((prefix.to_string(), *mtu)),
                Forward::Unreachable => None,
            },
            _ => None,
        })
        .collect();
    mtus.sort();
    mtus
}

fn both(tunnel: u32, plain: Option<u32>) -> Vec<(String, Option<u32>)> {
    vec![("10.42.3.0/26".to_owned(), Some(tunnel)), ("10.99.0.0/24".to_owned(), plain)]
}

#[test]
fn an_mtu_that_goes_up_and_down_is_written_once_until_it_has_stood() {
    let mut table = written();
    for round in 0..10 {
        table.set_world(with_mtu(Some(1400)));
        assert_eq!(mtus(&mut table), if round == 0 { both(1350, Some(1400)) } else { vec![] }, "{round}");
        assert!(!table.waits_to_raise());
        table.set_world(with_mtu(None));
        assert_eq!(mtus(&mut table), []);
        assert!(table.waits_to_raise());
    }
    table.raise();
    assert_eq!(mtus(&mut table), both(1450, None));
    assert!(!table.waits_to_raise());
    // Between the two is more than the kernel has.
    for (mtu, expected) in [(1300, both(1250, Some(1300))), (1400, vec![]), (1200, both(1150, Some(1200)))] {
        table.set_world(with_mtu(Some(mtu)));
        assert_eq!(mtus(&mut table), expected, "{mtu}");
    }
}

#[test]
fn what_is_new_or_goes_another_way_has_its_mtu_at_once_and_what_goes_waits_for_nothing() {
    let mut table = written();
    table.set_world(with_mtu(Some(1400)));
    mtus(&mut table);
    table.set_world(with_mtu(None));
    table.apply(vec![change("10.42.4.0/26", &["172.31.2.11"]), change("10.99.0.0/24", &["172.31.1.12"])]);
    assert_eq!(mtus(&mut table), [("10.42.4.0/26".to_owned(), Some(1450)), ("10.99.0.0/24".to_owned(), None)]);
    assert!(table.waits_to_raise());
    table.apply(vec![change("10.42.3.0/26", &[])]);
    assert_eq!(table.difference(), [Step::Delete(net("10.42.3.0/26"), METRIC_LEARNED)]);
    assert!(!table.waits_to_raise());
    table.raise();
    assert_eq!(table.difference(), []);
}
