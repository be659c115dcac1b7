//! Next hops of the other family, and link-local ones.

use super::*;
use crate::fib::Change;
use crate::rib::{Key, V4};

const OURS: &str = "fe80::1";

fn v6(text: &str) -> std::net::Ipv6Addr {
    text.parse().unwrap()
}

/// An UPDATE that announces 10.9.0.0/16 with this next hop.
fn announced(next_hop: NextHop) -> Vec<u8> {
    let (mut block, mut out) = (Vec::new(), Vec::new());
    crate::wire::Attributes::default().export(&crate::wire::Edits::to_ebgp(65002), true, &mut block);
    let mut builder =
        crate::wire::UpdateBuilder::<crate::wire::V4>::announce(&mut out, MAX_MESSAGE, &block, next_hop).unwrap();
    builder.push((0x0a09_0000_u32, 16_u8));
    builder.finish();
    out
}

/// A speaker with 10.1.0.0/16 of its own and peers `n1`, `n2` of AS 65001 and 65002 on links 1 and 2, IPv6 alone.
struct Alone {
    speaker: Speaker,
    plan: Arc<Plan>,
    now: Instant,
}

impl Alone {
    fn new() -> Self {
        let now = Instant::now();
        let peers = [("n1", peer("fe80::a", 65001)), ("n2", peer("fe80::b", 65002))];
        let mut config = config(&peers);
        config.originate = ["10.1.0.0/16".parse().unwrap()].into();
        let plan = Arc::new(Plan::first(config));
        let mut speaker = Speaker::new(true, false, now);
        speaker.handle(Event::Plan(plan.clone()), now);
        Self { speaker, plan, now }
    }

    fn up(&mut self, number: u16, extended: bool, global: Option<&str>) {
        let negotiated = Negotiated {
            peer_asn: 65000 + u32::from(number),
            extended_next_hop: extended,
            ..Negotiated::sample(true, true)
        };
        let established = Established {
            negotiated,
            router_id: [1, 1, 1, 1].into(),
            remote: self.plan.config.peers[&format!("n{number}")].address,
            link: Link { zone: number.into(), unnumbered: true },
            next_hop_v4: None,
            next_hop_v6: global.map(v6),
            link_local: Some(v6(OURS)),
            shared: Vec::new(),
            opening: None,
        };
        self.speaker.handle(Event::Up(PeerId(number), number.into(), Box::new(established)), self.now);
    }

    fn hear(&mut self, number: u16, message: &[u8]) {
        let session = Negotiated { extended_next_hop: true, ..Negotiated::sample(true, true) };
        let link = Link { zone: number.into(), unnumbered: true };
        let mut receiver = Receiver::new(PeerId(number), number.into(), session.clone(), link);
        assert_eq!(receiver.update(message, &Update::decode(message, &session).unwrap()), None);
        self.speaker.handle(Event::Batch(receiver.take().unwrap()), self.now);
        let costs = self.speaker.next_hops().unwrap_or_default().into_iter().map(|hop| (hop, Some(0))).collect();
        self.speaker.handle(Event::Costs(costs), self.now);
    }

    /// What a peer is told, by prefix and next hop.
    fn told(&mut self, number: u16) -> Vec<(String, NextHop)> {
        let session = Negotiated { extended_next_hop: true, ..Negotiated::sample(true, true) };
        let mut out = Vec::new();
        self.speaker.flush(self.now, &mut out);
        let mut told = Vec::new();
        for output in out {
            let Output::Transmit(PeerId(to), _, bytes) = output else { continue };
            let mut framer = Framer::new(&bytes, MAX_MESSAGE);
            while let Some(frame) = framer.next_frame().unwrap() {
                let update = Update::decode(frame.bytes, &session).unwrap();
                for reach in update.announced().filter(|_| to == number) {
                    let crate::wire::Prefixes::V4(keys) = reach.prefixes else { continue };
                    told.extend(keys.map(|key| (V4::from_wire(key).net().to_string(), reach.next_hop)));
                }
            }
        }
        told.sort_by(|one, other| one.0.cmp(&other.0));
        told
    }
}

#[test]
fn ipv4_goes_out_with_our_ipv6_next_hop_where_that_was_agreed_on() {
    for (global, next_hop) in [
        (Some("2001:db8::1"), NextHop::V6 { global: v6("2001:db8::1"), link_local: Some(v6(OURS)) }),
        (None, NextHop::V6 { global: v6(OURS), link_local: None }),
    ] {
        let mut alone = Alone::new();
        alone.up(1, true, global);
        assert_eq!(alone.told(1), [("10.1.0.0/16".to_owned(), next_hop)]);
        let mut refused = Alone::new();
        refused.up(1, false, global);
        assert_eq!(refused.told(1), [], "no IPv4 next hop, and no other that it would take");
    }
}

#[test]
fn a_link_local_next_hop_is_told_on_as_ours_and_installed_on_its_link() {
    let mut alone = Alone::new();
    alone.up(1, true, None);
    alone.up(2, true, None);
    for next_hop in [
        NextHop::V6 { global: v6("fe80::b"), link_local: None },
        NextHop::V6 { global: v6("2001:db8::b"), link_local: Some(v6("fe80::b")) },
    ] {
        alone.hear(2, &announced(next_hop));
        let ours = NextHop::V6 { global: v6(OURS), link_local: None };
        assert!(alone.told(1).contains(&("10.9.0.0/16".to_owned(), ours)));
        let wanted = crate::scoped::ScopedAddr::new("fe80::b".parse().unwrap(), 2);
        let changes = alone.speaker.fib_changes(100);
        assert!(
            changes.contains(&Change { prefix: "10.9.0.0/16".parse().unwrap(), next_hops: vec![wanted] }),
            "{changes:?}"
        );
        let away = alone.now;
        alone.speaker.handle(Event::Down(PeerId(2), 2, Loss::Final), away);
        drop((alone.told(1), alone.speaker.fib_changes(100)));
        alone.up(2, true, None);
    }
}

#[test]
fn our_own_link_local_address_is_no_next_hop() {
    let mut alone = Alone::new();
    alone.up(2, true, None);
    alone.hear(2, &announced(NextHop::V6 { global: v6(OURS), link_local: None }));
    assert!(alone.speaker.fib_changes(100).iter().all(|change| change.next_hops.is_empty()));
}
