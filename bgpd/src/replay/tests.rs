use super::*;
use crate::config::LoneConfig;
use crate::mrt::{Ends, Form};
use crate::rib::{self, Key as _};
use crate::wire::{
    AfiSafi, Attributes, Capability, Edits, Family, GracefulRestart, NextHop, UpdateBuilder, V4, encode_end_of_rib,
    encode_keepalive,
};
use twill_crds::control::{RouteQuery, RouteView};

const CONFIG: &str = "\
asn: 65000
routerID: 10.0.0.1
peers:
- {name: a, address: 10.0.0.2, asn: 65001, import: all, export: none, gracefulRestart: {restartTime: 60}}
- {name: b, address: 10.0.0.3, asn: 65002, import: none, export: all}
";

/// A recording in the making.
#[derive(Default)]
struct Tape {
    bytes: Vec<u8>,
    at: Duration,
}

impl Tape {
    fn note(&mut self, peer: u8, what: What<'_>) {
        self.at += Duration::from_millis(1);
        let (local, peer_asn) = ("10.0.0.1".parse().unwrap(), 65000 + u32::from(peer) - 1);
        let ends = Ends { peer_asn, interface: 0, local_asn: 65000, peer: [10, 0, 0, peer].into(), local };
        Record { at: self.at, ends, what }.encode(&mut self.bytes);
    }

    fn message(&mut self, peer: u8, sent: bool, bytes: &[u8]) {
        self.note(peer, What::Message { sent, form: Form::PLAIN, bytes });
    }

    fn open(&mut self, peer: u8) {
        for (sent, asn, identifier) in [(true, 65000, 1), (false, 65000 + u32::from(peer) - 1, peer)] {
            let families = vec![(AfiSafi::from(Family::Ipv4Unicast), true)];
            let restart = GracefulRestart { restart_time: 60, families, ..GracefulRestart::default() };
            let capabilities = vec![
                Capability::Multiprotocol(Family::Ipv4Unicast.into()),
                Capability::FourOctetAs(asn),
                Capability::GracefulRestart(restart),
            ];
            let mut bytes = Vec::new();
            Open { asn, hold_time: 90, identifier: [10, 0, 0, identifier].into(), capabilities }.encode(&mut bytes);
            self.message(peer, sent, &bytes);
        }
        let mut keepalive = Vec::new();
        encode_keepalive(&mut keepalive);
        self.message(peer, false, &keepalive);
        self.note(peer, What::State { old: 5, new: 6 });
    }

    fn tell(&mut self, peer: u8, prefix: &str) {
        let mut block = Vec::new();
        Attributes::default().export(&Edits::to_ebgp(65000 + u32::from(peer) - 1), true, &mut block);
        let mut bytes = Vec::new();
        let hop = NextHop::V4([10, 0, 0, peer].into());
        let mut builder = UpdateBuilder::<V4>::announce(&mut bytes, 4096, &block, hop).unwrap();
        builder.push(rib::V4::of(prefix.parse().unwrap()).unwrap().wire());
        builder.finish();
        self.message(peer, false, &bytes);
    }

    fn end_of_rib(&mut self, peer: u8) {
        let mut bytes = Vec::new();
        encode_end_of_rib(Family::Ipv4Unicast, &mut bytes);
        self.message(peer, false, &bytes);
    }

    fn play(&self) -> Played {
        play(LoneConfig::parse(CONFIG).unwrap().speaker, &self.bytes).unwrap()
    }
}

fn shown(played: &Played, view: RouteView, peer: Option<&str>) -> Vec<String> {
    let query = RouteQuery { view, peer: peer.map(ToOwned::to_owned), ..RouteQuery::default() };
    let routes = played.speaker.routes(&query);
    routes.iter().map(|route| format!("{} {} {}", route.prefix, route.as_path, route.reason)).collect()
}

#[test]
fn a_recording_gives_the_routes_that_the_speaker_had_and_what_it_told() {
    let mut tape = Tape::default();
    tape.open(2);
    tape.open(3);
    tape.tell(2, "10.2.0.0/16");
    tape.tell(3, "10.3.0.0/16");
    let played = tape.play();
    assert_eq!(played.problems, [""; 0]);
    assert_eq!(shown(&played, RouteView::Taken, None), ["10.2.0.0/16 65001 best"]);
    assert_eq!(shown(&played, RouteView::Advertised, Some("b")), ["10.2.0.0/16 65000 65001 "]);
    assert_eq!(shown(&played, RouteView::Rejected, None), ["10.3.0.0/16 65002 import takes nothing of the kind"]);
}

#[test]
fn time_passes_as_it_did() {
    let mut tape = Tape::default();
    tape.open(2);
    tape.tell(2, "10.2.0.0/16");
    tape.end_of_rib(2);
    tape.note(2, What::State { old: 6, new: 1 });
    assert_eq!(shown(&tape.play(), RouteView::Taken, None), ["10.2.0.0/16 65001 best; its peer restarts"]);
    tape.at += Duration::from_secs(61);
    tape.open(3);
    assert_eq!(shown(&tape.play(), RouteView::Taken, None), [""; 0], "its restart time is over");
}

#[test]
fn what_cannot_be_played_is_said_once() {
    let mut tape = Tape::default();
    tape.tell(2, "10.2.0.0/16");
    tape.open(9);
    tape.open(2);
    tape.tell(2, "10.2.0.0/16");
    let played = tape.play();
    assert_eq!(
        played.problems,
        [
            "peer a: an UPDATE before its session began; it is passed over",
            "4 records are of 10.0.0.9, which is no peer of the configuration; they are passed over"
        ]
    );
    assert_eq!(shown(&played, RouteView::Taken, None).len(), 1);
    let config = || LoneConfig::parse(CONFIG).unwrap().speaker;
    assert!(play(config(), b"").is_err_and(|problem| problem.contains("no BGP session")));
    assert!(play(config(), b"asn: 65000\n").is_err_and(|problem| problem.contains("cut off")));
}
