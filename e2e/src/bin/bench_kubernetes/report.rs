//! The tables, and the calculation on paper.

use super::cluster::Requests;
use super::measure::{Added, Barriers, Events, Idle};
use super::{node, objects};
use std::time::Duration;
use twill_bgpd::LOOK_AT_SERVER;

/// A cluster that nobody has on one machine.
const LARGE_NODES: f64 = 1000.0;
/// See [`LARGE_NODES`].
const LARGE_PODS: f64 = 30_000.0;
/// Within which all of its nodes start.
const ROLLOUT: f64 = 600.0;
/// Events of pods a second.
const RATE: f64 = 100.0;
/// A watch is opened anew after this many seconds on average: 300 to 600.
const WATCH: f64 = 450.0;
/// A kubelet writes its Node at least so often, in seconds.
const HEARTBEAT: f64 = 300.0;
/// felix writes an IPBlock's use at most so often, in seconds.
const CHECKPOINT: f64 = 30.0;

/// How much was measured.
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) pods: usize,
    pub(crate) pod_bytes: usize,
}

pub(crate) fn starts(size: &Size, added: &[Added]) {
    println!(
        "\nA node is added ({} pods of {} bytes JSON; the first one before there are any)\n",
        size.pods, size.pod_bytes
    );
    println!(
        "| nodes before | felix hears, KB | bgpd hears, KB | both say, KB | to each other node, KB | seconds | requests |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut rows: Vec<usize> = vec![0, 1, added.len() / 2, added.len() - 1];
    rows.dedup();
    for added in rows.into_iter().filter_map(|row| added.get(row)) {
        let start = added.start;
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {} |",
            added.nodes,
            start.felix.down as f64 / 1e3,
            start.bgpd.down as f64 / 1e3,
            (start.felix.up + start.bgpd.up) as f64 / 1e3,
            if added.nodes == 0 { 0.0 } else { added.to_each / 1e3 },
            start.seconds,
            named(&added.requests)
        );
    }
}

pub(crate) fn running(size: &Size, events: &Events, idle: &Idle, barriers: &Barriers) {
    let (count, nodes) = (events.events as f64, size.nodes as f64);
    println!("\nWith {} nodes and {} pods\n\n| | |\n|---|---|", size.nodes, size.pods);
    println!(
        "| an event of a pod (create, status, delete): sent to all nodes | {:.1} KB |",
        events.bytes.down as f64 / count / 1e3
    );
    println!("| … to each watcher | {:.0} bytes |", events.bytes.down as f64 / count / nodes);
    println!("| … said by all nodes | {:.0} bytes |", events.bytes.up as f64 / count);
    println!("| … requests by daemons while {} came | {} |", events.events, named(&events.requests));
    println!("| … writes by daemons | 0 |");
    let [server, etcd] = events.used.map(|used| used * 1000.0 / count);
    println!("| … processor for 1,000: API server, etcd | {server:.1} s, {etcd:.1} s |");
    println!("| … from the write until all nodes heard, p50, p99 | {} |", percentiles(&events.latencies));
    let requests: u64 = idle.requests.values().sum();
    println!(
        "| idle for {:.0} s: requests | {} ({:.2}/s) |",
        idle.seconds,
        named(&idle.requests),
        requests as f64 / idle.seconds
    );
    println!(
        "| … sent to all nodes, said by them | {:.0} bytes/s, {:.0} bytes/s |",
        idle.bytes.down as f64 / idle.seconds,
        idle.bytes.up as f64 / idle.seconds
    );
    let [server, etcd] = idle.used.map(|used| used / idle.seconds * 100.0);
    println!("| … processor: API server, etcd | {server:.0} %, {etcd:.0} % of a core |");
    let adds = barriers.count as f64;
    println!("| an ADD's barrier: requests of {} | {} |", barriers.count, named(&barriers.requests));
    println!(
        "| … heard, said by one | {:.0} bytes, {:.0} bytes |",
        barriers.bytes.down as f64 / adds,
        barriers.bytes.up as f64 / adds
    );
    println!("| … time, p50, p99 | {} |", percentiles(&barriers.latencies));
}

pub(crate) fn memory(empty: [f64; 2], full: [f64; 2], end: [f64; 2]) {
    let [server, etcd] = [0, 1].map(|i| format!("{:.0}, {:.0}, {:.0} MiB", empty[i], full[i], end[i]));
    println!("| resident, empty, filled, at the end: API server | {server} |\n| … etcd | {etcd} |");
}

