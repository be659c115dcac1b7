//! Namespaces, wires, and the programs in them.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use twill_lab::io::netns;

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// Held by the one world that there is: what watches for milliseconds of silence is not run beside what else fills processors.
static ALONE: Mutex<()> = Mutex::new(());

/// How long anything may take to begin.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Twill at one end, another speaker at the other, with or without a router between them; and a directory for their files.
///
/// ```text
///  twill .1 ── 10.73.1.0/24, fd73:1::/64 ── .2 other
///  twill .1 ── 10.73.1.0/24, fd73:1::/64 ── .254 router .254 ── 10.73.2.0/24, fd73:2::/64 ── .2 other
/// ```
pub(crate) struct World {
    pub(crate) twill: String,
    pub(crate) other: String,
    router: Option<String>,
    pub(crate) dir: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

/// An address of one end, with its length.
type Interface = (String, &'static str, String);

impl World {
    pub(crate) fn new(multihop: bool) -> Self {
        // A test that failed with it has left nothing that this one could meet.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = |label: &str| format!("twbfd-{}-{number}-{label}", std::process::id());
        let dir = std::env::temp_dir().join(name("files"));
        fs::create_dir_all(&dir).unwrap();
        let world =
            World { twill: name("t"), other: name("o"), router: multihop.then(|| name("r")), dir, _alone: alone };
        for netns in world.namespaces() {
            run("ip", &format!("netns add {netns}"));
            run("ip", &format!("-n {netns} link set lo up"));
        }
        let (twill, other) = (&world.twill, &world.other);
        match &world.router {
            None => wire([(twill, "eth0", 1), (other, "eth0", 2)], 1),
            Some(router) => {
                wire([(twill, "eth0", 1), (router, "left", 254)], 1);
                wire([(router, "right", 254), (other, "eth0", 2)], 2);
                for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
                    inside(router, &format!("sysctl -q -w {key}=1"));
                }
                run("ip", &format!("-n {twill} route add 10.73.2.0/24 via 10.73.1.254"));
                run("ip", &format!("-n {twill} route add fd73:2::/64 via fd73:1::254"));
                run("ip", &format!("-n {other} route add 10.73.1.0/24 via 10.73.2.254"));
                run("ip", &format!("-n {other} route add fd73:1::/64 via fd73:2::254"));
            }
        }
        // FRR lets no session of IPv6 stand before its interface has this one, too.
        within(LIMIT, "link-local addresses are found to be unique", || {
            world.namespaces().all(|netns| run("ip", &format!("-n {netns} -6 address show tentative")).is_empty())
        });
        world
    }

    fn namespaces(&self) -> impl Iterator<Item = &String> {
        [&self.twill, &self.other].into_iter().chain(&self.router)
    }

    /// The number of the subnet that the other side is on.
    pub(crate) fn subnet(&self) -> u8 {
        if self.router.is_some() { 2 } else { 1 }
    }

    /// Packets vanish between both; no interface goes down.
    pub(crate) fn cut(&self) {
        let ruleset = "table inet cut { chain i { type filter hook input priority -300; drop; }; \
                       chain o { type filter hook output priority -300; drop; }; }";
        fs::write(self.dir.join("cut.nft"), ruleset).unwrap();
        inside(&self.other, &format!("nft -f {}", self.dir.join("cut.nft").display()));
    }

    pub(crate) fn heal(&self) {
        inside(&self.other, "nft delete table inet cut");
    }

    /// A datagram from the other side, from its BFD's address.
    pub(crate) fn send(&self, octets: &[u8], to: &str, ttl: u32) {
        netns::inside(&self.other, || {
            let socket = UdpSocket::bind("10.73.1.2:0")?;
            socket.set_ttl(ttl)?;
            socket.send_to(octets, to)?;
            Ok(())
        })
        .unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for netns in self.namespaces() {
            // Gone already is as good.
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether the kernel of a namespace has a learned route to this prefix.
pub(crate) fn has_route(netns: &str, prefix: &str) -> bool {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    !run("ip", &format!("{family} -n {netns} route show {prefix} metric 512")).is_empty()
}

fn wire(ends: [(&String, &'static str, u8); 2], subnet: u8) {
    let [(one, one_device, _), (two, two_device, _)] = ends;
    run("ip", &format!("-n {one} link add {one_device} type veth peer name {two_device} netns {two}"));
    for (netns, device, host) in ends {
        let interfaces: [Interface; 2] = [
            (format!("10.73.{subnet}.{host}/24"), device, String::new()),
            (format!("fd73:{subnet}::{host}/64"), device, "nodad".to_owned()),
        ];
        for (address, device, flag) in interfaces {
            run("ip", &format!("-n {netns} address add {address} dev {device} {flag}"));
        }
        run("ip", &format!("-n {netns} link set {device} up"));
    }
}

/// A program inside a namespace, killed when this is dropped.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(netns: &str, path: &Path, args: &[&str], log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", netns]).arg(path).args(args);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn inside(netns: &str, command: &str) -> String {
    run("ip", &format!("netns exec {netns} {command}"))
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until the condition holds, and says how long that took.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// That the condition holds for so long, looked at every few milliseconds; says how often it was looked at.
pub(crate) fn holds(time: Duration, what: &str, mut condition: impl FnMut() -> bool) -> u32 {
    let start = Instant::now();
    let mut looks = 0;
    while start.elapsed() < time {
        assert!(condition(), "after {:?}: {what}", start.elapsed());
        looks += 1;
    }
    looks
}
