//! `twill trace` says what became of real packets, by which policy or whose table, and leaves nothing behind.
//!
//! ```text
//!   n1: web (closed but for 8000), near          n2: far
//! ```
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;
use support::flows::{Flow, Pod};
use support::{one_rack, pod};
use twill_e2e::{Lab, twill, within};
use twill_lab::io::netns;

const POLICY: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8000}]}]}
";
const SOON: Duration = Duration::from_secs(20);

struct World {
    lab: Lab,
}

impl World {
    fn up() -> Self {
        let pods = [pod("web", "n1"), pod("near", "n1"), pod("far", "n2"), POLICY.to_owned()].concat();
        Self { lab: Lab::up("trace", &one_rack("  resources: [pods.yaml]\n"), &[("pods.yaml", &pods)]).unwrap() }
    }

    fn pod(&self, name: &str) -> Pod {
        let pod = self.lab.pod(&format!("default/{name}")).unwrap();
        Pod { netns: pod.netns, addresses: pod.ips.iter().map(|ip| ip.parse().unwrap()).collect() }
    }

    /// Starts to watch on n1, and has begun when this returns.
    fn watch(&self, args: &[&str]) -> Child {
        let twill = twill().unwrap();
        let command = [&[twill.to_str().unwrap(), "trace", "-o", "json"], args].concat();
        let child = self.lab.exec_command("n1", &command).stdout(Stdio::piped()).spawn().unwrap();
        within(SOON, "its table is there", || self.tables() == 1).unwrap();
        child
    }

    fn tables(&self) -> usize {
        self.lab.exec("n1", &["nft", "list", "tables"]).unwrap().matches("twill_trace").count()
    }

    fn send(&self, from: &str, to: &str, port: u16) {
        let to = SocketAddr::new(self.pod(to).addresses[0], port);
        netns::inside(&self.pod(from).netns, || Ok(UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", to).map(|_| ())?))
            .unwrap();
    }

    /// What it told, and its exit code; nothing of it is left.
    fn told(&self, child: Child) -> (Vec<Value>, Option<i32>) {
        let output = child.wait_with_output().unwrap();
        within(SOON, "its table is gone", || self.tables() == 0).unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (told.as_array().unwrap().clone(), output.status.code())
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_trace_names_the_policy_that_drops_and_the_foreign_table_and_an_allowed_packet_passes() {
    let world = World::up();
    // Denied: by whose list, and what policy says is the same.
    let child = world.watch(&["default/near", "default/web:8001/udp", "-n", "1"]);
    world.send("near", "web", 8001);
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (1, Some(2)), "{told:?}");
    assert_eq!(
        told[0]["droppedBy"], "ingress of default/web (NetworkPolicy default/web): no rule allows it",
        "{}",
        told[0]
    );
    assert_eq!((&told[0]["differs"], &told[0]["policy"]["allowed"]), (&false.into(), &false.into()));

    // Allowed, over TCP, with the answers.
    let child = world.watch(&["default/far", "default/web:8000", "-n", "3"]);
    let mut flow = Flow::tcp(&world.pod("far"), &world.pod("web"), 0, 8000);
    assert!(flow.lives());
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (3, Some(0)), "{told:?}");
    assert!(told.iter().all(|one| one["droppedBy"].is_null() && one["differs"] == false), "{told:?}");
    assert!(told.iter().any(|one| one["answer"] == true) && told.iter().any(|one| one["answer"] == false), "{told:?}");
    let allows = "ingress of default/web (NetworkPolicy default/web): NetworkPolicy default/web ingress[0]";
    assert!(told[0]["steps"].as_array().unwrap().iter().any(|step| step["at"] == allows), "{}", told[0]);

    // Somebody else's table: it is named as it is, and policy says otherwise.
    let foreign = "table ip other { chain gate { type filter hook forward priority -5; ip protocol icmp drop comment \"no pings\"; }; }";
    world.lab.exec("n1", &["nft", foreign]).unwrap();
    let child = world.watch(&["default/near", "default/far:icmp", "-n", "1"]);
    let to = world.pod("far").addresses[0].to_string();
    let _ = world.lab.exec("default/near", &["ping", "-c", "1", "-W", "0.2", &to]);
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (1, Some(2)), "{told:?}");
    assert_eq!(told[0]["droppedBy"], "table ip other, chain gate: no pings");
    assert_eq!(told[0]["differs"], true);
}

#[test]
#[ignore = "needs root: make test"]
fn a_trace_ends_after_its_time_and_leaves_nothing_when_it_is_killed() {
    let world = World::up();
    let child = world.watch(&["default/near", "default/web:8001/udp", "--for", "1s"]);
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (0, Some(2)), "that nothing came is no good news");

    // Stopped, it cannot end by its clock: the kernel marks no packet any more all the same.
    let mut child = world.watch(&["default/near", "default/web:8001/udp", "--for", "2s"]);
    let pid = traced_process();
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    let armed = || world.lab.exec("n1", &["nft", "list", "ruleset"]).unwrap().contains("expires");
    within(SOON, "the mark has expired", || !armed()).unwrap();
    assert_eq!(world.tables(), 1, "its table is still there");
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    within(SOON, "its table is gone", || world.tables() == 0).unwrap();
}

/// The one process that traces here.
fn traced_process() -> i32 {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|one| one.ok()?.file_name().to_str()?.parse().ok());
    let traces = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"trace".as_slice()) && words.contains(&b"2s".as_slice())
    };
    let mut found: Vec<i32> = processes.filter(traces).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}
