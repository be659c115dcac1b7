//! Sessions between nodes that are to go, and when they may.

use super::*;

const NODES: [(u8, u32); 4] = [(1, 65000), (2, 65000), (3, 65000), (4, 65000)];
const MESH: [(u8, u8); 6] = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)];

/// All speak with all. `reflectors` reflect, `stay` are to go on, and `direct` says whether the others' sessions stay, too.
fn set(reflectors: &'static [u8], stay: &'static [u8], direct: bool) -> impl Fn(u8, u8, &mut Peer) {
    move |me, other, peer| {
        let reflects = reflectors.contains(&me);
        (peer.export, peer.reflector_client) = (Export::Own, false);
        if reflects {
            let equals = if stay.contains(&me) { stay } else { reflectors };
            (peer.export, peer.reflector_client) = (Export::Members, !equals.contains(&other));
        }
        peer.member = match (stay.contains(&other), direct || stay.contains(&me)) {
            (true, _) => Member::Reflector,
            (false, true) if reflectors.contains(&other) => Member::FormerReflector,
            (false, true) => Member::Node,
            (false, false) => Member::Leaving,
        };
    }
}

fn change(net: &mut Net, step: u32, set: impl Fn(u8, u8, &mut Peer)) {
    for node in 1..=4 {
        net.reconfigure(node, |config| {
            config.step = Some(step);
            config.peers.iter_mut().for_each(|(name, peer)| set(node, name[1..].parse().unwrap(), peer));
        });
    }
}

fn needs(net: &Net, node: u8) -> Option<String> {
    net.nodes[&node].speaker.retiring().1
}

/// Every node but reflectors and their peers gives up the session.
fn give_up(net: &mut Net) {
    let leaving: Vec<(u8, u8)> = MESH
        .into_iter()
        .filter(|(a, b)| {
            let of = |me: u8, other: u8| net.nodes[&me].plan.config.peers[&format!("n{other}")].member;
            of(*a, *b) == Member::Leaving && of(*b, *a) == Member::Leaving
        })
        .collect();
    for (a, b) in leaving {
        net.disconnect(a, b, Loss::Final);
    }
}

#[test]
fn a_mesh_may_go_when_reflectors_have_told_what_it_tells() {
    let mut net = Net::new(&NODES, &MESH, set(&[], &[], true));
    net.settle();
    assert_eq!(net.nodes[&3].speaker.retiring(), (None, None));
    net.stuck = vec![(1, 3)];
    change(&mut net, 2, set(&[1], &[1], false));
    for (node, other) in [(2, 1), (3, 1), (4, 1)] {
        let heard = |family| Then::EndOfRib(family);
        let (peer, now) = (net.peer_id(node, other), net.now);
        let session = net.nodes[&node].speaker.sessions_of(peer);
        let batch = Batch { peer, session, then: Family::ALL.map(heard).into(), ..Batch::default() };
        net.nodes.get_mut(&node).unwrap().speaker.handle(Event::Batch(batch), now);
    }
    assert_eq!(needs(&net, 4), None, "it has heard all from the reflector");
    assert_eq!(net.nodes[&4].speaker.retiring().0, Some(2));
    assert_eq!(needs(&net, 3).as_deref(), Some("10.2.0.0/16 is known only by sessions that are to go"));
    net.stuck.clear();
    net.settle();
    assert_eq!(needs(&net, 3), None);
    let before: Vec<_> = (1..=4).map(|node| net.used(node)).collect();
    give_up(&mut net);
    assert_eq!((1..=4).map(|node| net.used(node)).collect::<Vec<_>>(), before, "no route is another one");
    assert_eq!(before[2].len(), 4);
}

#[test]
fn reflectors_may_stop_when_nodes_have_told_each_other() {
    let mut net = Net::new(&NODES, &MESH, set(&[1], &[1], false));
    net.settle();
    give_up(&mut net);
    change(&mut net, 3, set(&[1], &[], true));
    assert_eq!(needs(&net, 2).as_deref(), Some("10.3.0.0/16 is known only by sessions that are to go"));
    for (a, b) in [(2, 3), (2, 4), (3, 4)] {
        net.connect(a, b);
    }
    net.settle();
    assert!((1..=4).all(|node| needs(&net, node).is_none()), "{:?}", needs(&net, 2));
    let before: Vec<_> = (1..=4).map(|node| net.used(node)).collect();
    change(&mut net, 3, set(&[], &[], true));
    assert_eq!((1..=4).map(|node| net.used(node)).collect::<Vec<_>>(), before);
}

#[test]
fn all_reflectors_may_be_others_at_once() {
    let mut net = Net::new(&NODES, &MESH, set(&[1, 2], &[1, 2], false));
    net.settle();
    give_up(&mut net);
    net.connect(3, 4);
    change(&mut net, 3, set(&[1, 2, 3, 4], &[3, 4], false));
    for node in 1..=4 {
        let lost = needs(&net, node).filter(|why| why.contains("known only"));
        assert_eq!(lost, None, "node {node}");
    }
    let before: Vec<_> = (1..=4).map(|node| net.used(node)).collect();
    net.disconnect(1, 2, Loss::Final);
    change(&mut net, 3, set(&[3, 4], &[3, 4], false));
    assert_eq!((1..=4).map(|node| net.used(node)).collect::<Vec<_>>(), before);
}

#[test]
fn a_reflector_that_has_not_told_all_is_waited_for() {
    let mut net = Net::new(&NODES, &MESH, set(&[1, 2], &[2], false));
    net.settle();
    net.disconnect(2, 4, Loss::Final);
    let said = "n2, which is to reflect, has not told everything yet; twill peers says why its session is not there";
    assert_eq!(needs(&net, 4).as_deref(), Some(said));
}

#[test]
fn a_reflector_passes_on_what_nodes_say_and_nothing_else() {
    // 4 is a router of our AS, and no node.
    let members = |me: u8, other: u8, peer: &mut Peer| {
        set(&[1], &[1], false)(me, other, peer);
        if me == 4 || other == 4 {
            (peer.member, peer.export, peer.reflector_client) = (Member::Apart, Export::Own, false);
        }
    };
    let mut net = Net::new(&NODES, &[(1, 2), (1, 3), (1, 4)], members);
    net.settle();
    assert_eq!(net.used(2), ["10.1.0.0/16 via 10.0.0.1", "10.2.0.0/16", "10.3.0.0/16 via 10.0.0.3"]);
    assert_eq!(net.used(4), ["10.1.0.0/16 via 10.0.0.1", "10.4.0.0/16"], "it never transits");
    net.reconfigure(1, |config| config.peers.get_mut("n4").unwrap().member = Member::Node);
    assert_eq!(net.used(2).len(), 4, "once it is one of the nodes it is passed on");
}

#[test]
fn two_reflectors_with_identifiers_of_their_own_join_nodes_that_have_lost_one_of_them_each() {
    let mut net = Net::new(&NODES, &MESH, set(&[1, 2], &[1, 2], false));
    net.settle();
    give_up(&mut net);
    net.disconnect(1, 3, Loss::Final);
    net.disconnect(2, 4, Loss::Final);
    assert_eq!(net.used(3).len(), 4);
    assert!(net.used(4).contains(&"10.3.0.0/16 via 10.0.0.3".to_owned()), "{:?}", net.used(4));
    net.disconnect(2, 3, Loss::Final);
    assert!(
        (1..=4).filter(|node| *node != 3).all(|node| !net.used(node).iter().any(|route| route.starts_with("10.3.")))
    );
}
