//! libcni itself, by its own tool: `go install github.com/containernetworking/cni/cnitool@v1.3.0`, named by `TWILL_CNITOOL`.

use crate::libcni::Container;
use crate::{World, ips};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Output};

/// The tool.
fn tool() -> PathBuf {
    let named = std::env::var_os("TWILL_CNITOOL").map(PathBuf::from);
    let path = named.expect("TWILL_CNITOOL does not name cnitool; make test-cni says how to get it");
    assert!(path.is_file(), "{} is no file", path.display());
    path
}

struct Tool<'a> {
    world: &'a World,
    /// A name that no other network on this machine has: libcni keeps results by it.
    network: String,
    conflists: PathBuf,
}

impl<'a> Tool<'a> {
    fn new(world: &'a World, version: &str, more: &[Value]) -> Self {
        let network = format!("twill-test-{}-{}", std::process::id(), version.replace('.', "-"));
        let conflists = world.runtime.dir.join(format!("net.d-{version}"));
        std::fs::create_dir_all(&conflists).unwrap();
        let plugins: Vec<Value> = [world.runtime.ours()].into_iter().chain(more.iter().cloned()).collect();
        let list = json!({"cniVersion": version, "name": network, "plugins": plugins});
        std::fs::write(conflists.join("10-test.conflist"), list.to_string()).unwrap();
        Self { world, network, conflists }
    }

    fn run(&self, verb: &str, container: &Container) -> Output {
        let node = self.world.lab.status().unwrap().nodes.into_iter().find(|node| node.name == "n1").unwrap().netns;
        let plugins = format!("{}:/usr/lib/cni", self.world.runtime.dir.join("cni-bin").display());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &node]).arg(tool()).args([verb, &self.network, &container.netns]);
        command.env("CNI_PATH", plugins).env("NETCONFPATH", &self.conflists).env("CNI_ARGS", &container.args);
        if container.capabilities.is_object() {
            command.env("CAP_ARGS", container.capabilities.to_string());
        }
        command.output().unwrap()
    }

    fn succeeds(&self, verb: &str, container: &Container) -> String {
        let output = self.run(verb, container);
        let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        assert!(output.status.success(), "cnitool {verb} of {}: {} {}", self.network, said[0], said[1]);
        said[0].clone()
    }
}

#[test]
#[ignore = "needs cnitool: make test-cni"]
fn cnitool_adds_checks_and_deletes_in_every_version_and_collects_in_the_newest() {
    let world = World::new("cnitool");
    let peer = world.lab.pod("default/peer").unwrap();
    let (ns, container) = world.pod("tool");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let tool = Tool::new(&world, version, &[]);
        let result: Value = serde_json::from_str(&tool.succeeds("add", &container)).unwrap();
        assert_eq!((&result["cniVersion"], world.held()), (&json!(version), ips(&result).into_iter().collect()));
        assert!(peer.ips.iter().all(|address| ns.pings(address)), "{version}");
        if version != "0.3.1" {
            tool.succeeds("check", &container);
            ns.run(&["ip", "link", "set", "eth0", "down"]);
            let broken = tool.run("check", &container);
            let said = String::from_utf8_lossy(&broken.stderr).into_owned() + &String::from_utf8_lossy(&broken.stdout);
            assert!(!broken.status.success() && said.contains("eth0 in the pod is down"), "{version}: {said}");
        }
        if version == "1.1.0" {
            tool.succeeds("status", &container);
            // It names nothing as in use, so libcni deletes what it has kept itself, and then asks us.
            tool.succeeds("gc", &container);
            assert_eq!((world.held().len(), world.interfaces()), (0, 0));
        }
        tool.succeeds("del", &container);
        tool.succeeds("del", &container);
        assert_eq!((world.held().len(), world.interfaces()), (0, 0), "{version}");
    }
}

#[test]
#[ignore = "needs cnitool: make test-cni"]
fn cnitool_drives_chains_and_capabilities_through_our_plugin() {
    let world = World::new("toolchain");
    let (ns, mut container) = world.pod("chained");
    let rates =
        json!({"ingressRate": 1_000_000, "ingressBurst": 100_000, "egressRate": 1_000_000, "egressBurst": 100_000});
    container.capabilities = json!({"mac": "02:aa:bb:cc:dd:02", "bandwidth": rates});
    let chain = [
        json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "501"}}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
    ];
    let tool = Tool::new(&world, "1.0.0", &chain);
    tool.succeeds("add", &container);
    assert!(ns.run(&["ip", "link", "show", "eth0"]).contains("02:aa:bb:cc:dd:02"));
    tool.succeeds("check", &container);
    tool.succeeds("del", &container);
    assert_eq!((world.held().len(), world.interfaces()), (0, 0));
}
