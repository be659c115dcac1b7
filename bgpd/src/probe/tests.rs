//! Probing without a network: what a network does to requests is said, time passes, and what is reported is looked at.

use super::packet::{Heard, Mark};
use super::prober::Prober;
use super::{Ask, News, Session, Signs, Time, Way, Words};
use crate::fib::{End, Ends};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

const OWN: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 11);
const TUNNEL: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 0);
const ROUTER: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);
const STEP: Duration = Duration::from_millis(100);

fn secs(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

/// The end number `number`, counted from 1.
fn end(number: u16) -> End {
    let [high, low] = number.to_be_bytes();
    End {
        node: format!("n{number}"),
        outer: Ipv4Addr::new(172, 32, high, low),
        inner: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 43, 0, 0)) + (u32::from(number) << 6)),
    }
}

fn ends(count: u16) -> Ends {
    Ends {
        outer: Some(OWN),
        inner: Some(TUNNEL),
        pools: vec!["default".to_owned()],
        others: (1..=count).map(end).collect(),
    }
}

/// What becomes of a request on its way to one peer.
#[derive(Clone, Copy, Default)]
struct Path {
    plain: bool,
    routed: bool,
    wrapped: bool,
    /// Who says that he does not take protocol 4.
    refused_by: Option<Ipv4Addr>,
    /// He says that a rule forbids it.
    prohibited: bool,
}

const OPEN: Path = Path { plain: true, routed: true, wrapped: true, refused_by: None, prohibited: false };
const FILTERED: Path = Path { routed: false, wrapped: false, ..OPEN };
const SILENT: Path = Path { plain: false, ..FILTERED };

/// A node, and the network around it.
struct Node {
    prober: Prober,
    now: Time,
    path: Path,
    /// Peers for whom it is another one.
    paths: BTreeMap<Ipv4Addr, Path>,
    signs: Signs,
    /// Something is heard in each session every so often.
    keepalive: Option<Duration>,
    asked: Vec<(Time, Ipv4Addr, Way)>,
}

impl Node {
    fn new(others: u16, path: Path) -> Self {
        let mut prober = Prober::new(7);
        prober.want(Duration::ZERO, ends(others));
        let signs = Signs { received: Some(0), ..Signs::default() };
        Self { prober, now: Duration::ZERO, path, paths: BTreeMap::new(), signs, keepalive: None, asked: Vec::new() }
    }

    /// Lets time pass up to `until`, and says when the report first had as many filtered peers as it has then.
    fn run(&mut self, until: u64) -> Time {
        let (mut since, mut count) = (self.now, self.filtered());
        while self.now < secs(until) {
            self.now += STEP;
            if let Some(every) = self.keepalive
                && self.now.as_millis().is_multiple_of(every.as_millis())
            {
                let up = Session::Up { heard: Some(self.now) };
                let peers = self.prober.report().asked as u16;
                self.signs.sessions.extend((1..=peers).map(|number| (end(number).outer, up)));
            }
            if self.prober.poll_timeout().is_some_and(|at| at <= self.now) {
                let mut out = Vec::new();
                self.prober.handle_timeout(self.now, &self.signs.clone(), &mut out);
                out.into_iter().for_each(|ask| self.carry(ask));
            }
            if count != self.filtered() {
                (since, count) = (self.now, self.filtered());
            }
        }
        since
    }

    fn carry(&mut self, ask: Ask) {
        let inside = if ask.way == Way::Wrapped { &ask.packet[20..] } else { &ask.packet[..] };
        let word = |at: usize| u16::from_be_bytes([inside[at], inside[at + 1]]);
        let token = u64::from_be_bytes(*inside[28..].first_chunk().unwrap());
        let mark = Mark { id: word(24), sequence: word(26), token };
        let peer = if ask.way == Way::Routed { Self::behind(ask.to) } else { ask.to };
        self.asked.push((self.now, peer, ask.way));
        let path = self.paths.get(&peer).copied().unwrap_or(self.path);
        let passes = match ask.way {
            Way::Plain => path.plain,
            Way::Routed => path.routed,
            Way::Wrapped => path.wrapped,
        };
        if passes {
            self.prober.hear(Heard::Reply { from: ask.to, mark });
        } else if let Some(by) = path.refused_by.filter(|_| ask.way != Way::Plain) {
            self.prober.hear(Heard::Refused { from: by, to: peer, prohibited: path.prohibited });
        }
    }

    fn behind(inner: Ipv4Addr) -> Ipv4Addr {
        end(((u32::from(inner) - u32::from(Ipv4Addr::new(10, 43, 0, 0))) >> 6) as u16).outer
    }

    fn filtered(&self) -> Vec<String> {
        self.prober.report().filtered.into_iter().map(|one| one.node).collect()
    }

