//! Where IP-in-IP leads.

use super::*;
use crate::fib::{End, Ends};

fn ends(config: Config, routes: &[(&str, &[&str])]) -> Ends {
    let mut table = table(config);
    table.apply(routes.iter().map(|(prefix, hops)| change(prefix, hops)).collect());
    table.difference();
    table.ends()
}

#[test]
fn ends_are_nodes_that_blocks_are_reached_at_by_ip_in_ip() {
    let routes: &[(&str, &[&str])] = &[
        ("10.42.3.64/26", &["172.31.2.11"]),
        ("10.42.3.0/26", &["172.31.2.11"]),
        ("10.42.2.0/26", &["172.31.1.12"]),
        // A pod's own address; one of several ways; not in a pool.
        ("10.42.9.9/32", &["172.31.7.12"]),
        ("10.42.8.0/26", &["172.31.2.11", "172.31.7.12"]),
        ("192.0.2.0/24", &["172.31.2.11"]),
    ];
    let end = |node: &str, outer: &str, inner: &str| End {
        node: node.to_owned(),
        outer: outer.parse().unwrap(),
        inner: inner.parse().unwrap(),
    };
    let (n2, n3) = (end("n2", "172.31.1.12", "10.42.2.0"), end("n3", "172.31.2.11", "10.42.3.0"));
    let always = ends(config(Protocol::IPIP, When::Always), routes);
    assert_eq!(always.others, [n2, n3.clone()]);
    assert_eq!((always.outer, always.inner), ("172.31.1.11".parse().ok(), "10.42.1.0".parse().ok()));
    assert_eq!(always.pools, ["default"]);
    assert_eq!(ends(config(Protocol::IPIP, When::CrossSubnet), routes).others, [n3]);
    assert_eq!(ends(config(Protocol::VXLAN, When::Always), routes).others, []);
    assert_eq!(ends(config(Protocol::None, When::Always), routes).others, []);
}
