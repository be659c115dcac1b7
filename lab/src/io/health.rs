//! Whether a lab works: what its daemons say is wrong, and whether packets pass between its nodes.

use crate::io::cluster::{Cluster, PATIENCE};
use crate::io::{daemons, netns, process};
use crate::state::{Daemon, Node, State};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use twill_crds::manifest::Manifest;

/// How long routes may take after a change: sessions that it resets come back within this.
const ROUTES: Duration = Duration::from_secs(10);
/// How long one attempt to reach a node may take.
const ATTEMPT: Duration = Duration::from_millis(200);
/// How long nodes may take to reach each other again once a cable is in place: bridges and neighbours need up to a second.
const REACH: Duration = Duration::from_secs(15);
/// TCP's port 1 (tcpmux): nobody listens there, so that whoever is reached refuses.
const CLOSED_PORT: u16 = 1;

/// What running daemons say is wrong, one sentence each.
#[must_use]
pub fn problems(state: &State) -> Vec<String> {
    let daemons = state.nodes.iter().flat_map(|node| [(&node.name, Daemon::Bgpd), (&node.name, Daemon::Felix)]);
    let mut problems = Vec::new();
    for (node, daemon) in daemons.filter(|(node, daemon)| state.runs(node, *daemon)) {
        let socket = state.socket(node, daemon);
        let said = match daemon {
            Daemon::Bgpd => daemons::bgpd_status(&socket).map(|status| status.problems),
            Daemon::Felix => daemons::felix_status(&socket).map(|status| status.problems),
        };
        let said = said.unwrap_or_else(|error| vec![format!("{error:#}")]);
        problems.extend(said.into_iter().map(|problem| format!("{daemon} of {node}: {problem}")));
    }
    problems
}

/// What is wrong after a change, one sentence each. Where it concerns routes, they get the time that they take.
#[must_use]
pub fn after(cluster: &Cluster, changed: &[Manifest]) -> Vec<String> {
    let routing = ["IPPool", "IPBlock", "BGPConfiguration", "BGPPeer", "BGPFilter", "Node", "NodeNetwork"];
    let routes = if changed.iter().any(|manifest| routing.contains(&manifest.kind.kind.as_ref())) {
        cluster.routed(ROUTES).unwrap_or_else(|error| vec![format!("{error:#}")])
    } else {
        Vec::new()
    };
    lasting(cluster, routes)
}

/// What has not gone away by itself for as long as a change may take to settle. A daemon says the same as its routes do, and the way out.
#[must_use]
pub fn lasting(cluster: &Cluster, routes: Vec<String>) -> Vec<String> {
    // What was said of routes has lasted already.
    let patience = if routes.is_empty() { PATIENCE } else { Duration::ZERO };
    let mut said = Vec::new();
    let _ = process::until(patience, || {
        said = problems(&cluster.state);
        said.is_empty()
    });
    if said.is_empty() { routes } else { said }
}

/// Waits until this node reaches all others whose links are in place, and they it; a sentence for each that does not in time.
#[must_use]
pub fn unreached(state: &State, healed: &Node) -> Vec<String> {
    let others = state.nodes.iter().filter(|node| node.name != healed.name && !node.partitioned);
    let pairs = others.flat_map(|other| [(healed, other), (other, healed)]);
    let deadline = Instant::now() + REACH;
    let mut unreached = Vec::new();
    for (from, to) in pairs {
        for address in &to.addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if !process::until(left, || reaches(&from.netns, *address)) {
                unreached.push(format!("{} does not reach {} ({address})", from.name, to.name));
            }
        }
    }
    unreached
}

fn reaches(from: &str, address: IpAddr) -> bool {
    let to = SocketAddr::new(address, CLOSED_PORT);
    let tried = netns::inside(from, || Ok(TcpStream::connect_timeout(&to, ATTEMPT)));
    tried.is_ok_and(|tried| tried.map_or_else(|error| error.kind() == ErrorKind::ConnectionRefused, |_| true))
}