    fn rounds_with(&self, number: u16) -> usize {
        self.asked.iter().filter(|(_, peer, way)| *peer == end(number).outer && *way == Way::Plain).count()
    }
}

#[test]
fn a_network_that_drops_protocol_4_is_found_out_and_so_is_its_end() {
    let mut node = Node::new(3, OPEN);
    node.run(100);
    assert_eq!((node.filtered(), node.prober.report().asked), (vec![], 3));
    node.paths.insert(end(2).outer, FILTERED);
    let at = node.run(200);
    assert_eq!(node.filtered(), ["n2"]);
    assert!(at < secs(145), "half a minute until it is asked again, and four rounds: {at:?}");
    node.paths.clear();
    let at = node.run(300);
    assert_eq!(node.filtered(), [""; 0]);
    assert!(at < secs(225), "{at:?}");
}

#[test]
fn it_is_found_out_soon_after_the_start_and_not_before_the_fourth_loss() {
    let mut node = Node::new(1, FILTERED);
    let at = node.run(60);
    assert_eq!(node.filtered(), ["n1"]);
    assert!(at < secs(16), "{at:?}");
    let rounds = node.asked.iter().filter(|(asked, _, way)| *asked < at && *way == Way::Plain).count();
    assert_eq!(rounds, 4);
}

#[test]
fn a_few_losses_are_nothing() {
    let mut node = Node::new(1, FILTERED);
    while node.rounds_with(1) < 3 {
        node.run(node.now.as_secs() + 1);
    }
    node.path = OPEN;
    node.run(300);
    assert_eq!(node.filtered(), [""; 0]);
    assert_eq!(node.prober.report().lost, 3);
    // And one that comes through now and then keeps a report from being taken back for a while, not for ever.
    node.path = FILTERED;
    node.run(400);
    assert_eq!(node.filtered(), ["n1"]);
    node.path = OPEN;
    node.run(430);
    assert_eq!(node.filtered(), [""; 0]);
}

#[test]
fn either_way_through_the_tunnel_will_do() {
    // A host that is strict about sources; one whose firewall knows nodes alone, or that has no route back yet.
    for path in [Path { wrapped: false, ..OPEN }, Path { routed: false, ..OPEN }, Path { plain: false, ..OPEN }] {
        let mut node = Node::new(2, path);
        node.run(600);
        assert_eq!((node.filtered(), node.prober.report().lost), (vec![], 0));
    }
}

#[test]
fn a_peer_that_is_dead_is_none_that_is_filtered() {
    // Without a session with it, with one that is down, with one that has not noticed yet.
    for session in
        [None, Some(Session::Down), Some(Session::Up { heard: Some(secs(99)) }), Some(Session::Up { heard: None })]
    {
        let mut node = Node::new(2, OPEN);
        node.run(100);
        node.path = SILENT;
        node.signs.sessions.extend(session.map(|session| (end(1).outer, session)));
        node.run(400);
        assert_eq!(node.filtered(), [""; 0], "{session:?}");
        assert!(node.prober.report().lost > 3);
    }
}

#[test]
fn a_peer_that_starts_again_and_answers_before_its_tunnel_is_there_is_none_either() {
    let mut node = Node::new(1, FILTERED);
    node.signs.sessions.insert(end(1).outer, Session::Down);
    node.run(120);
    assert_eq!(node.filtered(), [""; 0]);
    // Nor one that says by itself that it does not take such packets: they got there.
    let mut node = Node::new(1, Path { refused_by: Some(end(1).outer), ..FILTERED });
    node.run(120);
    assert_eq!(node.filtered(), [""; 0]);
}

#[test]
fn a_peer_whose_own_firewall_refuses_is_filtered() {
    let mut node = Node::new(1, Path { refused_by: Some(end(1).outer), prohibited: true, ..FILTERED });
    node.run(60);
    let problem = node.prober.report().problem().unwrap();
    assert!(problem.contains("n1 (172.32.0.1)") && problem.contains("172.32.0.1 refuses it"), "{problem}");
}

#[test]
fn one_that_dies_after_it_was_filtered_is_not_told_of_for_ever() {
    let mut node = Node::new(1, FILTERED);
    node.run(60);
    assert_eq!(node.filtered(), ["n1"]);
    node.path = SILENT;
    let at = node.run(200);
    assert_eq!(node.filtered(), [""; 0]);
    assert!(at < secs(120), "{at:?}");
}

