//! Many sessions that begin at the same instant.
//!
//! 1. BIRD has two hundred sessions with one Twill, between two hundred addresses of each, and both sides call; both processes start at once, and all
//!    sessions are Established within ten seconds, with all routes told.
//! 2. Forty-eight Twills, each with a session with each other, start at once: every pair of calls collides, and no session is lost to it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use twill_crds::control::{BgpdRequest, BgpdStatus, PeerStatus};
use twill_e2e::{succeeded, twill};
use twill_lab::io::daemons::ask;

/// Sessions of BIRD.
const PEERS: usize = 200;
/// How soon they are all Established.
const BOUND: Duration = Duration::from_secs(10);
/// Speakers of the mesh.
const MESH: usize = 48;
/// How long it may take: each of the processes is an unoptimised one.
const LIMIT: Duration = Duration::from_secs(60);
const QUICK: Duration = Duration::from_secs(5);

/// Held by the one test that runs: each counts seconds, and fills processors.
static ALONE: Mutex<()> = Mutex::new(());

/// Namespaces, processes and files of a test; gone with the value.
struct Scene {
    namespaces: Vec<String>,
    children: Vec<Child>,
    dir: PathBuf,
}

impl Scene {
    fn new(label: &str, namespaces: &[&str]) -> Self {
        let name = |of: &str| format!("twmany-{}-{label}-{of}", std::process::id());
        let dir = std::env::temp_dir().join(name("files"));
        fs::create_dir_all(&dir).unwrap();
        let scene = Self { namespaces: namespaces.iter().map(|of| name(of)).collect(), children: Vec::new(), dir };
        for netns in &scene.namespaces {
            ip(&format!("netns add {netns}"));
            ip(&format!("-n {netns} link set lo up"));
        }
        scene
    }

    /// Adds all these addresses to a device.
    fn addresses(&self, netns: usize, device: &str, addresses: impl Iterator<Item = String>) {
        let batch: String = addresses.map(|address| format!("address add {address} dev {device}\n")).collect();
        let file = self.dir.join(format!("addresses-{netns}"));
        fs::write(&file, batch).unwrap();
        ip(&format!("-n {} -batch {}", self.namespaces[netns], file.display()));
    }

