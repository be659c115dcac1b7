//! What the reference plugins' repository asks of a whole chain in its integration tests, with our type in the place of `ptp` and `bridge`.

use crate::libcni::Network;
use crate::{World, ips};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use twill_lab::io::netns;

const LIMIT: Duration = Duration::from_secs(30);
/// Several times what a bucket holds.
const BYTES: usize = 100_000;

/// Limits that the network's configuration has for all of its pods, in bits.
fn bandwidth() -> Value {
    json!({"type": "bandwidth", "ingressRate": 400_000, "ingressBurst": 80_000, "egressRate": 400_000, "egressBurst": 80_000})
}

/// Sends from node n1 to a server that sends it back, and says how long that took.
fn echo(world: &World, netns_name: &str, address: &str) -> Duration {
    let at = SocketAddr::new(address.parse().unwrap(), 7);
    let listener = netns::inside(netns_name, || Ok(TcpListener::bind(at)?)).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let node = world.lab.status().unwrap().nodes.into_iter().find(|node| node.name == "n1").unwrap().netns;
    let began = Instant::now();
    let mut client = netns::inside(&node, || Ok(TcpStream::connect_timeout(&at, LIMIT)?)).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let sent = vec![b'a'; BYTES];
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut came = Vec::new();
    client.read_to_end(&mut came).unwrap();
    server.join().unwrap();
    assert!(came == sent, "{} bytes came back", came.len());
    began.elapsed()
}

#[test]
#[ignore = "needs root: make test"]
fn alone_and_before_bandwidth_a_network_is_added_and_deleted() {
    let world = World::new("basic");
    let (ns, container) = world.pod("plain");
    let before = world.inside(&["ip", "-o", "link"]).lines().count();
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        for more in [None, Some(bandwidth())] {
            let plugins = [world.runtime.ours()].into_iter().chain(more).collect();
            let network = world.network(version, plugins);
            let given = ips(&world.runtime.add(&network, &container).unwrap());
            let inside = ns.run(&["ip", "addr"]);
            assert!(given[0].starts_with("10.42.") && given[1].starts_with("fd42:"), "{given:?}");
            assert!(given.iter().all(|address| inside.contains(address)), "{inside}");
            world.runtime.del(&network, &container).unwrap();
            assert!(!ns.run(&["ip", "addr"]).contains("eth0"), "{version}");
            assert_eq!((world.held().len(), world.inside(&["ip", "-o", "link"]).lines().count()), (0, before));
        }
    }
}

#[test]
#[ignore = "needs root: make test"]
fn bandwidth_in_a_chain_slows_the_pods_of_that_chain_and_no_others() {
    let world = World::new("slow");
    let (limited, free) = (world.pod("limited"), world.pod("free"));
    let slow = Network { name: "slow".into(), version: "1.0.0", plugins: vec![world.runtime.ours(), bandwidth()] };
    let fast = world.network("1.0.0", vec![world.runtime.ours()]);
    let result = world.runtime.add(&slow, &limited.1).unwrap();
    let names = [&result["interfaces"][0]["name"], &result["interfaces"][1]["name"]];
    assert!(
        names[0].as_str().unwrap().starts_with("twl") && names[1] == "eth0",
        "the chain is told both ends: {result}"
    );
    let limited_at = ips(&result);
    let free_at = ips(&world.runtime.add(&fast, &free.1).unwrap());
    for family in [0, 1] {
        let with = echo(&world, &limited.0.0, &limited_at[family]);
        let without = echo(&world, &free.0.0, &free_at[family]);
        println!("{BYTES} bytes and back: {with:.1?} with limits, {without:.1?} without");
        assert!(with > without + Duration::from_secs(1), "{with:?} {without:?}");
    }
    world.runtime.check(&slow, &limited.1).unwrap();
    world.runtime.del(&slow, &limited.1).unwrap();
    world.runtime.del(&fast, &free.1).unwrap();
    assert_eq!((world.held().len(), world.interfaces()), (0, 0));
}