#[test]
fn where_icmp_is_dropped_too_a_session_that_goes_on_beside_an_empty_tunnel_says_so() {
    let mut node = Node::new(2, SILENT);
    node.keepalive = Some(secs(30));
    let at = node.run(200);
    assert_eq!(node.filtered(), ["n1", "n2"]);
    assert!(at < secs(90), "{at:?}");
    // Hosts that answer no echo request at all: what others ask comes out of the tunnel.
    let mut node = Node::new(2, SILENT);
    node.keepalive = Some(secs(30));
    for second in 1..40 {
        node.signs.received = Some(second);
        node.run(second * 10);
    }
    assert_eq!(node.filtered(), [""; 0]);
    // What was said ends with the first such packet.
    let mut node = Node::new(2, SILENT);
    node.keepalive = Some(secs(30));
    node.run(200);
    node.signs.received = Some(1);
    node.run(213);
    assert_eq!(node.filtered(), [""; 0]);
    // Nobody knows what came out of the tunnel.
    let mut node = Node::new(2, SILENT);
    (node.keepalive, node.signs.received) = (Some(secs(30)), None);
    node.run(300);
    assert_eq!(node.filtered(), [""; 0]);
}

#[test]
fn a_cut_wire_is_no_filter() {
    // Everything is lost for a while; the session outlives that, and its next word comes before the next answer.
    for cut in 5..40 {
        let mut node = Node::new(1, OPEN);
        node.run(100);
        node.path = SILENT;
        node.run(100 + cut);
        node.path = OPEN;
        node.signs.sessions.insert(end(1).outer, Session::Up { heard: Some(node.now + STEP) });
        node.run(300);
        assert_eq!(node.filtered(), [""; 0], "{cut}");
    }
}

#[test]
fn who_refuses_is_named_and_nobody_else_can_answer() {
    let mut node = Node::new(1, Path { refused_by: Some(ROUTER), ..FILTERED });
    node.run(60);
    let problem = node.prober.report().problem().unwrap();
    assert!(problem.contains("n1 (172.32.0.1)") && problem.contains("172.31.1.1 refuses it"), "{problem}");
    // Another router does so now: nobody has to be told again.
    node.path.refused_by = Some(Ipv4Addr::new(172, 31, 1, 2));
    node.run(90);
    assert_eq!(node.prober.report().problem(), Some(problem));
    // Not by guessing numbers, nor from elsewhere.
    let round = node.asked.len() as u16;
    for sequence in 0..=round * 4 {
        let mark = Mark { id: 1, sequence, token: 2 };
        node.prober.hear(Heard::Reply { from: end(1).outer, mark });
        node.prober.hear(Heard::NoWay { from: OWN, id: mark.id, sequence });
    }
    node.run(120);
    assert_eq!(node.filtered(), ["n1"]);
}

#[test]
fn a_node_that_has_no_way_to_where_it_was_asked_has_been_reached() {
    let mut prober = Prober::new(7);
    prober.want(Duration::ZERO, ends(1));
    let (mut out, mut now) = (Vec::new(), Duration::ZERO);
    let answer = |prober: &mut Prober, out: &[Ask], from| {
        for ask in out {
            let word = |at: usize| u16::from_be_bytes([ask.packet[at], ask.packet[at + 1]]);
            match ask.way {
                Way::Plain => {
                    let token = u64::from_be_bytes(*ask.packet[28..].first_chunk().unwrap());
                    prober.hear(Heard::Reply { from: ask.to, mark: Mark { id: word(24), sequence: word(26), token } });
                }
                Way::Routed => prober.hear(Heard::NoWay { from, id: word(24), sequence: word(26) }),
                Way::Wrapped => {}
            }
        }
    };
    for (from, lost) in [(end(1).outer, 0), (TUNNEL, 1)] {
        while out.is_empty() {
            now += STEP;
            prober.handle_timeout(now, &Signs::default(), &mut out);
        }
        answer(&mut prober, &std::mem::take(&mut out), from);
        now += secs(3);
        prober.handle_timeout(now, &Signs::default(), &mut out);
        assert_eq!(prober.report().lost, lost, "{from}");
        out.clear();
        now += secs(70);
    }
}

#[test]
fn the_work_is_bounded_however_many_nodes_there_are() {
    let mut node = Node::new(5000, OPEN);
    node.run(3600);
    let rounds = node.asked.len() / 3;
    assert!((500..1000).contains(&rounds), "four and one at a time, twice a minute: {rounds}");
    assert!(node.prober.report().asked <= 5);
    let asked: BTreeSet<Ipv4Addr> = node.asked.iter().map(|(_, peer, _)| *peer).collect();
    assert!(asked.len() >= 110, "one after the other has its turn: {}", asked.len());
    let always = (1..=5000).filter(|number| node.rounds_with(*number) > 100).count();
    assert_eq!(always, 4, "those that follow are always asked");
    // With a network that drops all of it, too.
    let mut node = Node::new(5000, FILTERED);
    node.run(7200);
    let asked = node.prober.report().asked;
    assert!((16..=21).contains(&asked), "{asked}");
    assert!(node.asked.len() / 3 < 7200 * 21 / 10, "{}", node.asked.len());
}

