//! What a packet pays for policy: one that no connection carries past the lists, through a node with ever more policies.

use crate::cluster::{Size, address, ifname};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};
use twill_felix::base::{Settings, skeleton};
use twill_felix::compile::Compiler;
use twill_felix::index::Event;
use twill_felix::io::nft::Table;
use twill_felix::ruleset::Ruleset;

/// Packets that are timed together: so few that some of many such slices are disturbed by nobody.
const PACKETS: u32 = 5_000;
/// Slices of a round.
const SLICES: usize = 20;
const ROUNDS: usize = 15;
const POLICIES: [u32; 6] = [0, 1, 10, 100, 1_000, 10_000];
const SIZE: Size = Size { pods: 10_000, policies: 10_000, namespaces: 1_000, local: 250 };
/// A pod here, of an application and namespace to which all golden namespaces may send.
const SERVER: u32 = 10;
/// A pod elsewhere, of a golden namespace.
const CLIENT: u32 = 1_000;
const PORT: u16 = 8080;

/// Prints nanoseconds per packet, every count of policies in each round, so that noise meets them all.
pub(crate) async fn packets() -> anyhow::Result<()> {
    let (client, server) = (namespace()?, namespace()?);
    wire(&client, &server)?;
    let (table, _events) = Table::open(skeleton(&Settings::default())).await?;
    let rulesets: Vec<Ruleset> = POLICIES.into_iter().map(ruleset).collect();
    let mut best = [Duration::MAX; POLICIES.len()];
    for _ in 0..ROUNDS {
        for (ruleset, best) in rulesets.iter().zip(&mut best) {
            table.resync(ruleset.clone()).await?;
            *best = flood(&client, &server)?.min(*best);
        }
    }
    println!(
        "\nThe best of {ROUNDS} rounds of {SLICES} times {PACKETS} UDP packets of a flow without answers, so that each meets the pod's list:\n"
    );
    println!("| policies | ns per packet | to none |\n|---|---|---|");
    let none = best[0].as_secs_f64();
    for (policies, best) in POLICIES.into_iter().zip(best) {
        let each = best.as_nanos() / u128::from(PACKETS);
        println!("| {policies} | {each} | {:.3} |", best.as_secs_f64() / none);
    }
    Ok(())
}

/// The node's ruleset with so many policies, those of the server's namespace first, and of these the one that opens it.
fn ruleset(policies: u32) -> Ruleset {
    let mut compiler = Compiler::new(skeleton(&Settings::default()));
    SIZE.policies_apart().for_each(|event| compiler.apply(event));
    let first = SERVER * SIZE.per_namespace() + 2;
    let others = (0..SIZE.policies).map(|i| (first + i) % SIZE.policies);
    others.take(policies as usize).for_each(|i| compiler.apply(Event::PolicyApplied(SIZE.policy(i, PORT.into()))));
    compiler.commit();
    compiler.ruleset().clone()
}

/// A network namespace that lives as long as the file is open.
fn namespace() -> anyhow::Result<File> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net")
    });
    Ok(made.join().unwrap_or_else(|_| Err(std::io::Error::other("no namespace")))?)
}

fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| setns(namespace, CloneFlags::CLONE_NEWNET).map(|()| work()));
        Ok(entered.join().map_err(|_| anyhow::anyhow!("the work in a namespace panicked"))??)
    })
}

/// Client, this node, server; the server's interface is a workload's.
fn wire(client: &File, server: &File) -> anyhow::Result<()> {
    use std::os::fd::AsRawFd;
    let path = |of: &File| format!("/proc/{}/fd/{}", std::process::id(), of.as_raw_fd());
    let (from, to, workload) = (address(CLIENT), address(SERVER), ifname(SERVER));
    sh(&format!(
        "sysctl -qw net.ipv4.ip_forward=1; ip link set lo up
         ip link add up0 type veth peer name eth0 netns {}; ip link add {workload} type veth peer name eth0 netns {}
         ip link set up0 up; ip link set {workload} up; ip addr add 192.0.2.1/24 dev up0
         ip route add {from} via 192.0.2.2; ip route add {to} dev {workload}
         sysctl -qw net.ipv4.conf.{workload}.proxy_arp=1",
        path(client),
        path(server)
    ))?;
    let far = format!(
        "ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; ip addr add {from}/32 dev eth0
         ip route add default via 192.0.2.1 src {from}"
    );
    inside(client, || sh(&far))??;
    let pod = format!("ip link set eth0 up; ip addr add {to}/32 dev eth0; ip route add default dev eth0");
    inside(server, || sh(&pod))?
}

fn sh(script: &str) -> anyhow::Result<()> {
    let status = Command::new("sh").args(["-ec", script]).status()?;
    anyhow::ensure!(status.success(), "{script}");
    Ok(())
}

/// How long the sender takes for the quickest slice; on a veth pair it does the whole way of its packets itself.
fn flood(client: &File, server: &File) -> anyhow::Result<Duration> {
    let (from, to): (IpAddr, IpAddr) = (address(CLIENT), address(SERVER));
    let receiver = inside(server, || UdpSocket::bind((to, PORT)))??;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let sender = inside(client, || UdpSocket::bind((from, 40_000)))??;
    sender.connect((to, PORT))?;
    let mut buffer = [0; 64];
    sender.send(&buffer)?;
    receiver.recv(&mut buffer).map_err(|e| anyhow::anyhow!("the packet did not arrive: {e}"))?;
    let mut best = Duration::MAX;
    for _ in 0..SLICES {
        let started = Instant::now();
        for _ in 0..PACKETS {
            sender.send(&buffer)?;
        }
        best = best.min(started.elapsed());
    }
    Ok(best)
}
