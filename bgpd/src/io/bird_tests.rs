//! Beside BIRD 2, over real links, with routes in the kernel.
//!
//! ```text
//!            10.71.1.0/24, fd71:1::/64          10.71.2.0/24, fd71:2::/64
//!  bird one ─────────────────────────── Twill ─────────────────────────── bird two
//!  AS 4200000001, waits for Twill       AS 65000       AS 65002, dials, Twill waits
//!  198.51.100.0/24, 2001:db8:1::/48     10.42.0.0/24
//!  203.0.113.0/24                       fd42::/64      203.0.113.0/24
//! ```
//! 1. Sessions come up whichever side dials, with MD5 on one of them, for both families.
//! 2. BIRD's prefixes are in Twill's kernel; the one that both have goes over both links.
//! 3. Twill's prefixes, and what it transits, are in BIRD with the right AS paths.
//! 4. A refresh that BIRD asks for is answered.
//! 5. What BIRD withdraws is gone from the kernel and from the other BIRD.
//! 6. SIGTERM's way of leaving keeps the kernel's routes.

use super::SpeakerHandle;
use super::netns::{Netns, within};
use crate::config::LoneConfig;
use crate::fib;
use crate::fsm::Stop;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

const TWILL: &str = "\
asn: 65000
routerID: 10.71.0.1
listen: [{address: 0.0.0.0}]
installRoutes: true
originate: [10.42.0.0/24, 'fd42::/64']
peers:
- {name: one, address: 10.71.1.2, asn: 4200000001, import: all, export: all, password: secret, holdTime: 9}
- {name: two, address: 10.71.2.2, asn: 65002, import: all, export: all, passive: true}
";

struct Bird {
    child: Child,
    directory: PathBuf,
}

impl Bird {
    fn start(netns: &Netns, number: u8, session: &str, routes: &str) -> Self {
        let directory = std::env::temp_dir().join(&netns.name);
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "log \"/dev/null\" all;\nrouter id 10.71.0.{};\nprotocol device {{ scan time 1; }}\n\
             protocol static four {{ ipv4; route 203.0.113.0/24 blackhole; {routes} }}\n\
             protocol static six {{ ipv6; route 2001:db8:{number}::/48 blackhole; }}\n\
             protocol bgp twill {{ {session}\n  connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
             \x20 neighbor 10.71.{number}.1 as 65000;\n  ipv4 {{ import all; export all; next hop self; }};\n\
             \x20 ipv6 {{ import all; export all; next hop self; }};\n}}\n",
            number + 1
        );
        std::fs::write(directory.join("config"), config).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &netns.name, "bird", "-f", "-c"])
            .arg(directory.join("config"))
            .arg("-s")
            .arg(directory.join("control"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bird = Self { child, directory };
        within(LIMIT, "bird answers", || bird.directory.join("control").exists());
        bird
    }

    /// The answer; that there is no such route, say, is one too.
    fn ask(&self, command: &str) -> String {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(self.directory.join("control")).args(command.split_whitespace());
        String::from_utf8(birdc.output().unwrap().stdout).unwrap()
    }

    /// Waits until the answer to `command` contains every one of `words`.
    fn says(&self, command: &str, words: &[&str]) {
        let mut last = String::new();
        let all = || {
            last = self.ask(command);
            words.iter().all(|word| last.contains(word))
        };
        within(LIMIT, &format!("bird's {command} has {words:?}"), all);
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn link(twill: &Netns, bird: &Netns, number: u8) {
    twill.ip(&format!("link add b{number} type veth peer name t0 netns {}", bird.name));
    for (netns, device, host) in [(twill, format!("b{number}"), 1), (bird, "t0".to_owned(), 2)] {
        netns.ip(&format!("address add 10.71.{number}.{host}/24 dev {device}"));
        netns.ip(&format!("address add fd71:{number}::{host}/64 dev {device} nodad"));
        netns.ip(&format!("link set {device} up"));
    }
}

fn kernel_has(netns: &Netns, prefix: &str, words: &[&str]) {
    let mut last = String::new();
    let all = || {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        last = netns.ip(&format!("{family} route show {prefix}"));
        words.iter().all(|word| last.contains(word))
    };
    within(LIMIT, &format!("{prefix} with {words:?} in the kernel"), all);
}

fn kernel_lacks(netns: &Netns, prefix: &str) {
    within(LIMIT, &format!("{prefix} is gone from the kernel"), || {
        netns.ip(&format!("route show {prefix}")).is_empty()
    });
}

#[test]
#[ignore = "needs root and bird2: make test"]
fn sessions_routes_ecmp_refresh_and_withdrawal_with_bird() {
    let (twill, one, two) = (Netns::new("twill"), Netns::new("one"), Netns::new("two"));
    link(&twill, &one, 1);
    link(&twill, &two, 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = LoneConfig::parse(TWILL).unwrap();
    let kernel = fib::Config { install: true, ..fib::Config::default() };
    let speaker = twill.enter(|| SpeakerHandle::start(Some(kernel), 1)).unwrap();
    runtime.block_on(speaker.reconfigure(config.speaker));

    let extra = "route 198.51.100.0/24 blackhole;";
    let first = Bird::start(&one, 1, "local as 4200000001; passive; password \"secret\";", extra);
    let second = Bird::start(&two, 2, "local as 65002;", "");
    for bird in [&first, &second] {
        bird.says("show protocols twill", &["Established"]);
    }

    kernel_has(&twill, "198.51.100.0/24", &["via 10.71.1.2", "metric 512"]);
    kernel_has(&twill, "203.0.113.0/24", &["via 10.71.1.2", "via 10.71.2.2"]);
    kernel_has(&twill, "2001:db8:1::/48", &["via fd71:1::2"]);

    second.says("show route all 10.42.0.0/24", &["10.71.2.1", "BGP.as_path: 65000"]);
    second.says("show route all 198.51.100.0/24", &["BGP.as_path: 65000 4200000001", "BGP.next_hop: 10.71.2.1"]);
    second.says("show route all fd42::/64", &["fd71:2::1"]);
    first.says("show route all 2001:db8:2::/48", &["BGP.as_path: 65000 65002"]);

    let updates = |bird: &Bird| {
        let counts = bird.ask("show protocols all twill");
        let line = counts.lines().find(|line| line.contains("Import updates:")).unwrap().to_owned();
        line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
    };
    let before = updates(&second);
    second.ask("reload in twill");
    within(LIMIT, "the refresh is answered", || updates(&second) > before);
    second.says("show route all 198.51.100.0/24", &["BGP.as_path: 65000 4200000001"]);

    first.ask("disable four");
    kernel_lacks(&twill, "198.51.100.0/24");
    within(LIMIT, "one path is left", || !twill.ip("route show 203.0.113.0/24").contains("10.71.1.2"));
    kernel_has(&twill, "203.0.113.0/24", &["via 10.71.2.2"]);
    within(LIMIT, "the other BIRD hears it", || !second.ask("show route").contains("198.51.100.0/24"));

    runtime.block_on(speaker.leave(Stop::Silently));
    let (done, settled) = std::sync::mpsc::channel();
    speaker.fib().unwrap().settle(move |status| drop(done.send(status)));
    assert_eq!(settled.recv_timeout(LIMIT).unwrap().installed, 3, "203.0.113.0/24 and two of IPv6");
    drop(speaker);
    within(LIMIT, "the session is over", || !second.ask("show protocols twill").contains("Established"));
    kernel_has(&twill, "203.0.113.0/24", &["via 10.71.2.2"]);
}