#[test]
fn in_a_small_cluster_everybody_asks_everybody_and_in_a_large_one_everybody_is_asked() {
    let mut node = Node::new(8, OPEN);
    node.run(10);
    assert_eq!(node.prober.report().asked, 8);
    // Each of forty nodes asks those that follow it, round the end of the list.
    let mut asked: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    for own in 1..=40 {
        let mut prober = Prober::new(u64::from(own));
        let others = (1..=40).filter(|number| *number != own).map(end).collect();
        prober.want(Duration::ZERO, Ends { outer: Some(end(own).outer), others, ..ends(0) });
        let mut out = Vec::new();
        prober.handle_timeout(secs(5), &Signs::default(), &mut out);
        for ask in out.iter().filter(|ask| ask.way == Way::Plain) {
            *asked.entry(ask.to).or_default() += 1;
        }
    }
    assert_eq!(asked.len(), 40);
    assert!(asked.values().all(|count| *count >= 4), "{asked:?}");
}

#[test]
fn where_nobody_asks_in_his_own_subnet_nobody_is_asked_by_a_whole_one() {
    let node = |subnet: u8, number: u8| End { outer: [10, 0, subnet, number].into(), ..end(u16::from(number)) };
    for subnets in [vec![0, 1], vec![0, 1, 2], vec![16, 64, 192]] {
        let mut asked: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
        for (subnet, number) in subnets.iter().flat_map(|subnet| (1..=200).map(move |number| (*subnet, number))) {
            let elsewhere = subnets.iter().filter(|other| **other != subnet);
            let others = elsewhere.flat_map(|other| (1..=200).map(|number| node(*other, number))).collect();
            let mut prober = Prober::new(u64::from(number));
            prober.want(Duration::ZERO, Ends { outer: Some(node(subnet, number).outer), others, ..ends(0) });
            let mut out = Vec::new();
            prober.handle_timeout(secs(5), &Signs::default(), &mut out);
            for ask in out.iter().filter(|ask| ask.way == Way::Plain) {
                *asked.entry(ask.to).or_default() += 1;
            }
        }
        assert_eq!(asked.len(), subnets.len() * 200);
        assert!(asked.values().all(|count| *count <= 10), "{subnets:?}: {:?}", asked.values().max());
    }
}

#[test]
fn who_is_gone_is_asked_no_more_and_without_an_address_nobody_is() {
    let mut node = Node::new(3, FILTERED);
    node.run(60);
    assert_eq!(node.filtered().len(), 3);
    node.prober.want(node.now, ends(2));
    assert_eq!(node.filtered(), ["n1", "n2"]);
    node.prober.want(node.now, Ends { inner: None, ..ends(2) });
    assert_eq!((node.filtered().len(), node.prober.poll_timeout()), (0, None));
}

#[test]
fn it_is_said_to_get_through_only_where_all_who_are_asked_are_reached() {
    let mut node = Node::new(3, OPEN);
    node.paths.insert(end(3).outer, FILTERED);
    let mut words = Words::default();
    let mut told = |node: &Node| words.hear(node.now, &node.prober.report());
    node.run(60);
    assert!(matches!(told(&node), Some(News::Filtered(_))));
    node.prober.want(node.now, ends(2));
    assert_eq!(told(&node), Some(News::Passes), "who is left is reached");
    // It is gone with all others, or the pool asks for something else.
    node.prober.want(node.now, ends(3));
    node.run(120);
    assert!(matches!(told(&node), Some(News::Filtered(_))));
    node.prober.want(node.now, ends(0));
    assert_eq!(told(&node), Some(News::Unknown));
    // It answers nothing any more.
    node.prober.want(node.now, ends(3));
    node.run(180);
    assert!(matches!(told(&node), Some(News::Filtered(_))));
    node.paths.insert(end(3).outer, SILENT);
    node.run(300);
    assert_eq!(told(&node), Some(News::Unknown));
    node.paths.insert(end(3).outer, FILTERED);
    node.run(400);
    assert!(matches!(told(&node), Some(News::Filtered(_))));
    node.paths.clear();
    node.run(460);
    assert_eq!(told(&node), Some(News::Passes));
}

#[test]
fn nothing_is_said_to_be_well_before_all_who_are_asked_were_judged() {
    let mut node = Node::new(3, FILTERED);
    let judged = |node: &Node| node.prober.report().judged;
    node.run(5);
    assert!(!judged(&node) && node.filtered().is_empty());
    node.run(30);
    assert!(judged(&node) && node.filtered().len() == 3);
    let mut alone = Prober::new(1);
    alone.want(secs(50), ends(0));
    assert!(!alone.report().judged, "routes may still be learned");
    alone.want(secs(60), ends(0));
    assert!(alone.report().judged);
}
