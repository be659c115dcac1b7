//! A peer that tells everything again between two markers (RFC 7313).

use super::*;

const BEGIN: Then = Then::RefreshBegins(Family::Ipv4Unicast);
const END: Then = Then::RefreshEnds(Family::Ipv4Unicast);
const THREE: [(&str, Option<u32>); 3] = [("10.7.0.0/24", None), ("10.7.1.0/24", None), ("10.7.2.0/24", None)];

/// 1 tells 2, and 2 tells 3, of three prefixes.
fn net() -> Net {
    let mut net = Net::new(&[(1, 65001), (2, 65002), (3, 65003)], &LINE, |_, _, _| ());
    net.settle();
    net.say((1, 2), &THREE, 0, &[Then::EndOfRib(Family::Ipv4Unicast)]);
    net.updates.clear();
    net
}

impl Net {
    /// Which of the three a node has.
    fn has(&self, node: u8) -> Vec<&'static str> {
        let used = self.used(node);
        let has = |prefix: &&str| used.iter().any(|route| route.starts_with(*prefix));
        THREE.iter().map(|(prefix, _)| *prefix).filter(has).collect()
    }
}

#[test]
fn what_is_not_told_between_the_markers_is_gone_and_nothing_else_is_disturbed() {
    let mut net = net();
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..2], 0, &[]);
    assert_eq!((net.has(3).len(), net.updates.len()), (3, 0), "until the end all is as it was: {:?}", net.updates);
    net.say((1, 2), &[], 0, &[END]);
    assert_eq!((net.has(2), net.has(3)), (vec!["10.7.0.0/24", "10.7.1.0/24"], vec!["10.7.0.0/24", "10.7.1.0/24"]));
    assert_eq!(net.updates[&3], 1, "one withdrawal");
}

#[test]
fn an_end_without_a_beginning_means_nothing_and_another_beginning_begins_anew() {
    let mut net = net();
    net.say((1, 2), &[], 0, &[END]);
    assert_eq!(net.has(2).len(), 3);
    net.say((1, 2), &[], 0, &[Then::RefreshBegins(Family::Ipv6Unicast), END]);
    assert_eq!(net.has(2).len(), 3, "of another family");
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..1], 0, &[BEGIN]);
    net.say((1, 2), &THREE[2..], 0, &[END]);
    assert_eq!(net.has(2), ["10.7.2.0/24"]);
    net.say((1, 2), &[], 0, &[END]);
    assert_eq!(net.has(2), ["10.7.2.0/24"], "an end twice");
}

#[test]
fn a_session_that_is_lost_in_between_takes_the_beginning_with_it() {
    let mut net = net();
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..1], 0, &[]);
    net.disconnect(1, 2, Loss::Restarting);
    assert_eq!(net.has(2).len(), 3, "kept for its restart");
    net.connect(1, 2);
    net.say((1, 2), &THREE, 0, &[Then::EndOfRib(Family::Ipv4Unicast), END]);
    assert_eq!(net.has(2).len(), 3, "this session has begun nothing");
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..1], 0, &[END]);
    assert_eq!(net.has(2), ["10.7.0.0/24"]);
}

#[test]
fn a_flood_of_refreshes_is_no_flood_of_walks() {
    let mut net = net();
    for _ in 0..100 {
        net.say((1, 2), &[], 0, &[BEGIN]);
        net.say((1, 2), &THREE, 0, &[END]);
    }
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..1], 0, &[END]);
    assert_eq!(net.has(2).len(), 3, "most of them mean nothing");
    net.pass(1);
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..1], 0, &[END]);
    assert_eq!(net.has(2), ["10.7.0.0/24"], "one a second is heeded");
    // Who has told nothing has nothing to be walked for, and uses nothing up.
    net.pass(10);
    net.say((1, 2), &THREE, WITHDRAW, &[]);
    net.reconfigure(1, |config| config.originate.clear());
    (0..100).for_each(|_| net.say((1, 2), &[], 0, &[BEGIN, END]));
    net.say((1, 2), &THREE, 0, &[BEGIN]);
    net.say((1, 2), &THREE[..1], 0, &[END]);
    assert_eq!(net.has(2), ["10.7.0.0/24"]);
}

#[test]
fn a_flood_of_requests_is_answered_a_few_times_and_the_last_one_too() {
    let mut net = net();
    let told = |net: &mut Net| net.updates.remove(&3).unwrap_or(0);
    let ask = |net: &mut Net, count: usize| net.say((3, 2), &[], 0, &vec![Then::Refresh(Family::Ipv4Unicast); count]);
    ask(&mut net, 1);
    let once = told(&mut net);
    assert!(once > 0);
    let idle = net.nodes[&2].speaker.poll_timeout();
    net.pass(10);
    (0..100).for_each(|_| ask(&mut net, 1));
    assert_eq!(told(&mut net), 4 * once);
    ask(&mut net, 10_000);
    assert_eq!(told(&mut net), 0);
    let second = net.now + Duration::from_secs(1);
    assert!(net.nodes[&2].speaker.poll_timeout().is_some_and(|at| at <= second));
    net.pass(1);
    assert_eq!(told(&mut net), once, "what was asked meanwhile, once");
    net.pass(100);
    assert_eq!((told(&mut net), net.nodes[&2].speaker.poll_timeout()), (0, idle), "nobody waits");
}

#[test]
fn a_peer_that_does_not_come_to_the_end_is_waited_for_ten_minutes() {
    let mut net = net();
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[..2], 0, &[]);
    net.pass(599);
    assert_eq!(net.has(2).len(), 3);
    net.say((1, 2), &[], 0, &[BEGIN]);
    net.say((1, 2), &THREE[1..], 0, &[]);
    net.pass(599);
    assert_eq!(net.has(2).len(), 3, "counted from the last beginning");
    net.pass(1);
    assert_eq!(net.has(3), ["10.7.1.0/24", "10.7.2.0/24"]);
    net.say((1, 2), &[], 0, &[END]);
    assert_eq!(net.has(2).len(), 2);
}

#[test]
fn speakers_that_agree_on_it_mend_what_a_lost_withdrawal_left() {
    let mut net = net();
    net.enhanced = true;
    net.disconnect(1, 2, Loss::Final);
    net.connect(1, 2);
    net.settle();
    // What 1 never told, and so will not withdraw.
    net.say((1, 2), &THREE, 0, &[]);
    assert_eq!(net.has(3).len(), 3);
    // A change for which the peer is asked to tell everything again.
    net.reconfigure(2, |config| config.peers.get_mut("n1").unwrap().allow_own_as = 1);
    assert_eq!((net.has(2), net.has(3)), (vec![], vec![]), "what there is was told between the markers");
    assert!(net.used(3).iter().any(|route| route.starts_with("10.1.0.0/16")), "{:?}", net.used(3));
}
