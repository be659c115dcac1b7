//! The speakers: Twill's own, BIRD and FRR.

use super::world::{LIMIT, Program, World, has_route, run, within};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use twill_crds::control::{BfdRequest, BfdStatus, BgpdRequest, PeerStatus};
use twill_e2e::twill;
use twill_lab::io::daemons::ask;

const QUICK: Duration = Duration::from_secs(5);

/// What the other side announces, one prefix per family.
pub(crate) const PREFIXES: [&str; 2] = ["203.0.113.0/24", "2001:db8:113::/48"];
/// What Twill announces.
pub(crate) const OWN: [&str; 2] = ["10.42.0.0/24", "fd42::/64"];

/// `twill bgpd --config` beside the `twill bfd` that it starts; the latter ends with the test.
pub(crate) struct Twill {
    pub(crate) bgpd: Program,
    netns: String,
    dir: PathBuf,
    /// What the other side announces.
    prefixes: [&'static str; 2],
}

impl Twill {
    /// Both sessions, one per family, with `options` each.
    pub(crate) fn start(world: &World, options: &str) -> Self {
        let subnet = world.subnet();
        let text = format!(
            "asn: 65000\nrouterID: 10.73.0.1\ninstallRoutes: true\noriginate: [{}, '{}']\npeers:\n{}",
            OWN[0],
            OWN[1],
            peers(
                ["10.73.1.1", "fd73:1::1"],
                [format!("10.73.{subnet}.2"), format!("fd73:{subnet}::2")],
                65001,
                options
            )
        );
        Self::start_in(&world.twill, world.dir.join("twill"), PREFIXES, &text)
    }

    /// The other side, in the place of BIRD and FRR.
    pub(crate) fn start_other(world: &World, options: &str) -> Self {
        let peers = peers(["10.73.1.2", "fd73:1::2"], ["10.73.1.1".to_owned(), "fd73:1::1".to_owned()], 65000, options);
        let text = format!(
            "asn: 65001\nrouterID: 10.73.0.2\ninstallRoutes: true\noriginate: [{}, '{}']\npeers:\n{peers}",
            PREFIXES[0], PREFIXES[1]
        );
        Self::start_in(&world.other, world.dir.join("other"), OWN, &text)
    }

    fn start_in(netns: &str, dir: PathBuf, prefixes: [&'static str; 2], text: &str) -> Self {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("bgpd.yaml"), text).unwrap();
        Self { bgpd: Self::run(netns, &dir), netns: netns.to_owned(), dir, prefixes }
    }

    fn run(netns: &str, dir: &Path) -> Program {
        let text = |path: PathBuf| path.display().to_string();
        let (config, socket) = (text(dir.join("bgpd.yaml")), text(dir.join("bgpd.sock")));
        let args = ["bgpd", "--config", &config, "--socket", &socket, "--run-dir", &text(dir.to_owned())];
        Program::start(netns, &twill().unwrap(), &args, &dir.join("log"))
    }

    pub(crate) fn configuration(&self) -> String {
        fs::read_to_string(self.dir.join("bgpd.yaml")).unwrap()
    }

    /// A new file, which is read at once.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.dir.join("bgpd.yaml"), text).unwrap();
        run("kill", &format!("-HUP {}", self.bgpd.id()));
    }

    /// SIGKILL for bgpd alone.
    pub(crate) fn kill_bgpd(&mut self) {
        self.bgpd.kill();
    }

    pub(crate) fn start_bgpd(&mut self) {
        self.bgpd = Self::run(&self.netns, &self.dir);
    }

    /// Process of `twill bfd`: whoever holds its socket.
    pub(crate) fn bfd_process(&self) -> Option<i32> {
        let wanted = self.dir.display().to_string();
        let found = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_it = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split('\0').collect();
            words.get(1) == Some(&"bfd") && words.contains(&wanted.as_str())
        };
        found.into_iter().find(is_it)
    }

    pub(crate) fn signal_bfd(&self, signal: &str) {
        run("kill", &format!("-{signal} {}", self.bfd_process().unwrap()));
    }

    pub(crate) fn peers(&self) -> Vec<PeerStatus> {
        ask(&self.dir.join("bgpd.sock"), &BgpdRequest::Peers, QUICK).unwrap_or_default()
    }

    pub(crate) fn bfd(&self) -> BfdStatus {
        ask(&self.dir.join("bfd.sock"), &BfdRequest::Status, QUICK).unwrap_or_default()
    }

    pub(crate) fn are_established(&self) -> bool {
        let peers = self.peers();
        peers.len() == 2 && peers.iter().all(|peer| peer.state == "Established")
    }

    pub(crate) fn are_watched(&self) -> bool {
        let peers = self.peers();
        peers.len() == 2 && peers.iter().all(|peer| peer.bfd.as_deref() == Some("Up"))
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.are_established() && self.are_watched() && self.has_routes()
    }

    /// Whether the kernel has both of the other side's prefixes.
    pub(crate) fn has_routes(&self) -> bool {
        self.prefixes.iter().all(|prefix| has_route(&self.netns, prefix))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap()
    }
}

/// Two sessions as the file has them: of each family from one address to the other.
fn peers(from: [&str; 2], to: [String; 2], asn: u32, options: &str) -> String {
    let lines = [("four", "ipv4"), ("six", "ipv6")].into_iter().zip(from).zip(to).map(|(((name, family), from), to)| {
        format!(
            "- {{name: {name}, address: '{to}', source: '{from}', asn: {asn}, families: [{family}], import: all, export: all, {options}}}\n"
        )
    });
    lines.collect()
}