    fn start(&mut self, netns: usize, name: &str, program: &Path, args: &[&str]) {
        let log = File::create(self.log(name)).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespaces[netns]]).arg(program).args(args).stdin(Stdio::null());
        self.children.push(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Starts a speaker with this file, whose socket and log are called like it.
    fn speaker(&mut self, netns: usize, name: &str, config: &str) {
        let run = self.dir.join(name);
        fs::create_dir_all(&run).unwrap();
        let text = |path: PathBuf| path.display().to_string();
        let (file, socket) = (text(run.join("twill.yaml")), text(run.join("bgpd.sock")));
        fs::write(&file, config).unwrap();
        self.start(
            netns,
            name,
            &twill().unwrap(),
            &["bgpd", "--config", &file, "--socket", &socket, "--run-dir", &text(run)],
        );
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// How many sessions of a speaker are Established, and how many prefixes came in them.
    fn sessions(&self, name: &str) -> (usize, u64) {
        let socket = self.dir.join(name).join("bgpd.sock");
        let peers: Vec<PeerStatus> = ask(&socket, &BgpdRequest::Peers, QUICK).unwrap_or_default();
        let up = peers.iter().filter(|peer| peer.state == "Established").count();
        (up, peers.iter().map(|peer| peer.received).sum())
    }

    fn problems(&self, name: &str) -> Vec<String> {
        let socket = self.dir.join(name).join("bgpd.sock");
        ask::<BgpdStatus>(&socket, &BgpdRequest::Status, QUICK).unwrap().problems
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
        for netns in &self.namespaces {
            // Gone already is as good.
            let _ = Command::new("ip").args(["netns", "del", netns]).output();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn ip(arguments: &str) {
    succeeded(Command::new("ip").args(arguments.split_whitespace()).output().unwrap()).unwrap();
}

fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    begun.elapsed()
}

fn bird_config() -> String {
    let mut text = "log \"/dev/null\" all;\nrouter id 10.76.1.1;\nprotocol device {}\n\
                    template bgp one {\n  connect delay time 1; connect retry time 2; \
                    error wait time 1, 2;\n}\nprotocol static four {\n  ipv4;\n"
        .to_owned();
    for number in 1..=PEERS {
        text += &format!("  route 10.77.{number}.0/24 blackhole;\n");
    }
    text += "}\n";
    for number in 1..=PEERS {
        text += &format!(
            "protocol bgp p{number} from one {{\n  local 10.76.1.{number} as {};\n  \
             neighbor 10.76.0.{number} as 65000;\n  ipv4 {{ import all; export where net = 10.77.{number}.0/24; }};\n}}\n",
            65100 + number
        );
    }
    text
}

#[test]
#[ignore = "needs root: make test"]
fn two_hundred_sessions_with_bird_begin_at_once_and_are_up_within_ten_seconds() {
    let _alone = ALONE.lock();
    let mut scene = Scene::new("bird", &["twill", "bird"]);
    let (twill, bird) = (scene.namespaces[0].clone(), scene.namespaces[1].clone());
    ip(&format!("-n {twill} link add eth0 type veth peer name eth0 netns {bird}"));
    // BIRD keeps one session with an address at most.
    scene.addresses(0, "eth0", (1..=PEERS).map(|number| format!("10.76.0.{number}/16")));
    scene.addresses(1, "eth0", (1..=PEERS).map(|number| format!("10.76.1.{number}/16")));
    for netns in [&twill, &bird] {
        ip(&format!("-n {netns} link set eth0 up"));
    }
    // Else each would be told the next hop of another, which is BIRD's own address, too.
    let peers = (1..=PEERS).map(|number| {
        format!(
            "- {{name: p{number}, address: 10.76.1.{number}, source: 10.76.0.{number}, asn: {}, import: all, export: all, nextHop: Self, families: [ipv4]}}\n",
            65100 + number
        )
    });
    let config = format!(
        "asn: 65000\nrouterID: 10.76.0.1\nlisten: [{{address: 0.0.0.0}}]\noriginate: [10.78.0.0/24]\npeers:\n{}",
        peers.collect::<String>()
    );
    let file = scene.dir.join("bird.conf");
    let control = scene.dir.join("bird.ctl").display().to_string();
    fs::write(&file, bird_config()).unwrap();
    scene.start(1, "bird", Path::new("bird"), &["-f", "-c", &file.display().to_string(), "-s", &control]);
    scene.speaker(0, "twill", &config);
    let up = within(LIMIT, "all sessions are Established here", || scene.sessions("twill").0 == PEERS);
    println!("{PEERS} sessions after {up:?}");
    let ask_bird = |command: &str| {
        let output = Command::new("birdc").args(["-s", &control]).args(command.split_whitespace()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    within(LIMIT, "and there", || ask_bird("show protocols").matches("Established").count() == PEERS);
    let told = within(LIMIT, "Twill has a route of each", || scene.sessions("twill").1 == PEERS as u64);
    // Each of the others tells it, and so does Twill's own prefix come on every session.
    within(LIMIT, "each has heard of the last", || {
        ask_bird("show route 10.77.200.0/24 all").matches("BGP.as_path: 65000 65300").count() == PEERS - 1
    });
    println!("all routes {told:?} later; {:?}", scene.problems("twill"));
    let log = fs::read_to_string(scene.log("twill")).unwrap();
    assert_eq!(log.matches("session down").count(), 0, "no session was lost on the way\n{log}");
    assert!(up < BOUND, "{PEERS} sessions took {up:?}");
}

#[test]
#[ignore = "needs root: make test"]
fn a_full_mesh_of_forty_eight_begins_at_once_and_loses_no_session_to_collisions() {
    let _alone = ALONE.lock();
    let mut scene = Scene::new("mesh", &["all"]);
    scene.addresses(0, "lo", (1..=MESH).map(|number| format!("10.78.0.{number}/32")));
    let config = |me: usize| {
        let others = (1..=MESH).filter(|other| *other != me);
        let peer = |other| {
            format!(
                "- {{name: n{other}, address: 10.78.0.{other}, asn: internal, source: 10.78.0.{me}, families: [ipv4]}}\n"
            )
        };
        format!(
            "asn: 65000\nrouterID: 10.78.0.{me}\nlisten: [{{address: 10.78.0.{me}}}]\noriginate: [10.79.{me}.0/24]\npeers:\n{}",
            others.map(peer).collect::<String>()
        )
    };
    for me in 1..=MESH {
        scene.speaker(0, &format!("n{me}"), &config(me));
    }
    let complete = (MESH - 1, MESH as u64 - 1);
    let mut left: Vec<String> = (1..=MESH).map(|me| format!("n{me}")).collect();
    let took = within(LIMIT, "every speaker has every session and every route", || {
        left.retain(|name| scene.sessions(name) != complete);
        left.is_empty()
    });
    println!("{} sessions complete {took:?} after the last of {MESH} was started", MESH * (MESH - 1) / 2);
    for me in 1..=MESH {
        let log = fs::read_to_string(scene.log(&format!("n{me}"))).unwrap();
        assert_eq!(log.matches("session down").count(), 0, "n{me} lost a session on the way\n{log}");
    }
}
