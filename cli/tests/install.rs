//! `twill install` as an init container or an admin runs it: whole or not at all, whatever happens meanwhile; and `--check` on a node
//! that others have used before.

#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const TWILL: &str = env!("CARGO_BIN_EXE_twill");

/// A node's directories.
struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        ["bin", "conf", "run", "state"].iter().for_each(|name| fs::create_dir(node.path(name)).unwrap());
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A plugin of some release, that is a script: large, so that copying it takes a while.
    fn release(&self, name: &str, length: usize) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\nexit 0\n#{}\n", name.repeat(length))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(TWILL);
        command.arg("install").args(["-o", "json", "--bin-dir"]).arg(self.path("bin"));
        command.arg("--conf-dir").arg(self.path("conf")).arg("--run-dir").arg(self.path("run"));
        command.arg("--state-dir").arg(self.path("state"));
        command.arg("--datastore").arg(format!("sqlite:{}", self.path("cluster.db").display()));
        command
    }

    fn install(&self, source: &Path) -> Output {
        self.command().arg("--source").arg(source).output().unwrap()
    }

    fn installed(&self) -> Vec<u8> {
        fs::read(self.path("bin/twill-cni")).unwrap()
    }

    fn files(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_plugin_comes_is_left_alone_when_it_is_there_and_goes_back_a_release() {
    let node = Node::new();
    let (old, new) = (node.release("old", 1), node.release("new", 1));
    for (source, changed) in [(&old, true), (&old, false), (&new, true), (&old, true)] {
        let output = node.install(source);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(answer(&output)["changed"], changed);
        assert_eq!(node.installed(), fs::read(source).unwrap());
    }
    assert_eq!(node.files("bin"), ["twill-cni", "twill-ipam"]);
    assert_eq!(node.files("conf"), [""; 0], "only felix says when the node is ready");
    let mode = fs::metadata(node.path("bin/twill-cni")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}

#[test]
fn a_plugin_that_does_not_run_here_does_not_replace_one_that_does() {
    let node = Node::new();
    let good = node.release("good", 1);
    assert!(node.install(&good).status.success());
    let foreign = node.path("foreign");
    fs::write(&foreign, b"\x7fELF of another machine").unwrap();
    fs::set_permissions(&foreign, fs::Permissions::from_mode(0o755)).unwrap();
    let failing = node.path("failing");
    fs::write(&failing, "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(&failing, fs::Permissions::from_mode(0o755)).unwrap();
    for (source, why) in
        [(foreign, "does not run on this machine"), (failing, "is no CNI plugin"), (node.path("none"), "--source")]
    {
        let output = node.install(&source);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
        assert_eq!(node.installed(), fs::read(&good).unwrap());
    }
}

#[test]
fn other_networks_that_the_runtime_prefers_are_named_and_not_touched() {
    let node = Node::new();
    let plugin = node.release("plugin", 1);
    fs::write(node.path("conf/10-calico.conflist"), r#"{"name": "k8s-pod-network"}"#).unwrap();
    fs::write(node.path("conf/99-loopback.conf"), r#"{"name": "lo"}"#).unwrap();
    let output = node.install(&plugin);
    assert!(output.status.success());
    let warning = answer(&output)["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("10-calico.conflist") && !warning.contains("99-loopback"), "{warning}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&warning));
    assert_eq!(node.files("conf"), ["10-calico.conflist", "99-loopback.conf"]);
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_plugin_or_the_new_one() {
    let node = Node::new();
    let releases = [node.release("one", 1 << 20), node.release("two", 1 << 20)];
    let contents: Vec<Vec<u8>> = releases.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(node.install(&releases[0]).status.success());
    let (mut early, mut late) = (0, 0);
    for step in 0..120_u64 {
        let before = node.installed();
        let source = usize::from(before == contents[0]);
        let mut child = node.command().arg("--source").arg(&releases[source]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(step * 400));
        child.kill().unwrap();
        child.wait().unwrap();
        let after = node.installed();
        assert!(contents.contains(&after), "step {step}: {} bytes, neither the old nor the new", after.len());
        let runs = Command::new(node.path("bin/twill-cni")).status().unwrap();
        assert!(runs.success(), "step {step}");
        if after == before { early += 1 } else { late += 1 }
    }
    assert!(early > 0 && late > 0, "killed before the end {early} times, after it {late} times");
    assert!(node.install(&releases[1]).status.success());
    assert_eq!(node.files("bin"), ["twill-cni", "twill-ipam"], "what was half done is gone");
}

#[test]
fn many_at_once_leave_one_of_theirs() {
    let node = Node::new();
    let releases = [node.release("one", 1 << 18), node.release("two", 1 << 18)];
    let children: Vec<_> = (0..8)
        .map(|n| node.command().arg("--source").arg(&releases[n % 2]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let installed = node.installed();
    assert!(releases.iter().any(|path| fs::read(path).unwrap() == installed));
    assert_eq!(node.files("bin"), ["twill-cni", "twill-ipam"]);
}

/// A network namespace that goes with its value.
struct Ns(String);

impl Ns {
    fn new(label: &str) -> Self {
        let ns = Self(format!("twinstall-{}-{label}", std::process::id()));
        run("ip", &["netns", "add", &ns.0]);
        ns
    }

    fn exec(&self, line: &str) {
        let words: Vec<&str> = ["netns", "exec", &self.0].into_iter().chain(line.split(' ')).collect();
        run("ip", &words);
    }

    /// What `twill install --check` says of it: its exit code, and per check the findings.
    fn check(&self, node: &Node) -> (i32, Value) {
        let inner = node.command();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, TWILL]).args(inner.get_args()).arg("--check");
        let output = command.output().unwrap();
        (output.status.code().unwrap(), answer(&output))
    }
}

impl Drop for Ns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `state` and all sentences of one check.
fn told(findings: &Value, check: &str) -> (Vec<String>, String) {
    let of = findings.as_array().unwrap().iter().filter(|finding| finding["check"] == check);
    let of: Vec<&Value> = of.collect();
    assert!(!of.is_empty(), "no check {check} in {findings}");
    let states = of.iter().map(|finding| finding["state"].as_str().unwrap().to_owned()).collect();
    (states, of.iter().map(|finding| finding.to_string()).collect())
}

fn with_datastore(node: &Node) {
    let pool = node.path("pool.yaml");
    let text = "apiVersion: twill.network/v1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.42.0.0/16}\n";
    fs::write(&pool, text).unwrap();
    let url = format!("sqlite:{}", node.path("cluster.db").display());
    let applied = Command::new(TWILL).args(["apply", "--datastore", &url, "-f"]).arg(&pool).output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
}

#[test]
#[ignore = "needs root: make test"]
fn a_fresh_node_is_fit_and_the_check_changes_nothing_there() {
    let (node, ns) = (Node::new(), Ns::new("fresh"));
    with_datastore(&node);
    for line in ["ip link set lo up", "ip link add up0 type veth peer name up1", "ip link set up1 up"] {
        ns.exec(line);
    }
    for line in ["ip link set up0 up", "ip addr add 192.0.2.10/24 dev up0", "ip route add default via 192.0.2.1"] {
        ns.exec(line);
    }
    let seen = || {
        let look = |line: &str| {
            let words: Vec<&str> = ["netns", "exec", &ns.0].into_iter().chain(line.split(' ')).collect();
            Command::new("ip").args(words).output().unwrap().stdout
        };
        ["ip -o link", "ip route show table all", "ip -6 route show table all", "nft list ruleset", "sysctl net.ipv4"]
            .map(look)
    };
    let before = seen();
    let (code, findings) = ns.check(&node);
    assert_eq!(code, 0, "{findings:#}");
    assert_eq!(seen(), before);
    for check in
        ["nftables", "conntrack", "multipath", "forwarding", "other networks", "firewalls", "port 179", "datastore"]
    {
        assert_eq!(told(&findings, check).0, ["fine"], "{check}: {findings:#}");
    }
    assert!(told(&findings, "uplink").1.contains("up0, MTU 1500"), "{findings:#}");
    assert_eq!(told(&findings, "kube-proxy").0, ["warning"]);
    assert_eq!(node.files("bin").len() + node.files("conf").len(), 0);
    ns.exec("sysctl -qw net.ipv4.conf.up0.rp_filter=1");
    let (code, findings) = ns.check(&node);
    let (states, text) = told(&findings, "reverse path");
    assert!(code == 0 && states == ["warning"] && text.contains("net.ipv4.conf.up0.rp_filter=2"), "{text}");
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_of_others_is_unfit_and_each_of_them_is_named_with_a_remedy() {
    let (node, ns) = (Node::new(), Ns::new("used"));
    fs::write(node.path("conf/05-cilium.conflist"), "{}").unwrap();
    for line in [
        "ip link set lo up",
        "ip link add cali0123456789a type veth peer name peer0",
        "ip link add vxlan.calico type vxlan id 4096 dstport 4789 local 127.0.0.1",
        "nft add table ip filter",
        "nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }",
        "nft add chain ip filter DOCKER-USER",
        "nft add table ip nat",
        "nft add chain ip nat KUBE-SERVICES",
        "nft add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
    ] {
        ns.exec(line);
    }
    // Another speaker, in the place of BIRD.
    let mut speaker = Command::new("ip")
        .args(["netns", "exec", &ns.0, "bird", "-f", "-s"])
        .arg(node.path("bird.ctl"))
        .arg("-c")
        .arg(bird(&node))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let (code, findings) = loop {
        let (code, findings) = ns.check(&node);
        if told(&findings, "port 179").0 == ["unfit"] || std::time::Instant::now() > deadline {
            break (code, findings);
        }
    };
    speaker.kill().unwrap();
    speaker.wait().unwrap();
    assert_eq!(code, 2, "{findings:#}");
    for (check, state, words) in [
        ("other networks", "unfit", "link cali0123456789a"),
        ("network configurations", "unfit", "05-cilium.conflist"),
        ("firewalls", "unfit", "/etc/docker/daemon.json"),
        ("port 179", "unfit", "sport = 179"),
        ("VXLAN port", "warning", "vxlan.calico"),
        ("kube-proxy", "fine", "iptables"),
        ("reverse path", "warning", "rp_filter=2"),
        ("uplink", "warning", "no default route"),
        ("datastore", "unfit", "--datastore"),
    ] {
        let (states, text) = told(&findings, check);
        assert!(states.iter().any(|found| found == state) && text.contains(words), "{check}: {states:?} {text}");
    }
    assert!(told(&findings, "firewalls").1.contains("TCP 179"), "the input hook is told, too");
}

fn bird(node: &Node) -> PathBuf {
    let path = node.path("bird.conf");
    let text = "router id 192.0.2.1;\nprotocol device {}\nprotocol bgp speaker1 { local 127.0.0.1 as 64512; neighbor 127.0.0.2 as 64513; \
                multihop; passive on; ipv4 { import all; export none; }; }\n";
    fs::write(&path, text).unwrap();
    path
}
