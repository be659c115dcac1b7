//! What a packet pays for policy, through a node with ever more policies: one of a connection, and one that none carries past the lists.

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
const PACKETS: u32 = 150;
/// Slices of a round.
const SLICES: usize = 150;
const ROUNDS: usize = 15;
/// The slice that counts is the first of so many, the quickest ones first: the very quickest are luck.
const UNDISTURBED: usize = 50;
const POLICIES: [u32; 6] = [0, 1, 10, 100, 1_000, 10_000];
const SIZE: Size = Size { pods: 10_000, policies: 10_000, namespaces: 1_000, local: 250 };
/// A pod here, of an application and namespace to which all golden namespaces may send.
const SERVER: u32 = 10;
/// A pod elsewhere, of a golden namespace.
const CLIENT: u32 = 1_000;
const PORT: u16 = 8080;

/// What a flow's packets are to policy.
#[derive(Clone, Copy, Debug)]
enum Flow {
    /// Of a connection: judged when it was opened.
    Answered,
    /// Each is the first of its connection again: it meets the pod's list.
    Unanswered,
}

impl Flow {
    const ALL: [Self; 2] = [Self::Answered, Self::Unanswered];

    /// The sender's port: conntrack must not take one flow for the other.
    fn port(self) -> u16 {
        match self {
            Self::Answered => 40_000,
            Self::Unanswered => 40_001,
        }
    }
}

/// Prints nanoseconds per packet, every count of policies and both flows in each round, so that noise meets them all.
pub(crate) async fn packets() -> anyhow::Result<()> {
    let (client, server) = (namespace()?, namespace()?);
    wire(&client, &server)?;
    let (table, _events) = Table::open(skeleton(&Settings::default())).await?;
    let rulesets: Vec<Ruleset> = POLICIES.into_iter().map(ruleset).collect();
    let mut slices = [const { [const { Vec::new() }; POLICIES.len()] }; Flow::ALL.len()];
    for _ in 0..ROUNDS {
        for (place, ruleset) in rulesets.iter().enumerate() {
            table.resync(ruleset.clone()).await?;
            for (flow, slices) in Flow::ALL.into_iter().zip(&mut slices) {
                slices[place].extend(flood(&client, &server, flow)?);
            }
        }
    }
    println!(
        "\nOf {ROUNDS} rounds of {SLICES} times {PACKETS} UDP packets, by the quickest of each {UNDISTURBED}. A flow that is answered is a connection, judged when it was opened;\neach packet of one that is not answered meets the pod's list.\n"
    );
    println!(
        "| policies | answered, ns per packet | to none | unanswered, ns per packet | to none |\n|---|---|---|---|---|"
    );
    let each = slices.map(|of_flow| of_flow.map(undisturbed));
    for (place, policies) in POLICIES.into_iter().enumerate() {
        let [answered, unanswered] = each.map(|of_flow| (of_flow[place], of_flow[place] / of_flow[0]));
        println!("| {policies} | {:.0} | {:.3} | {:.0} | {:.3} |", answered.0, answered.1, unanswered.0, unanswered.1);
    }
    Ok(())
}

/// Nanoseconds per packet of slices that met little else.
fn undisturbed(mut slices: Vec<Duration>) -> f64 {
    slices.sort_unstable();
    slices[slices.len() / UNDISTURBED].as_secs_f64() * 1e9 / f64::from(PACKETS)
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

/// How long the sender takes for each slice; on a veth pair it does the whole way of its packets itself.
fn flood(client: &File, server: &File, flow: Flow) -> anyhow::Result<Vec<Duration>> {
    let (from, to): (IpAddr, IpAddr) = (address(CLIENT), address(SERVER));
    let receiver = inside(server, || UdpSocket::bind((to, PORT)))??;
    let sender = inside(client, || UdpSocket::bind((from, flow.port())))??;
    sender.connect((to, PORT))?;
    let mut buffer = [0; 64];
    for socket in [&receiver, &sender] {
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    }
    sender.send(&buffer)?;
    let (_, whom) = receiver.recv_from(&mut buffer).map_err(|e| anyhow::anyhow!("the packet did not arrive: {e}"))?;
    if matches!(flow, Flow::Answered) {
        receiver.send_to(&buffer, whom)?;
        sender.recv(&mut buffer).map_err(|e| anyhow::anyhow!("the answer did not arrive: {e}"))?;
    }
    let mut slices = Vec::with_capacity(SLICES);
    for _ in 0..SLICES {
        let started = Instant::now();
        for _ in 0..PACKETS {
            sender.send(&buffer)?;
        }
        slices.push(started.elapsed());
    }
    Ok(slices)
}
