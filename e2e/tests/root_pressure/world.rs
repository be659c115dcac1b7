//! The speaker under pressure, and the segment that it shares with hand-driven peers.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use twill_crds::control::{BgpdRequest, PeerStatus};
use twill_e2e::{succeeded, twill};
use twill_lab::io::daemons::ask;

/// How long anything may take to begin.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

static COUNTER: AtomicU32 = AtomicU32::new(0);
/// Held by the one world that there is: what counts seconds is not run beside what else fills processors.
static ALONE: Mutex<()> = Mutex::new(());

/// `twill bgpd` at 10.74.0.1, and one namespace with the addresses of all its peers.
pub(crate) struct World {
    speaker: String,
    pub(crate) peers: String,
    dir: PathBuf,
    child: Option<Child>,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Peers `teller`, `hearer`, `bad` and `loader` are 10.74.0.2 to .5 in AS 65002 to 65005, all with a hold time of three seconds;
    /// 10.74.0.9 is nobody's.
    pub(crate) fn new() -> Self {
        // A test that failed with it has left nothing that this one could meet.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = |label: &str| format!("twprs-{}-{number}-{label}", std::process::id());
        let dir = std::env::temp_dir().join(name("files"));
        fs::create_dir_all(&dir).unwrap();
        let mut world = Self { speaker: name("s"), peers: name("p"), dir, child: None, _alone: alone };
        for netns in [&world.speaker, &world.peers] {
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {netns} link set lo up"));
        }
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", world.speaker, world.peers));
        ip(&format!("-n {} address add 10.74.0.1/24 dev eth0", world.speaker));
        for host in [2, 3, 4, 5, 9] {
            ip(&format!("-n {} address add 10.74.0.{host}/24 dev eth0", world.peers));
        }
        for netns in [&world.speaker, &world.peers] {
            ip(&format!("-n {netns} link set eth0 up"));
        }
        world.start();
        world
    }

    fn start(&mut self) {
        let peer = |(host, name, import, export): (u8, &str, &str, &str)| {
            format!(
                "- {{name: {name}, address: 10.74.0.{host}, asn: {}, passive: true, holdTime: 3, import: {import}, \
                 export: {export}, families: [ipv4]}}\n",
                65000 + u32::from(host)
            )
        };
        let peers = [
            (2, "teller", "all", "none"),
            (3, "hearer", "none", "all"),
            (4, "bad", "all", "all"),
            (5, "loader", "all", "none"),
        ];
        let peers: String = peers.map(peer).concat();
        let text = format!("asn: 65000\nrouterID: 10.74.0.1\nlisten: [{{address: 0.0.0.0}}]\npeers:\n{peers}");
        let config = self.dir.join("twill.yaml");
        fs::write(&config, text).unwrap();
        let log = fs::File::create(self.dir.join("log")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.speaker]).arg(twill().unwrap()).args(["bgpd", "--config"]).arg(config);
        command.arg("--socket").arg(self.dir.join("bgpd.sock")).arg("--run-dir").arg(&self.dir).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let socket = self.dir.join("bgpd.sock");
        within(LIMIT, "the speaker answers", || socket.exists());
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What it says of a peer.
    pub(crate) fn peer(&self, name: &str) -> PeerStatus {
        let peers: Vec<PeerStatus> = ask(&self.dir.join("bgpd.sock"), &BgpdRequest::Peers, LIMIT).unwrap();
        peers.into_iter().find(|peer| peer.name == name).unwrap()
    }

    pub(crate) fn is_established(&self, name: &str) -> bool {
        self.peer(name).state == "Established"
    }

    /// Its open files.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The most memory that it has had resident, in MiB.
    pub(crate) fn peak_mib(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u32>().unwrap() / 1024
    }

    /// Packets of this peer vanish in both directions; no interface goes down.
    pub(crate) fn cut(&self, host: u8) {
        let ruleset = format!(
            "table inet cut {{ chain i {{ type filter hook input priority -300; ip daddr 10.74.0.{host} drop; }}; \
             chain o {{ type filter hook output priority -300; ip saddr 10.74.0.{host} drop; }}; }}"
        );
        let file = self.dir.join("cut.nft");
        fs::write(&file, ruleset).unwrap();
        ip(&format!("netns exec {} nft -f {}", self.peers, file.display()));
    }

    pub(crate) fn heal(&self) {
        ip(&format!("netns exec {} nft delete table inet cut", self.peers));
    }

    /// What the speaker wrote.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        for netns in [&self.speaker, &self.peers] {
            // Gone already is as good.
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn ip(arguments: &str) {
    succeeded(Command::new("ip").args(arguments.split_whitespace()).output().unwrap()).unwrap();
}

/// Waits until the condition holds; returns how long that took.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}
