//! Twill away again, from a node and from a cluster.
//!
//! ```text
//!  n1, n2 ── tor-r1 ── spine ── tor-r2 ── n3       Mesh, VXLAN between racks, both families
//! ```
//! 1. A node is as it was before Twill: links, addresses, routes, rules, neighbours, tables, files; what others made there stays. Peers
//!    have no route to it as soon as it has left, without a timer, and others' pods lose no packet meanwhile.
//! 2. The same end after any number of interruptions. A reboot brings the node back.
//! 3. A person is asked. A daemon that hangs, or that somebody starts again, is named with the way out.
//! 4. The whole cluster, objects included; with a node that does not answer nothing else is removed until it does.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::families::{DUAL, racks};
use support::{Counter, Sender, hold_against_oracle, only, pod};
use twill_e2e::{Lab, failed, succeeded, twill, within};
use twill_lab::io::{labs, process, underlay};
use twill_lab::state::{Daemon, State};

const POOLS: &str = "
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.42.0.0/16, natOutgoing: true, encapsulation: {protocol: VXLAN, when: CrossSubnet}}
---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: v6}
spec: {cidr: 'fd42::/48', natOutgoing: true, encapsulation: {protocol: VXLAN, when: CrossSubnet}}
";

fn up(name: &str) -> Lab {
    let pods = [pod("a", "n1"), pod("a2", "n1"), pod("b", "n2"), pod("c", "n3"), only("closed", "a", "b")].concat();
    let lab = racks(DUAL, "  resources: [pools.yaml, pods.yaml]\n");
    Lab::up(name, &lab, &[("pools.yaml", POOLS), ("pods.yaml", &pods)]).unwrap()
}

fn uninstall(lab: &Lab, node: &str, args: &[&str]) -> Command {
    let twill = twill().unwrap().display().to_string();
    lab.exec_command(node, &[&[twill.as_str(), "uninstall"], args].concat())
}

/// All that a kernel and a disk show of a node, without the numbers that a kernel counts up.
fn snapshot(lab: &Lab, node: &str) -> BTreeMap<String, Vec<String>> {
    let mut shown = BTreeMap::new();
    for listing in [
        "-d link",
        "address",
        "-4 route show table all",
        "-6 route show table all",
        "-4 rule",
        "-6 rule",
        "neighbour show nud permanent",
        "nexthop",
    ] {
        let command: Vec<&str> = ["ip", "-j"].into_iter().chain(listing.split(' ')).collect();
        let text = lab.exec(node, &command).unwrap();
        let items: Vec<Value> = if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() };
        let mut lines: Vec<String> = items.into_iter().map(without_numbers).collect();
        lines.sort();
        shown.insert(listing.to_owned(), lines);
    }
    let rules = lab.exec(node, &["nft", "list", "ruleset"]).unwrap();
    shown.insert("nft".to_owned(), rules.lines().map(str::to_owned).collect());
    shown.insert("files".to_owned(), files(&labs::load(&lab.name).unwrap().machine_dir(node)));
    shown
}

fn without_numbers(mut item: Value) -> String {
    if let Some(fields) = item.as_object_mut() {
        for number in ["ifindex", "link_index", "link_netnsid"] {
            fields.remove(number);
        }
    }
    item.to_string()
}

/// Names of all files below a directory; logs are the lab's.
fn files(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            names.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else if !name.ends_with(".log") {
            names.push(name);
        }
    }
    names.sort();
    names
}

/// What n1 is without Twill: the same machine, wires and addresses, on which no daemon ever ran, and what others made there.
fn untouched(lab: &Lab) -> BTreeMap<String, Vec<String>> {
    let state = labs::load(&lab.name).unwrap();
    let machine = state.position("n1").unwrap();
    process::kill_inside(&[state.node("n1").unwrap().netns.clone()]).unwrap();
    for file in files(&state.machine_dir("n1")) {
        std::fs::remove_file(state.machine_dir("n1").join(file)).unwrap();
    }
    // Without its disk the node would leave them alone for a while, as those of another machine of its name.
    for block in blocks(lab, "n1") {
        let name = twill_crds::names::block_name(block.parse().unwrap());
        lab.ask("n2", &["delete", "ipblock", &name]).unwrap();
    }
    underlay::unplug(&state.plan, machine).unwrap();
    underlay::plug(&state.plan, machine, true).unwrap();
    others_arrive(lab);
    // Links come up, and routes with them, some time after they were told to.
    let mut seen = snapshot(lab, "n1");
    within(Duration::from_secs(10), "n1 is at rest", || {
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut seen, snapshot(lab, "n1"));
        before == seen
    })
    .unwrap();
    seen
}

