//! A whole speaker tells a station of its sessions (BMP, RFC 7854), as bgpkit-parser reads it.

use bgpkit_parser::models::{AttributeValue, BgpMessage};
use bgpkit_parser::parser::bmp::messages::{
    BmpMessage, BmpMessageBody, PeerDownReason, PerPeerFlags, TerminationTlvValue,
};
use bgpkit_parser::parser::bmp::parse_bmp_msg;
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use twill_bgpd::config::LoneConfig;
use twill_bgpd::fsm::Stop;
use twill_bgpd::io::SpeakerHandle;
use twill_bgpd::wire::{
    Attributes, Capability, Edits, Family, NextHop, Notification, Open, UpdateBuilder, V4, encode_keepalive,
};

const LIMIT: Duration = Duration::from_secs(30);

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start(text: &str, seed: u64) -> SpeakerHandle {
    let speaker = SpeakerHandle::start(None, seed).unwrap();
    speaker.reconfigure(LoneConfig::parse(text).unwrap().speaker).await;
    speaker
}

/// Whole messages.
fn messages(octets: &[u8]) -> Vec<BmpMessage> {
    let (mut rest, mut all) = (octets, Vec::new());
    while let Some(length) = rest.get(1..5) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some((message, next)) = rest.split_at_checked(length) else { break };
        all.push(parse_bmp_msg(&mut Bytes::copy_from_slice(message)).unwrap());
        rest = next;
    }
    all
}

/// Prefixes that are announced, and whether with the community that the filter adds.
fn announced(message: &BmpMessage) -> Vec<(String, bool)> {
    let BmpMessageBody::RouteMonitoring(monitoring) = &message.message_body else { return Vec::new() };
    let BgpMessage::Update(update) = &monitoring.bgp_message else { panic!("no UPDATE") };
    let tagged = update.attributes.iter_communities().any(|community| community.to_string() == "65001:9");
    let mut prefixes: Vec<String> = update.announced_prefixes.iter().map(ToString::to_string).collect();
    for attribute in update.attributes.iter() {
        if let AttributeValue::MpReachNlri(nlri) = attribute {
            prefixes.extend(nlri.prefixes.iter().map(ToString::to_string));
        }
    }
    prefixes.into_iter().map(|prefix| (prefix, tagged)).collect()
}

/// A peer of AS 65002 that tells one route, and says goodbye when it is told to. No loopback address is a next hop, so a speaker of ours will not do.
fn speak(listener: &TcpListener, bye: &std::sync::mpsc::Receiver<()>) {
    let (mut stream, _) = listener.accept().unwrap();
    let capabilities = vec![Capability::Multiprotocol(Family::Ipv4Unicast.into()), Capability::FourOctetAs(65002)];
    let mut first = Vec::new();
    Open { asn: 65002, hold_time: 90, identifier: [10, 0, 0, 2].into(), capabilities }.encode(&mut first);
    encode_keepalive(&mut first);
    let mut block = Vec::new();
    Attributes::default().export(&Edits::to_ebgp(65002), true, &mut block);
    let mut builder =
        UpdateBuilder::<V4>::announce(&mut first, 4096, &block, NextHop::V4([192, 0, 2, 1].into())).unwrap();
    builder.push((u32::from(Ipv4Addr::new(10, 2, 0, 0)), 16));
    builder.finish();
    stream.write_all(&first).unwrap();
    bye.recv_timeout(LIMIT).unwrap();
    let mut last = Vec::new();
    Notification::cease(2, "bye").encode(&mut last);
    stream.write_all(&last).unwrap();
}

#[tokio::test]
async fn bgpkit_understands_what_a_station_hears() {
    let station = TcpListener::bind("127.9.8.9:0").unwrap();
    let peer = TcpListener::bind("127.9.8.2:0").unwrap();
    let a = format!(
        "asn: 65001\nrouterID: 10.0.0.1\nlisten: []\nbmp: [{{address: 127.9.8.9, port: {}}}]\n\
         filters: {{tag: {{import: [{{set: {{addCommunities: ['65001:9']}}, action: Accept}}]}}}}\npeers:\n\
         - {{name: b, address: 127.9.8.2, port: {}, source: 127.9.8.1, asn: 65002, filters: [tag], export: all}}",
        station.local_addr().unwrap().port(),
        peer.local_addr().unwrap().port(),
    );
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    let collector = std::thread::spawn(move || {
        let (mut stream, _) = station.accept().unwrap();
        let mut piece = [0; 4096];
        while let Ok(octets @ 1..) = stream.read(&mut piece) {
            into.lock().unwrap().extend_from_slice(&piece[..octets]);
        }
    });
    let (say_bye, bye) = std::sync::mpsc::channel();
    let speaking = std::thread::spawn(move || speak(&peer, &bye));
    let a = start(&a, 1).await;
    let now = || messages(&heard.lock().unwrap());
    until("the route is monitored", async || now().iter().any(|message| !announced(message).is_empty())).await;
    say_bye.send(()).unwrap();
    speaking.join().unwrap();
    let is_down = |message: &BmpMessage| matches!(message.message_body, BmpMessageBody::PeerDownNotification(_));
    until("the session is told to be over", async || now().iter().any(is_down)).await;
    a.leave(Stop::Silently).await;
    collector.join().unwrap();

    let all = now();
    assert!(matches!(all[0].message_body, BmpMessageBody::InitiationMessage(_)));
    let last = &all.last().unwrap().message_body;
    let BmpMessageBody::TerminationMessage(end) = last else { panic!("{last:?}") };
    assert!(matches!(end.tlvs[0].info_value, TerminationTlvValue::Reason(_)));
    let up = all.iter().find_map(|message| match &message.message_body {
        BmpMessageBody::PeerUpNotification(up) => Some((message.per_peer_header.unwrap(), up)),
        _ => None,
    });
    let (header, up) = up.unwrap();
    assert_eq!((header.peer_ip.to_string(), header.peer_asn.to_u32()), ("127.9.8.2".to_owned(), 65002));
    assert_eq!(header.peer_bgp_id.to_string(), "10.0.0.2");
    assert_eq!(up.local_addr.to_string(), "127.9.8.1");
    let asn = |message: &BgpMessage| match message {
        BgpMessage::Open(open) => open.asn.to_u32(),
        other => panic!("{other:?}"),
    };
    assert_eq!((asn(&up.sent_open), asn(&up.received_open)), (65001, 65002));
    let told: Vec<_> = all.iter().flat_map(announced).collect();
    assert_eq!(told, [("10.2.0.0/16".to_owned(), true)], "with what our filter has added");
    let routes = all.iter().filter(|message| matches!(message.message_body, BmpMessageBody::RouteMonitoring(_)));
    for message in routes {
        let flags = message.per_peer_header.unwrap().peer_flags;
        assert!(matches!(flags, PerPeerFlags::PeerFlags(flags) if flags.is_post_policy()), "{flags:?}");
    }
    let down = all.iter().find_map(|message| match &message.message_body {
        BmpMessageBody::PeerDownNotification(down) => Some(down.reason),
        _ => None,
    });
    assert_eq!(down, Some(PeerDownReason::RemoteSystemClosedNotificationPduFollows));
}
