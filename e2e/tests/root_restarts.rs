//! Daemons that are killed under traffic across racks, with every kind of router.
//!
//! ```text
//!          spine
//!         /     \
//!     tor-r1   tor-r2        a, d on n1, b on n2, c on n3; each router a twill, bird, frr or gobgp
//!     n1  n2     n3
//! ```
//! 1. bgpd killed and started, and killed again as soon as its first message is out (and a little later, up to after its routes are out),
//!    felix killed and started, both at once: of 1000 packets per second each way across racks and inside, none is lost.
//! 2. Afterwards every kernel and every speaker has what it had before: nothing stale is left and nothing is missing.
//! 3. A peer that is dead holds nothing up.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::traffic::Traffic;
use support::{pod, two_racks};
use twill_e2e::{Lab, within};
use twill_lab::io::{labs, netns};
use twill_lab::state::{Daemon, State};

/// A speaker that was killed: the longest wait of its peers until they try again, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn up(software: &str, topology: &str) -> Lab {
    let pods = [pod("a", "n1"), pod("d", "n1"), pod("b", "n2"), pod("c", "n3")].concat();
    let lab = two_racks(&format!("  topology: {topology}\n  resources: [pods.yaml]\n"))
        .replace("{asn: 65101}", &format!("{{asn: 65101, speaker: {software}}}"))
        .replace("{asn: 65102}", &format!("{{asn: 65102, speaker: {software}}}"))
        .replace("{asn: 65000}", &format!("{{asn: 65000, speaker: {software}}}"));
    Lab::up("kill", &lab, &[("pods.yaml", &pods)]).unwrap()
}

fn sigkill(state: &State, daemon: Daemon) {
    let process = state.daemons[&State::key("n1", daemon)];
    assert!(process.runs());
    process.kill().unwrap();
}

/// Starts bgpd of n1 and kills it `after` its first message to a peer has left.
fn start_and_kill_again(lab: &Lab, after: Duration) {
    let before = labs::load(&lab.name).unwrap().daemons[&State::key("n1", Daemon::Bgpd)];
    let mut message = first_message(&format!("twill_{}_n1", lab.name));
    let mut start = lab.lab(["start", "n1", "bgpd"]).stderr(Stdio::piped()).spawn().unwrap();
    within(LIMIT, "bgpd has sent something", || message.try_wait().unwrap().is_some()).unwrap();
    std::thread::sleep(after);
    let state = || labs::load(&lab.name).unwrap();
    within(LIMIT, "the lab knows it", || state().daemons[&State::key("n1", Daemon::Bgpd)] != before).unwrap();
    sigkill(&state(), Daemon::Bgpd);
    // It may have been in sync before that, or have died in the middle of it.
    let _ = start.wait().unwrap();
}

/// Ends when a message of BGP leaves this namespace.
fn first_message(netns_name: &str) -> Child {
    let filter = "outbound and tcp port 179 and tcp[tcpflags] & tcp-push != 0";
    let mut child = netns::inside(netns_name, || {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-i", "eth0", "-c", "1", "--immediate-mode", "-Z", "root", filter]);
        Ok(tcpdump.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
    })
    .unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut stderr, &mut line).unwrap() > 0, "tcpdump does not start");
    }
    child
}