/// What others make on n1, as like ours as it can be.
fn others_arrive(lab: &Lab) {
    let run = |line: &str| drop(lab.exec("n1", &line.split(' ').collect::<Vec<_>>()).unwrap());
    run("ip link add twl0123456789a address 02:00:00:00:00:0a type veth peer name peer0 address 02:00:00:00:00:0b");
    run("ip link set twl0123456789a up");
    run("ip link set peer0 up");
    run("ip link add vxlan9 address 02:00:00:00:00:0c type vxlan external dstport 4799");
    run("ip link set vxlan9 up");
    run("ip route add 10.99.0.0/24 via 172.31.1.12 proto 77 metric 512");
    run("ip route add unreachable 10.98.0.0/24 proto 77 metric 4096");
    run("ip route add 10.97.0.1 dev eth0 proto 77 metric 0");
    run("ip -6 route add fd97::1 dev eth0 proto 77 metric 64");
    run("nft add table inet others");
    run("nft add table ip twill");
    let directory = labs::load(&lab.name).unwrap().machine_dir("n1");
    let plugins = [r#"{"type": "bridge"}"#, r#"{"type": "twill-cni", "socket": "/run/another/felix.sock"}"#];
    for (n, plugin) in plugins.iter().enumerate() {
        let conflist = format!(r#"{{"cniVersion": "1.0.0", "name": "twill", "plugins": [{plugin}]}}"#);
        std::fs::write(directory.join(format!("9{n}-others.conflist")), conflist).unwrap();
    }
}

fn reboot(lab: &Lab) {
    succeeded(lab.lab(["reboot", "n1"]).output().unwrap()).unwrap();
}

fn same(lab: &Lab, before: &BTreeMap<String, Vec<String>>) {
    let after = snapshot(lab, "n1");
    for (listing, lines) in before {
        assert_eq!(&after[listing], lines, "{listing}");
    }
}

fn blocks(lab: &Lab, node: &str) -> Vec<String> {
    let listed: Value = serde_json::from_str(&lab.ask("n2", &["get", "ipblocks", "-o", "json"]).unwrap()).unwrap();
    let own = listed["items"].as_array().unwrap().iter().filter(|block| block["spec"]["node"] == node);
    own.map(|block| block["spec"]["cidr"].as_str().unwrap().to_owned()).collect()
}

/// Whether a node's kernel or speaker knows a way to one of these blocks.
fn knows(lab: &Lab, node: &str, blocks: &[String]) -> bool {
    let kernel = [["ip", "-4", "route"], ["ip", "-6", "route"]].map(|command| lab.exec(node, &command).unwrap());
    let speaker = lab.ask(node, &["routes"]).unwrap();
    blocks.iter().any(|block| kernel.iter().chain([&speaker]).any(|listing| listing.contains(block.as_str())))
}

#[test]
#[ignore = "needs root: make test"]
fn a_node_is_as_it_was_before_and_nobody_else_notices() {
    let lab = up("uninstall");
    let before = untouched(&lab);
    reboot(&lab);
    others_arrive(&lab);
    let own = blocks(&lab, "n1");
    assert!(own.len() == 2 && knows(&lab, "n2", &own) && knows(&lab, "n3", &own));
    let (b, c) = (lab.pod("default/b").unwrap(), lab.pod("default/c").unwrap());
    let counter = Counter::start(&c.netns, 7777);
    let sender = Sender::start(&b.netns, SocketAddr::new(c.ips[0].parse().unwrap(), 7777));
    within(Duration::from_secs(5), "packets arrive", || counter.count() > 100).unwrap();

    let began = Instant::now();
    let report = succeeded(uninstall(&lab, "n1", &["-o", "json"]).output().unwrap()).unwrap();
    eprintln!("uninstalled in {:?}", began.elapsed());
    for node in ["n2", "n3"] {
        let took = within(Duration::from_secs(1), "Cease has taken the routes", || !knows(&lab, node, &own)).unwrap();
        eprintln!("{node} knows no way to n1 {took:?} later");
    }
    same(&lab, &before);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["node"], &report["workloadInterfaces"]), (&"n1".into(), &2.into()));
    assert_eq!((&report["tunnelDevices"], &report["tables"], &report["objects"]), (&1.into(), &1.into(), &3.into()));
    assert_eq!((&report["problems"], &report["warnings"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_eq!(blocks(&lab, "n1"), Vec::<String>::new());
    assert!(lab.ask("n2", &["get", "nodenetwork", "n1"]).is_err());

    let (sent, refused) = sender.stop();
    within(Duration::from_secs(1), "the last packets arrive", || counter.count() == sent).unwrap();
    assert_eq!((counter.count(), refused), (sent, 0), "packets between pods of other nodes were lost");

    let status = succeeded(lab.lab(["status"]).output().unwrap()).unwrap();
    assert!(status.contains("bgpd of n1 does not run") && status.contains("felix of n1 does not run"), "{status}");
    let again = succeeded(uninstall(&lab, "n1", &["--node", "n1"]).output().unwrap()).unwrap();
    assert!(again.lines().filter(|line| line.ends_with(" 0")).count() == 6, "{again}");
    same(&lab, &before);

    for daemon in ["bgpd", "felix"] {
        succeeded(lab.lab(["start", "n1", daemon]).output().unwrap()).unwrap();
    }
    lab.apply(&pod("new", "n1")).unwrap();
    reboot(&lab);
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
}

#[test]
#[ignore = "needs root: make test"]
fn it_may_be_killed_anywhere_and_run_again() {
    let lab = up("killed");
    let before = untouched(&lab);
    reboot(&lab);
    others_arrive(&lab);
    let began = Instant::now();
    succeeded(uninstall(&lab, "n1", &[]).output().unwrap()).unwrap();
    let whole = began.elapsed();
    same(&lab, &before);
    let mut killed = 0;
    for round in 0..8_u32 {
        reboot(&lab);
        others_arrive(&lab);
        // The beginning, where most happens, forwards and backwards, and the end; where exactly is the scheduler's choice.
        for after in [whole * round / 40, whole * (8 - round) / 40, whole * (17 + round) / 24] {
            let mut run = uninstall(&lab, "n1", &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(after);
            run.kill().unwrap();
            killed += usize::from(!run.wait().unwrap().success());
        }
        // The node's name was noted before the daemons left.
        succeeded(uninstall(&lab, "n1", &[]).output().unwrap()).unwrap();
        same(&lab, &before);
        assert_eq!(blocks(&lab, "n1"), Vec::<String>::new());
    }
    eprintln!("{killed} runs killed");
    assert!(killed > 8, "only {killed} runs were interrupted");
}

/// Runs it before a person who gives this answer.
fn asked(command: &mut Command, answer: &[u8]) -> Output {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let person = std::fs::File::from(terminal.master);
    (&person).write_all(answer).unwrap();
    command.stdin(terminal.slave).output().unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn a_person_is_asked_and_nobody_else() {
    let lab = up("asked");
    let before = ours(&lab, "n1");
    let error = failed(asked(&mut uninstall(&lab, "n1", &[]), b"n\n")).unwrap();
    assert!(error.contains("and with it the network of 2 pods. Go on? [y/N]"), "{error}");
    assert!(error.contains("nothing was changed"), "{error}");
    assert_eq!(ours(&lab, "n1"), before);
    // In a pod there is nothing to remove, and neither the node's files nor the host's are in reach.
    let twill = twill().unwrap().display().to_string();
    succeeded(lab.exec_command("default/a", &[&twill, "uninstall"]).output().unwrap()).unwrap();
    assert_eq!(ours(&lab, "n1"), before);
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    succeeded(asked(&mut uninstall(&lab, "n1", &[]), b"y\n")).unwrap();
    assert_eq!(ours(&lab, "n1"), "");
    succeeded(asked(&mut uninstall(&lab, "n2", &["--yes"]), b"")).unwrap();
    assert_eq!(ours(&lab, "n2"), "");
}

/// Its process in the lab's book.
fn daemon(lab: &Lab, node: &str, daemon: Daemon) -> Pid {
    Pid::from_raw(labs::load(&lab.name).unwrap().daemons[&State::key(node, daemon)].pid)
}

#[test]
#[ignore = "needs root: make test"]
fn a_daemon_that_hangs_or_comes_back_is_named() {
    let lab = up("stay");
    let bgpd = daemon(&lab, "n1", Daemon::Bgpd);
    kill(bgpd, Signal::SIGSTOP).unwrap();
    let error = failed(uninstall(&lab, "n1", &[]).output().unwrap()).unwrap();
    kill(bgpd, Signal::SIGCONT).unwrap();
    assert!(error.contains(&format!("it is process {bgpd}: end it with kill -9 {bgpd}")), "{error}");
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());

    // A supervisor, as far as this matters.
    let started = || succeeded(lab.lab(["start", "n1", "bgpd"]).output().unwrap()).is_ok();
    let output = std::thread::scope(|scope| {
        let supervisor = scope.spawn(|| within(Duration::from_secs(10), "bgpd is started again", started));
        let output = uninstall(&lab, "n1", &[]).output().unwrap();
        supervisor.join().unwrap().unwrap();
        output
    });
    let error = failed(output).unwrap();
    assert!(error.contains("bgpd was started again") && error.contains("stop its service first"), "{error}");
    succeeded(uninstall(&lab, "n1", &[]).output().unwrap()).unwrap();
    let nobody = failed(uninstall(&lab, "tor-r1", &[]).output().unwrap()).unwrap();
    assert!(nobody.contains("runs alone from a file"), "a router is no node: {nobody}");
}

#[test]
#[ignore = "needs root: make test"]
fn without_a_datastore_or_a_name_the_rest_goes_all_the_same() {
    let lab = up("alone");
    for daemon in ["bgpd", "felix"] {
        succeeded(lab.lab(["kill", "n1", daemon]).output().unwrap()).unwrap();
    }
    let warned = |output: Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        succeeded(output).map(|_| said).unwrap()
    };
    let told = |node: &str| lab.ask("n3", &["get", "nodenetwork", node]).is_ok() || !blocks(&lab, node).is_empty();
    // A name that is not its own is refused, as long as there is time.
    let before = ours(&lab, "n1");
    for name in ["TYPO", "n3"] {
        let error = failed(uninstall(&lab, "n1", &["--node", name]).output().unwrap()).unwrap();
        assert!(error.contains("claimed its blocks as node n1") && error.contains("nothing was changed"), "{error}");
        let error = failed(uninstall(&lab, "n1", &[]).env("TWILL_NODE", name).output().unwrap()).unwrap();
        assert!(error.contains("--node (TWILL_NODE) is "), "{error}");
    }
    assert!(ours(&lab, "n1") == before && told("n1") && told("n3"));
    // Its name is not known, but what its store claimed is.
    let said = warned(uninstall(&lab, "n1", &[]).output().unwrap());
    assert!(ours(&lab, "n1").is_empty() && !told("n1"), "{said}");
    let said = warned(uninstall(&lab, "n2", &["--datastore", "sqlite:/none/t.db"]).output().unwrap());
    assert!(said.contains("objects of node n2 stay") && said.contains("run this again"), "{said}");
    assert!(ours(&lab, "n2").is_empty() && told("n2"));
    assert_eq!(warned(uninstall(&lab, "n2", &[]).output().unwrap()), "", "what was left is remembered");
    assert!(!told("n2"));
    assert_eq!(warned(uninstall(&lab, "n2", &[]).output().unwrap()), "", "twice is no error");
    let error = failed(uninstall(&lab, "default/b", &["--node", "TYPO"]).output().unwrap()).unwrap();
    assert!(error.contains("the datastore has no Node, NodeNetwork or IPBlock of TYPO"), "{error}");
    // Of a node that lives elsewhere nothing goes.
    drop(warned(uninstall(&lab, "default/b", &["--node", "n3"]).output().unwrap()));
    assert!(told("n3") && blocks(&lab, "n3").len() == 2);
}

/// What a node's kernel has that Twill made, as text.
fn ours(lab: &Lab, node: &str) -> String {
    let script = "ip -o link | grep -E 'twl|twill-(vxlan|ipip)'; ip route show proto 84; ip route show proto 85
        ip -6 route show proto 84; ip -6 route show proto 85; nft list tables | grep twill; true";
    lab.exec(node, &["sh", "-c", script]).unwrap()
}

fn cluster(lab: &Lab, args: &[&str]) -> Output {
    let datastore = labs::load(&lab.name).unwrap().datastore;
    let mut command = Command::new(twill().unwrap());
    command.args(["uninstall", "--cluster", "--datastore", &datastore]).args(args).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
#[ignore = "needs root: make test"]
fn a_cluster_goes_as_a_whole_and_waits_for_a_node_that_does_not_answer() {
    let lab = up("cluster");
    succeeded(lab.lab(["kill", "n3", "felix"]).output().unwrap()).unwrap();
    let kinds = ["ippools", "ipblocks", "bgpconfigurations", "nodenetworks"];
    let count = |kind: &str| {
        let listed = lab.exec("spine", &[&twill().unwrap().display().to_string(), "get", kind, "-o", "json"]).unwrap();
        serde_json::from_str::<Value>(&listed).unwrap()["items"].as_array().unwrap().len()
    };
    let objects = kinds.map(count);
    let output = cluster(&lab, &["--timeout", "5s", "-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("1 node did not answer within 5 s (n3)")
            && said.contains("nothing else was removed")
            && said.contains("nobody can answer, and --force deletes the objects"),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["uninstalled"], &report["missing"]),
        (&serde_json::json!(["n1", "n2"]), &serde_json::json!(["n3"]))
    );
    let clean =
        |node: &str| ours(&lab, node).is_empty() && files(&labs::load(&lab.name).unwrap().machine_dir(node)).is_empty();
    assert!(clean("n1") && clean("n2") && !clean("n3"));
    assert_eq!(kinds.map(count), [objects[0], objects[1] - 4, objects[2], 1]);

    let said = succeeded(lab.lab(["start", "n3", "felix"]).output().unwrap()).unwrap();
    assert!(
        said.contains("felix of n3 has removed Twill from there and ended, as twill uninstall --cluster asked"),
        "{said}"
    );
    succeeded(cluster(&lab, &[])).unwrap();
    assert!(clean("n1") && clean("n2") && clean("n3"));
    assert_eq!(kinds.map(count), [0; 4]);
    succeeded(cluster(&lab, &[])).unwrap();
}

#[test]
#[ignore = "needs root: make test"]
fn a_cluster_goes_also_where_its_own_objects_or_nodes_are_missing() {
    let lab = up("partly");
    for node in ["n1", "n2", "n3"] {
        lab.ask("n1", &["delete", "nodenetwork", node]).unwrap();
    }
    lab.ask("n1", &["delete", "node", "n2"]).unwrap();
    succeeded(lab.lab(["kill", "n3", "felix"]).output().unwrap()).unwrap();
    lab.ask("n1", &["delete", "node", "n3"]).unwrap();
    let output = cluster(&lab, &["-o", "json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["uninstalled"], &report["gone"], &report["missing"]),
        (&serde_json::json!(["n1", "n2"]), &serde_json::json!(["n3"]), &serde_json::json!([])),
        "{said}"
    );
    assert!(said.contains("there is no Node n3, and nobody answered"), "{said}");
    assert!(ours(&lab, "n1").is_empty() && ours(&lab, "n2").is_empty() && !ours(&lab, "n3").is_empty());
}

#[test]
#[ignore = "needs root: make test"]
fn a_felix_that_cannot_leave_stays() {
    let lab = up("stays");
    let directory = labs::load(&lab.name).unwrap().machine_dir("n2").join("uninstall");
    std::fs::create_dir(&directory).unwrap();
    let output = cluster(&lab, &["--timeout", "5s"]);
    assert_eq!(output.status.code(), Some(2));
    // Its sessions are down, since the other nodes have gone; felix goes on serving.
    let status = lab.exec_command("n2", &[&twill().unwrap().display().to_string(), "status"]).output().unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(text.contains("felix   yes") && status.status.code() == Some(2), "{text}");
    std::fs::remove_dir(&directory).unwrap();
    succeeded(cluster(&lab, &["--timeout", "30s"])).unwrap();
    assert_eq!(ours(&lab, "n2"), "");
}
