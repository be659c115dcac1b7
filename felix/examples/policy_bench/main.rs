//! What policy costs an agent, from an event to its commit in the kernel: 250 local pods in clusters of several sizes, each in a process and
//! a network namespace of its own.
//!
//! `make bench-policy`, or `cargo run --release -p twill-felix --example policy_bench -- PODS POLICIES NAMESPACES LOCAL` for one size (root).

mod cluster;
mod packets;

use cluster::{APPS, Size, address, ifname};
use nix::sched::{CloneFlags, unshare};
use std::time::{Duration, Instant};
use twill_felix::base::{Settings, skeleton};
use twill_felix::compile::Compiler;
use twill_felix::index::Event;
use twill_felix::io::nft::Table;

/// Events of each kind.
const ROUNDS: u32 = 300;
/// Pods, policies, namespaces, local pods.
const SIZES: [[u32; 4]; 6] = [
    [1_000, 100, 50, 50],
    [10_000, 1_000, 1_000, 250],
    [10_000, 10_000, 1_000, 250],
    [100_000, 1_000, 1_000, 250],
    [100_000, 10_000, 1_000, 250],
    // Eighty policies a namespace: more selectors here than sets are good for.
    [100_000, 20_000, 250, 400],
];

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("packets") {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(packets::packets());
    }
    let numbers: Vec<u32> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if let [pods, policies, namespaces, local] = numbers[..] {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(one(Size { pods, policies, namespaces, local }));
    }
    println!(
        "p50 / p99 of {ROUNDS} events each, from the event to the kernel's answer; cold start: all objects at hand, to the table in the kernel\n"
    );
    println!(
        "| pods, policies, namespaces, local | cold start | pod comes, goes | pod relabelled | namespace relabelled | policy changed | pod attached, detached | RSS | sets, chains, rules, elements |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for size in SIZES {
        run(&size.map(|number| number.to_string()))?;
    }
    run(&["packets".to_owned()])
}

/// In a process of its own.
fn run(arguments: &[String]) -> anyhow::Result<()> {
    let status = std::process::Command::new(std::env::current_exe()?).args(arguments).status()?;
    anyhow::ensure!(status.success(), "{arguments:?} failed");
    Ok(())
}

/// A compiler, and the table in the kernel that follows it.
struct Agent {
    compiler: Compiler,
    table: Table,
}

async fn one(size: Size) -> anyhow::Result<()> {
    let mut compiler = Compiler::new(skeleton(&Settings::default()));
    let (table, _events) = Table::open(skeleton(&Settings::default())).await?;
    let mut cold = Duration::ZERO;
    // They come as a stream: all of them are never in memory at once.
    let mut events = size.events();
    loop {
        let some: Vec<Event> = events.by_ref().take(1000).collect();
        if some.is_empty() {
            break;
        }
        let started = Instant::now();
        some.into_iter().for_each(|event| compiler.apply(event));
        cold += started.elapsed();
    }
    let started = Instant::now();
    compiler.commit();
    table.resync(compiler.ruleset().clone()).await?;
    cold += started.elapsed();
    let mut agent = Agent { compiler, table };

    // Far from the local pods, but of a namespace that has some.
    let remote = size.pods / 2 / size.namespaces * size.namespaces + 5;
    let comes = agent
        .measure(|i| match i % 2 {
            0 => Event::PodDeleted { key: size.pod(remote, 0, address(remote)).key, uid: String::new() },
            _ => Event::PodApplied(size.pod(remote, size.app(remote), address(remote))),
        })
        .await?;
    // Between a peer of a local pod's policy and none.
    let peer = |i: u32| (size.app(5) + 1 + i % 2) % APPS;
    let relabelled = agent.measure(|i| Event::PodApplied(size.pod(remote, peer(i), address(remote)))).await?;
    let namespace = agent.measure(|i| size.namespace(3, if i % 2 == 0 { "gold" } else { "tin" })).await?;
    let of_a_local_pod = 5 * size.per_namespace() + 4 + (size.app(5) + APPS - 4) % APPS;
    let policy = agent.measure(|i| Event::PolicyApplied(size.policy(of_a_local_pod, 8080 + i % 2))).await?;
    let attached = agent
        .measure(|i| match i % 2 {
            0 => Event::EndpointDetached { ifname: ifname(7) },
            _ => size.endpoint(7),
        })
        .await?;
    let ruleset = agent.compiler.ruleset();
    let rules: usize = ruleset.chains.values().map(|chain| chain.rules.len()).sum();
    let elements: usize = ruleset.sets.values().map(|set| set.elements.len()).sum();
    println!(
        "| {}, {}, {}, {} | {cold:.2?} | {comes} | {relabelled} | {namespace} | {policy} | {attached} | {} MiB | {}, {}, {rules}, {elements} |",
        size.pods,
        size.policies,
        size.namespaces,
        size.local,
        resident() >> 20,
        ruleset.sets.len(),
        ruleset.chains.len(),
    );
    Ok(())
}

impl Agent {
    /// p50 and p99 of events, each committed for itself.
    async fn measure(&mut self, event: impl Fn(u32) -> Event) -> anyhow::Result<String> {
        let mut times: Vec<Duration> = Vec::new();
        for i in 0..ROUNDS {
            let event = event(i);
            let started = Instant::now();
            self.compiler.apply(event);
            let delta = self.compiler.commit();
            if !delta.is_empty() {
                self.table.commit(delta).await?;
            }
            times.push(started.elapsed());
        }
        times.sort_unstable();
        Ok(format!("{:.2?} / {:.2?}", times[times.len() / 2], times[times.len() * 99 / 100]))
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}
