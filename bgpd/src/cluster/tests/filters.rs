//! What BGPFilters mean for sessions.

use super::*;

#[test]
fn filters_are_read_in_order_and_one_that_is_missing_closes_the_peer() {
    let tor = || peer("tor", json!({"asn": 65101, "remote": {"address": "172.31.1.1"}, "filters": ["one", "two"]}));
    let one =
        || filter("one", json!({"import": [{"match": {"prefixes": [{"cidr": "0.0.0.0/0"}]}, "action": "Reject"}]}));
    let half = desired("a1", &with(cluster(), [tor(), one()]));
    let closed = &half.speaker.peers["tor"];
    assert_eq!((&closed.import, closed.export), (&Import::None, Export::None));
    let said = "BGPPeer tor: filters[1]: there is no BGPFilter two; create it, or leave it out; no route is taken or told until then";
    assert_eq!(half.problems, [said]);

    let two =
        filter("two", json!({"import": [{"action": "Accept"}], "export": [{"set": {"addCommunities": ["65000:1"]}}]}));
    let whole = desired("a1", &with(cluster(), [tor(), one(), two]));
    let open = &whole.speaker.peers["tor"];
    assert_eq!((&open.import, open.export), (&Import::All, Export::Own));
    assert_eq!(open.import_filter.name(0), "BGPFilter one: spec.import[0]");
    assert_eq!(open.import_filter.name(1), "BGPFilter two: spec.import[0]");
    assert_eq!(open.export_filter.name(0), "BGPFilter two: spec.export[0]");
    assert!(whole.problems.is_empty() && whole.speaker.peers["a2"].import_filter.is_empty());

    // An API server of an older definition took it.
    let odd = filter("two", json!({"export": [{"set": {"addCommunities": ["rt:70000:65536"]}}]}));
    let odd = desired("a1", &with(cluster(), [tor(), one(), odd]));
    assert_eq!(odd.speaker.peers["tor"].import, Import::None);
    assert!(odd.problems[0].contains("BGPFilter two: spec.export[0].set.addCommunities[0]"), "{:?}", odd.problems);
}

#[test]
fn filters_that_go_or_make_no_sense_leave_the_former_ones_in_force_over_a_restart_too() {
    let tor =
        |filters: &[&str]| peer("tor", json!({"asn": 65101, "remote": {"address": "172.31.1.1"}, "filters": filters}));
    let reject = |name: &str| filter(name, json!({"import": [{"action": "Reject"}]}));
    let mut objects = with(cluster(), [tor(&["one"]), reject("one")]);
    let is_closed = |objects: &Objects| desired("a1", objects).speaker.peers["tor"].import == Import::None;
    let rules = |objects: &Objects| {
        let wanted = desired("a1", objects);
        (wanted.speaker.peers["tor"].import_filter.name(0).to_owned(), wanted.problems)
    };
    let one = "BGPFilter one: spec.import[0]".to_owned();
    assert_eq!(rules(&objects), (one.clone(), vec![]));

    // The peer is heard before its new filter.
    objects = with(objects, [tor(&["two", "one"])]);
    let waits = "BGPPeer tor: filters[0]: there is no BGPFilter two; create it, or leave it out; until then its former filters stay in force";
    assert_eq!(rules(&objects), (one, vec![waits.to_owned()]));
    objects = with(objects, [reject("two")]);
    let two = "BGPFilter two: spec.import[0]".to_owned();
    assert_eq!(rules(&objects), (two.clone(), vec![]));

    // One goes, and the speaker starts again.
    let gone = |heard| match heard {
        Heard::Filter(Followed::Applied(filter, _)) => Heard::Filter(Followed::Deleted(filter, Revision(9))),
        Heard::Peer(Followed::Applied(peer, _)) => Heard::Peer(Followed::Deleted(peer, Revision(9))),
        other => other,
    };
    objects = with(objects, [gone(reject("two"))]);
    assert_eq!(rules(&objects).0, two);
    let again = Objects::remembered("a1", "twill-system", snapshot_of(&objects));
    assert_eq!(rules(&again).0, two);
    // The peer goes: a new one of its name has no past.
    objects = with(objects, [gone(tor(&[])), tor(&["two"])]);
    assert!(is_closed(&objects));

    // A release that kept no rules: those of its filters hold before the datastore has said anything.
    let known = with(cluster(), [tor(&["two"]), reject("two")]);
    let mut older = serde_json::to_value(snapshot_of(&known)).unwrap();
    older.as_object_mut().unwrap().remove("rules");
    objects = Objects::remembered("a1", "twill-system", serde_json::from_value(older).unwrap());
    assert_eq!(rules(&objects), (two, vec![]));
}
