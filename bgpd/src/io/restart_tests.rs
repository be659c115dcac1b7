//! Two speakers on one link, with routes in the kernel, one of which restarts.

use super::SpeakerHandle;
use super::netns::{Netns, within};
use crate::config::LoneConfig;
use crate::fib;
use crate::fsm::Stop;
use std::time::Duration;
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(20);

fn config(me: u8, other: u8) -> LoneConfig {
    let text = format!(
        "asn: 6500{me}\nrouterID: 10.72.1.{me}\nlisten: [{{address: 10.72.1.{me}}}]\ninstallRoutes: true\n\
         originate: [10.{me}.0.0/24, 'fd10:{me}::/64']\npeers:\n\
         - {{name: other, address: 10.72.1.{other}, asn: 6500{other}, import: all, export: all, \
         gracefulRestart: {{restartTime: 120}}}}\n"
    );
    LoneConfig::parse(&text).unwrap()
}

fn start(netns: &Netns, me: u8, other: u8, runtime: &Runtime) -> SpeakerHandle {
    let kernel = fib::Config { install: true, ..fib::Config::default() };
    let speaker = netns.enter(|| SpeakerHandle::start(Some(kernel), u64::from(me))).unwrap();
    runtime.block_on(speaker.reconfigure(config(me, other).speaker));
    speaker
}

fn is_up(speaker: &SpeakerHandle, runtime: &Runtime) -> bool {
    runtime.block_on(speaker.peers()).0[0].state == "Established"
}

/// Routes that both families have by the peer's next hop.
fn routes(netns: &Netns) -> usize {
    let all = netns.ip("-4 route show metric 512") + &netns.ip("-6 route show metric 512");
    all.lines().filter(|line| line.contains("via")).count()
}

#[test]
#[ignore = "needs root: make test"]
fn routes_of_a_peer_that_restarts_stay_and_come_back_fresh() {
    let (one, two) = (Netns::new("r1"), Netns::new("r2"));
    one.ip(&format!("link add v0 type veth peer name v0 netns {}", two.name));
    for (netns, host) in [(&one, 1), (&two, 2)] {
        netns.ip(&format!("address add 10.72.1.{host}/24 dev v0"));
        netns.ip(&format!("address add fd72::{host}/64 dev v0 nodad"));
        netns.ip("link set v0 up");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut watch = Watch::new(&two);
    let stays = start(&two, 2, 1, &runtime);
    for round in 0..3 {
        let restarts = start(&one, 1, 2, &runtime);
        within(LIMIT, "the session is up", || is_up(&stays, &runtime));
        within(LIMIT, &format!("routes of both sides, round {round}"), || routes(&one) == 2 && routes(&two) == 2);
        let fresh = || {
            let paths = runtime.block_on(stays.routes(twill_crds::control::RouteQuery::default()));
            paths.iter().filter(|path| path.installed && path.reason == "best").count() == 2
        };
        within(LIMIT, &format!("fresh paths, round {round}"), fresh);
        runtime.block_on(restarts.leave(Stop::Silently));
        drop(restarts);
        within(LIMIT, "the session is down", || !is_up(&stays, &runtime));
        assert_eq!((routes(&one), routes(&two)), (2, 2), "both keep their kernel routes");
    }
    assert_eq!(watch.deleted(), "", "not for an instant was a route of the peer away");
}

/// `ip monitor route` in a namespace.
struct Watch(std::process::Child, std::process::ChildStdout);

impl Watch {
    fn new(netns: &Netns) -> Self {
        let mut command = std::process::Command::new("ip");
        command.args(["-n", &netns.name, "monitor", "route"]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        Self(child, output)
    }

    /// Our routes that were deleted.
    fn deleted(&mut self) -> String {
        self.0.kill().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.1, &mut text).unwrap();
        assert!(text.contains("metric 512"), "the monitor has seen nothing: {text}");
        text.lines().filter(|line| line.contains("Deleted") && line.contains("metric 512")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