fn start(lab: &Lab, daemon: &str) {
    let output = lab.lab(["start", "n1", daemon]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sessions of n1 are all established, and no node has a path that its peer has not told again.
fn is_settled(lab: &Lab) -> bool {
    let routes = |node: &str| lab.ask(node, &["routes"]);
    lab.ask("n1", &["peers"]).is_ok()
        && ["n1", "n2", "n3"].iter().all(|node| routes(node).is_ok_and(|text| !text.contains("its peer restarts")))
}

/// What the kernels and the routers have, without what changes by itself.
fn picture(lab: &Lab) -> Vec<String> {
    let state = labs::load(&lab.name).unwrap();
    let routers = state.routers.iter().map(|router| router.name.clone());
    let machines: Vec<String> = routers.chain(["n1", "n2", "n3"].map(str::to_owned)).collect();
    let show = |machine: &String| {
        let mut lines: Vec<String> = Vec::new();
        for family in ["-4", "-6"] {
            let text = lab.exec(machine, &["ip", family, "-o", "route", "show"]).unwrap();
            // zebra numbers its nexthop objects as they come.
            let line = |line: &str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let id = words.iter().position(|word| *word == "nhid");
                let kept = words.iter().enumerate().filter(|(n, _)| id.is_none_or(|id| *n != id && *n != id + 1));
                kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
            };
            lines.extend(text.lines().map(line));
        }
        lines.sort();
        format!("{machine}: {}", lines.join("\n"))
    };
    machines.iter().map(show).collect()
}

fn killed_under_traffic(software: &str, topology: &str) {
    let lab = up(software, topology);
    let before = picture(&lab);
    let traffic = Traffic::start(&lab, &[("c", "a"), ("a", "c"), ("b", "d"), ("d", "b")]);
    for after in [0, 2, 20, 500] {
        sigkill(&labs::load(&lab.name).unwrap(), Daemon::Bgpd);
        traffic.goes_on();
        start_and_kill_again(&lab, Duration::from_millis(after));
        traffic.goes_on();
        start(&lab, "bgpd");
        within(LIMIT, "sessions are back and nothing is stale", || is_settled(&lab)).unwrap();
        traffic.goes_on();
    }
    for both in [false, true] {
        let state = labs::load(&lab.name).unwrap();
        sigkill(&state, Daemon::Felix);
        if both {
            sigkill(&state, Daemon::Bgpd);
        }
        traffic.goes_on();
        start(&lab, "felix");
        if both {
            start(&lab, "bgpd");
        }
        within(LIMIT, "sessions are back and nothing is stale", || is_settled(&lab)).unwrap();
        traffic.goes_on();
    }
    let losses = traffic.losses();
    println!("{topology}, {software}: {losses:?}");
    assert!(losses.iter().all(|(_, sent, lost)| *sent > 5000 && *lost == 0), "{losses:?}");
    let same = || picture(&lab) == before;
    if within(LIMIT, "everything is as before", same).is_err() {
        assert_eq!(picture(&lab), before);
    }
}

/// Creates a block for a node, as its felix would.
fn block(lab: &Lab, cidr: &str, node: &str) {
    let name = cidr.replace(['.', '/'], "-");
    lab.apply(&format!(
        "apiVersion: twill.network/v1\nkind: IPBlock\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}, node: {node}}}\n"
    ))
    .unwrap();
}

#[test]
#[ignore = "needs root: make test"]
fn a_dead_peer_holds_nothing_up() {
    let ghost = "apiVersion: twill.network/v1
kind: BGPPeer
metadata: {name: ghost}
spec: {remote: {address: 172.31.1.99}, asn: 65999}
";
    let pods = [pod("a", "n1"), pod("c", "n3")].concat();
    let lab = Lab::up("dead", &two_racks("  resources: [pods.yaml]\n"), &[("pods.yaml", &pods)]).unwrap();
    lab.apply(ghost).unwrap();
    let state = labs::load(&lab.name).unwrap();
    state.daemons[&State::key("n2", Daemon::Bgpd)].kill().unwrap();
    let traffic = Traffic::start(&lab, &[("c", "a"), ("a", "c")]);
    sigkill(&state, Daemon::Bgpd);
    traffic.goes_on();
    start(&lab, "bgpd");
    let told_again = || {
        // Paths of n2 are stale: it may come back.
        let fresh = |text: &String, hop: &str| {
            let mut paths = text.lines().filter(|line| line.contains(hop)).peekable();
            paths.peek().is_some() && paths.all(|path| !path.contains("its peer restarts"))
        };
        lab.ask("n3", &["routes"]).is_ok_and(|text| fresh(&text, "172.31.1.11"))
            && lab.ask("n1", &["routes"]).is_ok_and(|text| fresh(&text, "172.31.2.11"))
    };
    let took = within(Duration::from_secs(8), "n1 and n3 know each other again", told_again).unwrap();
    println!("known again {took:?} after bgpd said that it is in sync, with two dead peers");
    for (cidr, node, other) in [("10.42.250.0/26", "n3", "n1"), ("10.42.251.0/26", "n1", "n3")] {
        block(&lab, cidr, node);
        let arrived = || lab.exec(other, &["ip", "route", "show", cidr]).is_ok_and(|text| text.contains("172.31."));
        let took = within(Duration::from_secs(2), "a new block's route arrives", arrived).unwrap();
        println!("a route of {node} was in the kernel of {other} after {took:?}");
    }
    let losses = traffic.losses();
    assert!(losses.iter().all(|(_, _, lost)| *lost == 0), "{losses:?}");
}

#[test]
#[ignore = "takes ten minutes and root: make test-restarts"]
fn kills_in_a_mesh_beside_twill() {
    killed_under_traffic("twill", "Mesh");
}

#[test]
#[ignore = "takes ten minutes and root: make test-restarts"]
fn kills_in_a_mesh_beside_bird() {
    killed_under_traffic("bird", "Mesh");
}

#[test]
#[ignore = "takes ten minutes and root: make test-restarts"]
fn kills_in_a_mesh_beside_frr() {
    killed_under_traffic("frr", "Mesh");
}

#[test]
#[ignore = "takes ten minutes and root: make test-restarts"]
fn kills_in_a_fabric_with_twill() {
    killed_under_traffic("twill", "Fabric");
}

#[test]
#[ignore = "needs root: make test"]
fn kills_in_a_fabric_with_bird() {
    killed_under_traffic("bird", "Fabric");
}

#[test]
#[ignore = "needs root: make test"]
fn kills_in_a_fabric_with_frr() {
    killed_under_traffic("frr", "Fabric");
}

#[test]
#[ignore = "takes ten minutes and root: make test-restarts"]
fn kills_in_a_mesh_beside_gobgp() {
    killed_under_traffic("gobgp", "Mesh");
}

#[test]
#[ignore = "needs root: make test"]
fn kills_in_a_fabric_with_gobgp() {
    killed_under_traffic("gobgp", "Fabric");
}