impl Drop for Twill {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.bgpd.kill();
        if let Some(pid) = self.bfd_process() {
            // It may be ending.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// BIRD: one process, BFD inside.
pub(crate) struct Bird {
    program: Program,
    dir: PathBuf,
}

impl Bird {
    /// `session` goes into both sessions, `detection` beside them.
    pub(crate) fn start(world: &World, session: &str, detection: &str) -> Self {
        let subnet = world.subnet();
        let times = "min rx interval 100 ms; min tx interval 100 ms; idle tx interval 1 s; multiplier 5;";
        let config = format!(
            "log stderr all;\nrouter id 10.73.0.2;\nprotocol device {{ scan time 1; }}\n\
             protocol bfd {{ interface \"*\" {{ {times} }}; multihop {{ {times} }}; {detection} }}\n\
             protocol static four {{ ipv4; route {} blackhole; }}\nprotocol static six {{ ipv6; route {} blackhole; }}\n\
             template bgp twill {{ local as 65001; connect retry time 1; connect delay time 1; error wait time 1, 2; {session} }}\n\
             protocol bgp bgp4 from twill {{ local 10.73.{subnet}.2; neighbor 10.73.1.1 as 65000; ipv4 {{ import all; export all; }}; }}\n\
             protocol bgp bgp6 from twill {{ local fd73:{subnet}::2; neighbor fd73:1::1 as 65000; ipv6 {{ import all; export all; }}; }}\n",
            PREFIXES[0], PREFIXES[1]
        );
        let dir = world.dir.clone();
        fs::write(dir.join("bird.conf"), config).unwrap();
        let (config, socket) =
            (dir.join("bird.conf").display().to_string(), dir.join("bird.ctl").display().to_string());
        let args = ["-f", "-c", &config, "-s", &socket, "-P", &dir.join("bird.pid").display().to_string()];
        let program = Program::start(&world.other, Path::new("/usr/sbin/bird"), &args, &dir.join("bird.log"));
        let bird = Self { program, dir };
        within(LIMIT, "bird answers", || bird.dir.join("bird.ctl").exists());
        bird
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        let mut birdc = Command::new("/usr/sbin/birdc");
        birdc.arg("-s").arg(self.dir.join("bird.ctl")).args(command.split_whitespace());
        String::from_utf8(birdc.output().unwrap().stdout).unwrap()
    }
}

impl Bird {
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.dir.join("bird.log")).unwrap_or_default());
        }
        self.program.kill();
    }
}

/// FRR: zebra, bfdd and bgpd. All give up root for their own user, so they have a directory of their own.
pub(crate) struct Frr {
    programs: Vec<Program>,
    dir: PathBuf,
}

impl Frr {
    pub(crate) fn start(world: &World, multihop: bool) -> Self {
        let dir = world.dir.join("frr");
        fs::create_dir_all(&dir).unwrap();
        run("chown", &format!("frr:frr {}", dir.display()));
        let subnet = world.subnet();
        let mut config = "hostname other\nrouter bgp 65001\n bgp router-id 10.73.0.2\n no bgp ebgp-requires-policy\n \
                          no bgp default ipv4-unicast\n no bgp network import-check\n bgp graceful-restart\n"
            .to_owned();
        for (peer, source) in [("10.73.1.1", format!("10.73.{subnet}.2")), ("fd73:1::1", format!("fd73:{subnet}::2"))] {
            config += &format!(
                " neighbor {peer} remote-as 65000\n neighbor {peer} timers connect 1\n neighbor {peer} update-source {source}\n \
                 neighbor {peer} bfd 5 100 100\n"
            );
            if multihop {
                config += &format!(" neighbor {peer} ebgp-multihop 8\n");
            }
        }
        for (family, peer, prefix) in [("ipv4", "10.73.1.1", PREFIXES[0]), ("ipv6", "fd73:1::1", PREFIXES[1])] {
            config += &format!(
                " address-family {family} unicast\n  network {prefix}\n  neighbor {peer} activate\n exit-address-family\n"
            );
        }
        let mut frr = Self { programs: Vec::new(), dir };
        for (name, config) in [("zebra", "hostname other\n"), ("bfdd", "hostname other\n"), ("bgpd", &config)] {
            frr.run(world, name, config);
        }
        frr
    }

    fn run(&mut self, world: &World, name: &str, config: &str) {
        let file = |suffix: &str| self.dir.join(format!("{name}.{suffix}")).display().to_string();
        fs::write(file("conf"), config).unwrap();
        let dir = self.dir.display().to_string();
        let (zserv, pid, conf) = (self.dir.join("zserv.api").display().to_string(), file("pid"), file("conf"));
        let mut args = vec!["--vty_socket", &dir, "-i", &pid, "-z", &zserv, "-f", &conf, "-A", "127.0.0.1", "-P", "0"];
        args.extend(["--log", "stdout"]);
        let control = self.dir.join("bfdd.sock").display().to_string();
        if name == "bfdd" {
            args.extend(["--bfdctl", &control]);
        }
        let path = Path::new("/usr/lib/frr").join(name);
        let program = Program::start(&world.other, &path, &args, &self.dir.join(format!("{name}.log")));
        self.programs.push(program);
        let vty = self.dir.join(format!("{name}.vty"));
        within(LIMIT, &format!("{name} answers"), || vty.exists());
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        let output = Command::new("vtysh").arg("--vty_socket").arg(&self.dir).args(["-c", command]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Frr {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["bfdd", "bgpd"] {
                eprintln!("{}", fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default());
            }
        }
        // bgpd first: it tells the others of its end.
        self.programs.iter_mut().rev().for_each(Program::kill);
    }
}