/// What daemons do by the clock and not because something happened.
pub(crate) fn periodic(size: &Size, [heartbeat, checkpoint]: [f64; 2]) {
    let watches = node::watches(&objects::node_name(0)) as f64;
    println!("\nBy the clock, a node\n\n| | requests/s |\n|---|---|");
    println!("| {watches:.0} watches (felix, bgpd), each opened anew after 300 to 600 s | {:.3} |", watches / WATCH);
    println!(
        "| checkpoint of an IPBlock's use, at most every 30 s and only if it changed | 0 to {:.3} |",
        1.0 / CHECKPOINT
    );
    println!(
        "| whether the datastore answers (bgpd): a GET of its NodeNetwork every {} s | {:.3} |",
        LOOK_AT_SERVER.as_secs(),
        1.0 / LOOK_AT_SERVER.as_secs_f64()
    );
    println!("\nWhat others' clocks bring to each of {} nodes\n\n| | bytes |\n|---|---|", size.nodes);
    println!("| a kubelet's heartbeat in its Node, at least every 300 s | {heartbeat:.0} |");
    println!("| a checkpoint of an IPBlock | {checkpoint:.0} |");
}

pub(crate) fn large(size: &Size, added: &[Added], events: &Events, idle: &Idle, [heartbeat, checkpoint]: [f64; 2]) {
    let (n, p) = (LARGE_NODES, LARGE_PODS);
    let heard = |added: &Added| (added.start.felix.down + added.start.bgpd.down) as f64;
    let (base, second, last) = (heard(&added[0]), &added[1], &added[added.len() - 1]);
    let per_node = (heard(last) - heard(second)) / (last.nodes - second.nodes) as f64;
    let per_pod = (heard(second) - base - per_node) / size.pods as f64;
    let each = added[1..].iter().map(|added| added.to_each).sum::<f64>() / (added.len() - 1) as f64;
    println!("\nOn paper: {n} nodes, {p} pods\n");
    println!(
        "a start hears base + pods × a + nodes × b: base = {:.0} KB, a = {per_pod:.0} bytes, b = {per_node:.0} bytes",
        base / 1e3
    );
    println!("a node that is added brings c = {each:.0} bytes to each that is there\n\n| | formula | |\n|---|---|---|");
    let all = n * (base + p * per_pod) + (per_node + each) * n * (n - 1.0) / 2.0;
    println!(
        "| all nodes start within 600 s | N × (base + P × a) + (b + c) × N × (N − 1) / 2 | {:.2} GB, {:.1} MB/s |",
        all / 1e9,
        all / ROLLOUT / 1e6
    );
    let event = events.bytes.down as f64 / events.events as f64 / size.nodes as f64;
    println!("| {RATE} events of pods a second | {RATE} × N × {event:.0} bytes | {:.0} MB/s |", RATE * n * event / 1e6);
    let watches = node::watches(&objects::node_name(0)) as f64;
    let reach = LOOK_AT_SERVER.as_secs_f64();
    println!("| requests, idle: bgpd asks whether there is an answer | N / {reach} s | {:.0}/s |", n / reach);
    println!("| … watches opened anew | N × {watches:.0} / {WATCH} s | {:.1}/s |", n * watches / WATCH);
    println!(
        "| sent, idle | N × {:.1} bytes/s | {:.2} MB/s |",
        idle.bytes.down as f64 / idle.seconds / size.nodes as f64,
        n * idle.bytes.down as f64 / idle.seconds / size.nodes as f64 / 1e6
    );
    println!(
        "| kubelets' heartbeats | N / {HEARTBEAT} s × N × {heartbeat:.0} bytes | {:.1} MB/s |",
        n / HEARTBEAT * n * heartbeat / 1e6
    );
    println!(
        "| checkpoints, if every block's use changes all the time | N / {CHECKPOINT} s × N × {checkpoint:.0} bytes | {:.1} MB/s |",
        n / CHECKPOINT * n * checkpoint / 1e6
    );
}

fn named(requests: &Requests) -> String {
    let all: u64 = requests.values().sum();
    let names: Vec<String> =
        requests.iter().map(|((verb, resource), count)| format!("{count} {verb} {resource}")).collect();
    if names.is_empty() { "0".to_owned() } else { format!("{all}: {}", names.join(", ")) }
}

fn percentiles(sorted: &[Duration]) -> String {
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    format!("{:.1} ms, {:.1} ms", at(50), at(99))
}
