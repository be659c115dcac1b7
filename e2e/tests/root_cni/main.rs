//! The plugin as a runtime calls it, beside the reference plugins: all verbs of all versions, chains, address plugins both ways, and calls
//! that are killed.
//!
//! ```text
//!  n1: felix, twill-cni, reference plugins ── router ── n2
//!   └ namespaces of the test, each with a Pod that the lab does not attach
//! ```
#![allow(clippy::unwrap_used)]

mod cnitool;
mod integration;
mod libcni;
#[path = "../support/mod.rs"]
mod support;

use libcni::{Container, Network, Runtime};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::{POOLS, pod};
use twill_e2e::{Lab, succeeded, within};
use twill_lab::io::netns;

const SOON: Duration = Duration::from_secs(10);

/// One rack of both families.
const RACK: &str = "apiVersion: twill.network/v1
kind: Lab
metadata: {name: test}
spec:
  racks: [{name: r1, subnets: [172.31.1.0/24, 'fd31:1::/64'], nodes: [n1, n2]}]
  resources: [pools.yaml, pods.yaml]
";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace of the test.
struct Ns(String);

impl Ns {
    fn new() -> Self {
        let ns = Self(format!("tc{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        succeeded(Command::new("ip").args(["netns", "add", &ns.0]).output().unwrap()).unwrap();
        ns.run(&["ip", "link", "set", "lo", "up"]);
        ns
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    fn run(&self, command: &[&str]) -> String {
        succeeded(Command::new("ip").args(["netns", "exec", &self.0]).args(command).output().unwrap()).unwrap()
    }

    fn pings(&self, address: &str) -> bool {
        let ping = ["netns", "exec", &self.0, "ping", "-c", "1", "-W", "2", address];
        Command::new("ip").args(ping).output().unwrap().status.success()
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

struct World {
    lab: Lab,
    runtime: Runtime,
}

impl World {
    /// A lab with pod `default/peer` on n1.
    fn new(name: &str) -> Self {
        let files = [("pods.yaml", pod("peer", "n1")), ("pools.yaml", POOLS.to_owned())];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let lab = Lab::up(name, RACK, &files).unwrap();
        let runtime = Runtime::of(&lab);
        // As `twill install` has it.
        let plugin = std::fs::canonicalize(runtime.dir.join("cni-bin/twill-cni")).unwrap();
        std::os::unix::fs::symlink(plugin, runtime.dir.join("cni-bin/twill-ipam")).unwrap();
        Self { lab, runtime }
    }

    /// A namespace with a Pod, as the kubelet has it before it calls.
    fn pod(&self, name: &str) -> (Ns, Container) {
        let ns = Ns::new();
        let file = self.runtime.dir.join(format!("{name}.yaml"));
        std::fs::write(&file, pod(name, "n1")).unwrap();
        self.lab.ask("n1", &["apply", "-f", file.to_str().unwrap()]).unwrap();
        let object: Value =
            serde_json::from_str(&self.lab.ask("n1", &["get", "pod", name, "-o", "json"]).unwrap()).unwrap();
        let uid = object["metadata"]["uid"].as_str().unwrap();
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let (id, netns) = (format!("c-{name}"), ns.path());
        (ns, Container { id, netns, ifname: "eth0".into(), args, capabilities: Value::Null })
    }

    fn network(&self, version: &'static str, plugins: Vec<Value>) -> Network {
        // Another than the lab's, whose pods are not this runtime's.
        Network { name: "runtime".into(), version, plugins }
    }

    /// The addresses that felix holds, but for the lab's own pod.
    fn held(&self) -> BTreeSet<String> {
        let mut stream = UnixStream::connect(self.runtime.dir.join("felix.sock")).unwrap();
        writeln!(stream, "{{\"op\":\"addresses\"}}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let all: Vec<Value> = serde_json::from_str(&line).unwrap();
        let others = all.into_iter().filter(|one| one["pod"] != "peer");
        others.map(|one| one["address"].as_str().unwrap().to_owned()).collect()
    }

    fn inside(&self, command: &[&str]) -> String {
        self.lab.exec("n1", command).unwrap()
    }

    fn interfaces(&self) -> usize {
        self.inside(&["ip", "-o", "link"]).matches("twl").count() - 1
    }
}

fn ips(result: &Value) -> Vec<String> {
    let all = result["ips"].as_array().unwrap_or_else(|| panic!("{result}"));
    all.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs root: make test"]
fn every_version_does_all_its_verbs_and_no_others() {
    let world = World::new("verbs");
    let peer = world.lab.pod("default/peer").unwrap();
    let (ns, mut container) = world.pod("all");
    for (version, check, new) in
        [("0.3.1", false, false), ("0.4.0", true, false), ("1.0.0", true, false), ("1.1.0", true, true)]
    {
        let network = world.network(version, vec![world.runtime.ours()]);
        let runtime = &world.runtime;
        let spoken = runtime.of_network("VERSION", &network, json!({})).unwrap();
        assert_eq!(spoken["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        assert_eq!(spoken["cniVersion"], version);
        container.netns = ns.path();
        let result = runtime.add(&network, &container).unwrap();
        assert_eq!(
            (&result["cniVersion"], result["ips"][0].get("version").is_some()),
            (&json!(version), version < "1")
        );
        assert_eq!(result["interfaces"][1].get("mtu").is_some(), new, "{result}");
        assert!(peer.ips.iter().all(|address| ns.pings(address)), "{version}");
        let unknown = |outcome: Result<Value, Value>| outcome.is_err_and(|error| error["code"] == 1);
        if check {
            runtime.check(&network, &container).unwrap();
        } else {
            assert!(unknown(runtime.check(&network, &container)), "{version}");
        }
        if new {
            runtime.of_network("STATUS", &network, json!({})).unwrap();
            let valid = json!([{"containerID": container.id, "ifname": "eth0"}]);
            runtime.of_network("GC", &network, json!({"cni.dev/valid-attachments": valid})).unwrap();
            runtime.of_network("GC", &network, json!({})).unwrap();
            assert_eq!(world.held(), ips(&result).into_iter().collect());
        } else {
            assert!(unknown(runtime.of_network("STATUS", &network, json!({}))), "{version}");
            assert!(unknown(runtime.of_network("GC", &network, json!({}))), "{version}");
        }
        // Twice, and without namespace.
        runtime.del(&network, &container).unwrap();
        container.netns = String::new();
        runtime.del(&network, &container).unwrap();
        assert_eq!((world.held().len(), world.interfaces()), (0, 0), "{version}");
        container.netns = ns.path();
        let after = if check { runtime.check(&network, &container) } else { Err(json!({"code": 7})) };
        assert_eq!(after.unwrap_err()["code"], 7, "{version}: nothing is kept of it");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_chain_of_tuning_bandwidth_and_portmap_works_and_leaves_nothing() {
    let world = World::new("chain");
    let (ns, mut container) = world.pod("served");
    container.capabilities = json!({
        "portMappings": [{"hostPort": 8088, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 100_000_000, "ingressBurst": 1_000_000, "egressRate": 100_000_000, "egressBurst": 1_000_000},
        "mac": "02:aa:bb:cc:dd:01",
    });
    let before = world.inside(&["ip", "-o", "link"]).lines().count();
    for version in ["0.4.0", "1.0.0"] {
        let network = world.network(
            version,
            vec![
                world.runtime.ours(),
                json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400}),
                json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
                json!({"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}),
            ],
        );
        let result = world.runtime.add(&network, &container).unwrap();
        assert_eq!(result["ips"][0]["interface"], 1, "ours, through all of them: {result}");
        // Portmap 1.1 looks for the rules of IPv4 in IPv6's table, and finds nothing there.
        let but_portmap = world.network(version, network.plugins[..3].to_vec());
        world.runtime.check(&but_portmap, &container).unwrap();
        assert!(ns.run(&["cat", "/proc/sys/net/core/somaxconn"]).starts_with("500"));
        assert!(ns.run(&["ip", "link", "show", "eth0"]).contains("02:aa:bb:cc:dd:01"));
        let listener = netns::inside(&ns.0, || Ok(TcpListener::bind("0.0.0.0:80")?)).unwrap();
        let served = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"served").unwrap());
        let n2 = world.lab.status().unwrap().nodes.into_iter().find(|node| node.name == "n2").unwrap().netns;
        let mut said = String::new();
        let mut stream =
            netns::inside(&n2, || Ok(TcpStream::connect_timeout(&"172.31.1.11:8088".parse()?, SOON)?)).unwrap();
        stream.read_to_string(&mut said).unwrap();
        served.join().unwrap();
        assert_eq!(said, "served");
        world.runtime.del(&network, &container).unwrap();
        world.runtime.del(&network, &container).unwrap();
        assert_eq!(world.inside(&["ip", "-o", "link"]).lines().count(), before, "{version}");
        assert!(!world.inside(&["iptables-save"]).contains("8088"));
        assert_eq!(world.held().len(), 0);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn bridge_ptp_and_macvlan_get_their_addresses_from_twill_ipam() {
    let world = World::new("lend");
    let (ns, mut container) = world.pod("many");
    container.args = String::new();
    world.inside(&["ip", "link", "add", "par0", "type", "veth", "peer", "name", "par1"]);
    world.inside(&["ip", "link", "set", "par0", "up"]);
    world.inside(&["ip", "link", "set", "par1", "up"]);
    let routes = json!([{"dst": "192.0.2.0/24"}]);
    for (version, plugin, reaches_gateway) in [
        ("1.0.0", json!({"type": "bridge", "bridge": "br0", "isGateway": true}), true),
        ("0.4.0", json!({"type": "bridge", "bridge": "br0", "isGateway": true}), true),
        ("1.0.0", json!({"type": "ptp"}), true),
        ("0.3.1", json!({"type": "ptp"}), true),
        ("1.0.0", json!({"type": "macvlan", "master": "par0", "mode": "bridge"}), false),
    ] {
        let mut plugin = plugin;
        plugin["ipam"] = world.runtime.lending();
        plugin["ipam"]["routes"] = routes.clone();
        let network = Network { name: "other".into(), version, plugins: vec![plugin.clone()] };
        let result = world.runtime.add(&network, &container).unwrap_or_else(|error| panic!("{plugin}: {error}"));
        let given = ips(&result);
        assert_eq!((given.len(), world.held()), (2, given.iter().cloned().collect()), "{plugin}");
        let inside = ns.run(&["ip", "-o", "addr", "show", "dev", "eth0"]);
        assert!(given.iter().all(|address| inside.contains(address)), "{plugin}: {inside}");
        assert!(ns.run(&["ip", "route"]).contains("192.0.2.0/24"));
        if reaches_gateway {
            let gateway = result["ips"][0]["gateway"].as_str().unwrap();
            assert!(ns.pings(gateway), "{plugin} {gateway}");
        }
        if version != "0.3.1" {
            world.runtime.check(&network, &container).unwrap_or_else(|error| panic!("{plugin}: {error}"));
        }
        world.runtime.del(&network, &container).unwrap();
        assert_eq!(world.held().len(), 0, "{plugin}");
        let _ = world.lab.exec("n1", &["ip", "link", "del", "br0"]);
    }
}

#[test]
#[ignore = "needs root: make test"]
fn host_local_and_static_give_addresses_to_our_pods() {
    let world = World::new("foreign");
    let peer = world.lab.pod("default/peer").unwrap();
    let (ns, container) = world.pod("guest");
    let data = world.runtime.dir.join("host-local");
    let with = |ipam: Value| {
        let mut ours = world.runtime.ours();
        ours["ipam"] = ipam;
        world.network("1.0.0", vec![ours])
    };
    let host_local = with(json!({"type": "host-local", "dataDir": data,
        "ranges": [[{"subnet": "198.51.100.0/24"}], [{"subnet": "2001:db8::/64"}]]}));
    let fixed =
        with(json!({"type": "static", "addresses": [{"address": "198.51.100.77/24"}, {"address": "2001:db8::77/64"}],
        "dns": {"nameservers": ["198.51.100.53"]}}));
    let kept = || {
        std::fs::read_dir(data.join("runtime"))
            .unwrap()
            .filter(|one| one.as_ref().unwrap().file_name().to_string_lossy().starts_with(['1', '2']))
            .count()
    };
    for network in [&host_local, &fixed] {
        let result = world.runtime.add(network, &container).unwrap();
        let given = ips(&result);
        assert!(given[0].starts_with("198.51.100.") && given[1].starts_with("2001:db8::"), "{result}");
        assert_eq!(world.held(), given.iter().cloned().collect());
        assert!(peer.ips.iter().all(|address| ns.pings(address)));
        world.runtime.check(network, &container).unwrap();
        world.runtime.del(network, &container).unwrap();
        world.runtime.del(network, &container).unwrap();
        assert_eq!((world.held().len(), world.interfaces(), kept()), (0, 0, 0));
    }
    let result = world.runtime.add(&fixed, &container).unwrap();
    assert_eq!(result["dns"]["nameservers"], json!(["198.51.100.53"]));
    world.runtime.del(&fixed, &container).unwrap();
    // What felix refuses is given back.
    let stranger = Container { netns: "/run/netns/there-is-none".into(), ..container };
    assert_eq!(world.runtime.add(&host_local, &stranger).unwrap_err()["code"], 3);
    assert_eq!(kept(), 0);
}

#[test]
#[ignore = "needs root: make test"]
fn a_del_while_felix_is_dead_is_performed_before_its_first_add() {
    let world = World::new("away");
    let (ns, container) = world.pod("ends");
    let (_other_ns, other) = world.pod("later");
    let network = world.network("1.1.0", vec![world.runtime.ours()]);
    world.runtime.add(&network, &container).unwrap();
    assert!(world.lab.lab(["kill", "n1", "felix"]).status().unwrap().success());
    world.runtime.del(&network, &container).unwrap();
    world.runtime.del(&network, &container).unwrap();
    assert_eq!(world.runtime.add(&network, &other).unwrap_err()["code"], 11);
    assert_eq!(world.runtime.of_network("STATUS", &network, json!({})).unwrap_err()["code"], 50);
    assert_eq!((world.interfaces(), ns.run(&["ip", "-o", "link"]).contains("eth0")), (1, true));
    assert!(world.lab.lab(["start", "n1", "felix"]).status().unwrap().success());
    assert_eq!((world.held().len(), world.interfaces()), (0, 0));
    world.runtime.add(&network, &container).unwrap();
    assert!(!world.inside(&["ls", world.runtime.dir.join("cni-deleted").to_str().unwrap()]).contains("ends"));
    assert_eq!((world.held().len(), world.interfaces()), (2, 1), "what was attached after it stays");
}

#[test]
#[ignore = "needs root: make test"]
fn calls_that_are_killed_at_any_moment_leave_nothing_that_a_del_does_not_take() {
    let world = World::new("killed");
    let network = world.network("1.1.0", vec![world.runtime.ours()]);
    let pods: Vec<(Ns, Container)> = (0..4).map(|n| world.pod(&format!("k{n}"))).collect();
    let mut finished = 0;
    for step in 0..60_u64 {
        let (_, container) = &pods[usize::try_from(step).unwrap() % pods.len()];
        let command = if step.is_multiple_of(3) { "DEL" } else { "ADD" };
        let mut child = world.runtime.begin(command, &network, &network.plugins[0], Some(container), &Value::Null);
        // The moment is what the test is about.
        std::thread::sleep(Duration::from_micros(step * 700));
        let _ = child.kill();
        finished += usize::from(child.wait().unwrap().success());
    }
    // What the runtime does after a failed ADD, in the end for all.
    for (_, container) in &pods {
        world.runtime.del(&network, container).unwrap();
    }
    within(SOON, "all is gone", || world.held().is_empty() && world.interfaces() == 0).unwrap();
    let left = || {
        std::fs::read_dir(world.runtime.dir.join("cni-deleted"))
            .unwrap()
            .flatten()
            .filter(|one| !one.file_name().to_string_lossy().starts_with('.'))
            .count()
    };
    within(SOON, "no DEL is left", || left() == 0).unwrap();
    assert!((1..60).contains(&finished), "{finished} of 60 were not killed");
    let reached = world.runtime.add(&network, &pods[0].1).unwrap();
    assert_eq!(world.held(), ips(&reached).into_iter().collect());
    assert_eq!(world.lab.probe(&[]).unwrap().differences, 0);
}
