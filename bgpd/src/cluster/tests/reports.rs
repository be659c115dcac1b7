//! What NodeNetwork says of the node.

use super::*;

#[test]
fn a_report_changes_only_with_what_it_says() {
    let desired = desired("a1", &cluster());
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let observed = Observed { peers: 2, established: 2, ..Observed::default() };
    let first = report(&desired, &observed, &BgpState::default(), at(1));
    assert_eq!(report(&desired, &observed, &first, at(2)), first);
    assert_eq!(first.tunnel_addresses, ["10.42.7.0".parse::<IpAddr>().unwrap()]);
    assert!(first.conditions.iter().all(|condition| condition.status == "True"));
    let text = "IPPool default: no".to_owned();
    let fib =
        fib::Status { problems: vec![fib::Problem { condition: fib::Condition::Tunnel, text }], ..Default::default() };
    let bad = report(&desired, &Observed { established: 1, fib, ..observed }, &first, at(3));
    let changed: Vec<(&str, &str)> =
        bad.conditions.iter().filter(|c| c.status == "False").map(|c| (c.type_.as_str(), c.message.as_str())).collect();
    let wanted =
        [("TunnelHealthy", "IPPool default: no"), ("SessionsEstablished", "1 of 2 sessions is not established")];
    assert_eq!(changed, wanted);
    for (old, new) in first.conditions.iter().zip(&bad.conditions) {
        assert_eq!(old.last_transition_time == new.last_transition_time, old.status == new.status, "{}", new.type_);
    }
}

#[test]
fn a_condition_that_says_much_is_no_longer_than_the_api_server_takes() {
    let length = |count: usize| {
        let mut long = desired("a1", &cluster());
        long.problems = vec!["é".repeat(count)];
        let state = report(&long, &Observed::default(), &BgpState::default(), Timestamp::UNIX_EPOCH);
        let ready = state.conditions.into_iter().find(|condition| condition.type_ == "BGPReady").unwrap();
        (ready.message.chars().count(), ready.message.ends_with("..."))
    };
    assert_eq!([length(100), length(32_768), length(32_769)], [(100, false), (32_768, false), (32_768, true)]);
}

#[test]
fn a_report_names_the_peers_that_are_down_also_those_that_cannot_be() {
    let tor = |name: &str, address: &str| peer(name, json!({"remote": {"address": address}, "asn": "external"}));
    let far = peer(
        "far",
        json!({"remote": {"address": "172.31.9.1"}, "asn": 1, "nodeSelector": {"matchLabels": {"rack": "b"}}}),
    );
    // One is of a family that the node has no address of, one has the name of a node and its own address, one is the node itself.
    let more =
        [tor("six", "fd31::1"), tor("b1", "172.31.1.1"), tor("self", "172.31.1.11"), tor("up", "172.31.1.2"), far];
    let desired = desired("a1", &with(cluster(), more));
    assert_eq!(desired.speaker.peers["b1"].address, "172.31.1.1".parse::<IpAddr>().unwrap());
    let down = |up: &[&str]| {
        let up = up.iter().map(|name| (*name).to_owned()).collect();
        let observed = Observed { up, ..Observed::default() };
        report(&desired, &observed, &BgpState::default(), Timestamp::UNIX_EPOCH).peers_down.unwrap()
    };
    assert_eq!(down(&["up", "a2"]), ["b1", "six"]);
    assert_eq!(down(&["up", "b1", "b1/172.31.2.11"]), ["six"]);
}

#[test]
fn a_network_that_drops_the_tunnel_protocol_is_a_reason_of_its_own() {
    let desired = desired("a1", &cluster());
    let tunnel = |observed: &Observed| {
        let state = report(&desired, observed, &BgpState::default(), Timestamp::UNIX_EPOCH);
        let found = state.conditions.into_iter().find(|condition| condition.type_ == "TunnelHealthy").unwrap();
        (found.status, found.reason, found.message)
    };
    let said = |status: &str, reason: &str, message: &str| (status.to_owned(), reason.to_owned(), message.to_owned());
    assert_eq!(tunnel(&Observed::default()), said("True", "Usable", ""));
    let filtered = Observed { filtered: Some("n2 is not reached".to_owned()), ..Observed::default() };
    assert_eq!(tunnel(&filtered), said("False", "ProtocolFiltered", "n2 is not reached"));
    // A speaker that has just started does not know better.
    let old = report(&desired, &filtered, &BgpState::default(), Timestamp::UNIX_EPOCH);
    for (probed, status) in [(false, "False"), (true, "True")] {
        let state = report(&desired, &Observed { probed, ..Observed::default() }, &old, Timestamp::UNIX_EPOCH);
        let tunnel = state.conditions.into_iter().find(|condition| condition.type_ == "TunnelHealthy").unwrap();
        assert_eq!(tunnel.status, status, "{probed}");
        assert_eq!(tunnel.message.is_empty(), probed);
    }
    // A device that cannot be used goes before what that leads to.
    let problem = fib::Problem { condition: fib::Condition::Tunnel, text: "no device".to_owned() };
    let both = Observed { fib: fib::Status { problems: vec![problem], ..Default::default() }, ..filtered };
    assert_eq!(tunnel(&both), said("False", "TunnelUnusable", "no device; n2 is not reached"));
}

#[test]
fn a_setting_that_the_kernel_refused_is_the_reason_where_there_is_no_greater_one() {
    let desired = desired("a1", &cluster());
    let with = |setting: &str, filtered: Option<&str>| {
        let problem = fib::Problem { condition: fib::Condition::Setting, text: setting.to_owned() };
        let fib = fib::Status { problems: vec![problem], ..Default::default() };
        Observed { fib, filtered: filtered.map(str::to_owned), ..Observed::default() }
    };
    let said = |observed: &Observed, old: &BgpState| {
        let state = report(&desired, observed, old, Timestamp::UNIX_EPOCH);
        let found = state.conditions.iter().find(|condition| condition.type_ == "TunnelHealthy").cloned().unwrap();
        (state, found.reason, found.message)
    };
    let (_, reason, message) = said(&with("eth0 is strict", None), &BgpState::default());
    assert_eq!((reason.as_str(), message.as_str()), ("SettingRefused", "eth0 is strict"));
    let (mut old, reason, message) = said(&with("eth0 is strict", Some("n2 is not reached")), &BgpState::default());
    assert_eq!((reason.as_str(), message.as_str()), ("ProtocolFiltered", "n2 is not reached; eth0 is strict"));
    // Who starts again and does not know better says it once.
    for _ in 0..3 {
        let (new, _, again) = said(&with("eth0 is strict", None), &old);
        assert_eq!(again, message);
        old = new;
    }
}
