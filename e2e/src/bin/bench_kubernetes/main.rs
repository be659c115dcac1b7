//! Twill's daemons of many nodes on one real API server: what they ask, what it sends them, and what that costs it.
//!
//! A node is felix and bgpd without a kernel, each with a connection of its own whose bytes are counted on the wire, TLS and all. They
//! list, follow, claim and write by the daemons' own functions. Prints tables, and from them on paper what a large cluster would cost.

mod cluster;
mod measure;
mod node;
mod objects;
mod relay;
mod report;

use clap::Parser;
use cluster::Cluster;
use measure::{Added, Bench};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

#[derive(Parser)]
#[command(about = "Twill's daemons of many nodes on one real API server: requests, bytes, processor and latency")]
struct Args {
    /// Nodes.
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// Pods, before those that come and go.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Pods that come, run and go while that is measured.
    #[arg(long, default_value_t = 200)]
    lives: usize,
    /// Seconds of nothing.
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// ADDs.
    #[arg(long, default_value_t = 200)]
    adds: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.nodes >= 3, "--nodes {}: how cost grows shows from 3 on", args.nodes);
    // What carries and what hears must not wait for what writes.
    let (relays, nodes) = (thread()?, thread()?);
    // Here, as the servers end with the thread that started them.
    let cluster = Cluster::start(relays)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&args, cluster, nodes))
}

/// A thread with a runtime that lives as long as the process.
fn thread() -> anyhow::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(handle)
}

async fn run(args: &Args, cluster: Cluster, runtime: Handle) -> anyhow::Result<()> {
    let admin = cluster.admin().await?;
    let pool = cluster.seed(&admin).await?;
    let whole = node::ready_nodes(&admin);
    let (sender, heard) = mpsc::unbounded_channel();
    let mut bench = Bench { cluster, admin, pool, whole, runtime, nodes: Vec::new(), heard, sender };
    let empty = bench.cluster.resident()?;
    let mut added: Vec<Added> = vec![bench.add_node().await?];
    let (took, size) = bench.fill(args.pods, args.nodes).await?;
    eprintln!("{} pods of {size} bytes created in {:.0} s", args.pods, took.as_secs_f64());
    while bench.nodes.len() < args.nodes {
        added.push(bench.add_node().await?);
        eprintln!("{} nodes", bench.nodes.len());
    }
    let full = bench.cluster.resident()?;
    let events = bench.events(args.lives, args.pods).await?;
    let idle = bench.idle(Duration::from_secs(args.idle)).await?;
    let barriers = bench.barriers(args.adds).await?;
    let broadcasts = bench.broadcasts().await?;
    let size = report::Size { nodes: args.nodes, pods: args.pods, pod_bytes: size };
    report::starts(&size, &added);
    report::running(&size, &events, &idle, &barriers);
    report::memory(empty, full, bench.cluster.resident()?);
    report::periodic(&size, broadcasts);
    report::large(&size, &added, &events, &idle, broadcasts);
    Ok(())
}
