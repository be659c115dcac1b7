//! What an agent's ruleset holds after given events, where it matters that it holds just that.

use super::*;
use crate::base::{Settings, skeleton};
use crate::index::{Endpoint, Pool};
use crate::model::{Node, Pod, PodKey, network_policy};
use crate::ruleset::ElementChange;
use serde_json::{Value as Json, json};

fn compiler() -> Compiler {
    Compiler::new(skeleton(&Settings::default()))
}

fn pod(name: &str, uid: &str, label: &str, phase: &str, address: &str) -> Pod {
    let raw = json!({
        "metadata": {"namespace": "n", "name": name, "uid": uid, "labels": {"app": label},
            "creationTimestamp": format!("2026-01-01T00:00:0{}Z", uid.len())},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]},
        "status": {"phase": phase, "podIPs": [{"ip": address}]}
    });
    Pod::read(&serde_json::from_value(raw).unwrap())
}

fn running(name: &str, label: &str, address: &str) -> Event {
    Event::PodApplied(pod(name, "u", label, "Running", address))
}

fn endpoint(ifname: &str, name: &str, uid: &str, address: &str) -> Event {
    Event::EndpointAttached(Endpoint {
        ifname: ifname.into(),
        pod: PodKey { namespace: "n".into(), name: name.into() },
        uid: uid.into(),
        addresses: [address.parse().unwrap()].into(),
    })
}

fn policy(name: &str, spec: Json) -> Event {
    let raw = json!({"metadata": {"namespace": "n", "name": name}, "spec": spec});
    Event::PolicyApplied(network_policy(&serde_json::from_value(raw).unwrap()))
}

fn commit(compiler: &mut Compiler, events: impl IntoIterator<Item = Event>) -> Delta {
    events.into_iter().for_each(|event| compiler.apply(event));
    let delta = compiler.commit();
    compiler.ruleset().check().unwrap();
    delta
}

/// Elements of a set as nft writes them.
fn elements(compiler: &Compiler, set: &str) -> String {
    let Some(set) = compiler.ruleset().sets.get(set) else { return "no set".into() };
    set.elements.keys().map(|key| key.text(&set.key)).collect::<Vec<_>>().join(", ")
}

fn names(compiler: &Compiler, prefix: &str) -> Vec<Name> {
    let all = compiler.ruleset();
    all.sets.keys().chain(all.chains.keys()).filter(|n| n.starts_with(prefix)).cloned().collect()
}

const FROM_B: &str = r#"{"podSelector": {"matchLabels": {"app": "a"}},
    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "b"}}}], "ports": [{"port": "web"}, {"port": 81}]}]}"#;

fn from_b() -> Event {
    policy("from-b", serde_json::from_str(FROM_B).unwrap())
}

#[test]
fn an_isolated_interface_is_closed_in_one_commit_and_its_address_is_its_new_owner_s() {
    let isolated = |names: &[&str]| Event::IsolatedChanged(names.iter().map(|name| (*name).to_owned()).collect());
    let mut compiler = compiler();
    let events = [running("a", "b", "10.0.0.1"), running("t", "a", "10.0.0.9"), from_b()];
    commit(&mut compiler, events);
    commit(&mut compiler, [endpoint("twl1", "a", "u", "10.0.0.1"), endpoint("twl2", "t", "u", "10.0.0.9")]);
    let before = compiler.ruleset().clone();
    let peers = |compiler: &Compiler| elements(compiler, names(compiler, "sel4_").first().unwrap());
    assert_eq!(peers(&compiler), "10.0.0.1");
    // The pod elsewhere that has the address now is older, and is no peer of the policy.
    let owner = Event::PodApplied(pod("new", "", "other", "Running", "10.0.0.1"));
    let delta = commit(&mut compiler, [owner, isolated(&["twl1"])]);
    assert!(!delta.is_empty() && !compiler.is_live("twl1") && compiler.is_live("twl2"));
    assert_eq!((elements(&compiler, "known").as_str(), peers(&compiler).as_str()), ("\"twl2\"", ""));
    assert!(!elements(&compiler, "source4").contains("twl1"));
    assert!(compiler.problems().is_empty(), "{:?}", compiler.problems());
    // It outlasts the endpoint, and a step that says it again changes nothing.
    let again = [Event::EndpointDetached { ifname: "twl1".into() }, endpoint("twl1", "a", "u", "10.0.0.1")];
    assert!(commit(&mut compiler, again.into_iter().chain([isolated(&["twl1"])])).is_empty());
    let gone = Event::PodDeleted { key: PodKey { namespace: "n".into(), name: "new".into() }, uid: String::new() };
    commit(&mut compiler, [gone, isolated(&[])]);
    assert_eq!(*compiler.ruleset(), before);
}

#[test]
fn whose_list_a_chain_is_is_found_once_per_generation_and_as_for_one_packet() {
    let mut compiler = compiler();
    let events =
        [running("a", "a", "10.0.0.1"), running("b", "a", "10.0.0.2"), running("c", "c", "10.0.0.3"), from_b()];
    commit(&mut compiler, events);
    let endpoints = [
        endpoint("twl1", "a", "u", "10.0.0.1"),
        endpoint("twl2", "b", "u", "10.0.0.2"),
        endpoint("twl3", "c", "u", "10.0.0.3"),
    ];
    commit(&mut compiler, endpoints);
    let users = compiler.users();
    assert!(Arc::ptr_eq(&users, &compiler.users()));
    let lists = names(&compiler, "list_");
    assert_eq!(lists.len(), 1, "shared");
    let of: Vec<&User> = users.of(&lists[0]).collect();
    assert_eq!(of.iter().map(|user| user.interface.as_str()).collect::<Vec<_>>(), ["twl1", "twl2"]);
    for user in of {
        assert_eq!(compiler.blame(&lists[0], None, Some(&user.interface)).as_ref(), Some(&user.blame));
    }
    // Asked for after the next commit it is what is true then; who asked before has what was true.
    commit(&mut compiler, [Event::EndpointDetached { ifname: "twl1".into() }]);
    assert_eq!((users.of(&lists[0]).count(), compiler.users().of(&lists[0]).count()), (2, 1));
}

#[test]
fn an_interface_is_known_only_with_its_own_pod() {
    let mut compiler = compiler();
    commit(&mut compiler, [endpoint("twl1", "a", "u", "10.0.0.1")]);
    assert_eq!(elements(&compiler, "known"), "");
    assert!(!compiler.is_live("twl1"));
    commit(&mut compiler, [Event::PodApplied(pod("a", "other", "a", "Running", "10.0.0.1"))]);
    assert_eq!(elements(&compiler, "known"), "");
    commit(&mut compiler, [running("a", "a", "10.0.0.1")]);
    assert_eq!(elements(&compiler, "known"), "\"twl1\"");
    assert_eq!(elements(&compiler, "source4"), "\"twl1\" . 10.0.0.1");
    assert!(compiler.is_live("twl1"));
    let key = PodKey { namespace: "n".into(), name: "a".into() };
    commit(&mut compiler, [Event::PodDeleted { key: key.clone(), uid: "late".into() }]);
    assert_eq!(elements(&compiler, "known"), "\"twl1\"");
    commit(&mut compiler, [Event::PodDeleted { key, uid: "u".into() }]);
    assert_eq!((elements(&compiler, "known"), elements(&compiler, "source4")), (String::new(), String::new()));
}

#[test]
fn who_does_not_own_an_address_may_not_send_from_it() {
    let mut compiler = compiler();
    let completed = Event::PodApplied(pod("a", "u", "a", "Succeeded", "10.0.0.1"));
    commit(&mut compiler, [running("a", "a", "10.0.0.1"), endpoint("twl1", "a", "u", "10.0.0.1")]);
    commit(&mut compiler, [completed]);
    assert_eq!(elements(&compiler, "source4"), "");
    // Two interfaces with one address cannot be, but if they are, one of them has it.
    commit(&mut compiler, [running("a", "a", "10.0.0.1"), endpoint("twl2", "b", "uu", "10.0.0.1")]);
    assert_eq!(elements(&compiler, "source4"), "\"twl1\" . 10.0.0.1");
    commit(&mut compiler, [Event::PodApplied(pod("b", "uu", "b", "Running", "10.0.0.1"))]);
    assert_eq!(elements(&compiler, "source4"), "\"twl2\" . 10.0.0.1");
    let problems = compiler.problems();
    assert!(problems.len() == 1 && problems[0].contains("belongs to pod n/b; n/a also claims it"), "{problems:?}");
}

#[test]
fn a_local_interface_says_more_than_a_status_and_keeps_its_rights_against_newer_pods() {
    let mut compiler = compiler();
    commit(&mut compiler, [running("a", "a", "10.0.0.1"), endpoint("twl1", "a", "u", "10.0.0.1"), from_b()]);
    let set = names(&compiler, "sel4_").remove(0);
    commit(&mut compiler, [running("b", "b", "10.0.0.9"), endpoint("twl2", "b", "u", "10.0.0.2")]);
    assert_eq!(elements(&compiler, &set), "10.0.0.2");
    commit(&mut compiler, [Event::PodApplied(pod("c", "newer", "b", "Running", "10.0.0.1"))]);
    assert_eq!(elements(&compiler, &set), "10.0.0.2");
}

#[test]
fn a_label_change_moves_one_element_and_touches_no_chain() {
    let mut compiler = compiler();
    let local = [running("a", "a", "10.0.0.1"), endpoint("twl1", "a", "u", "10.0.0.1"), from_b()];
    commit(&mut compiler, local.into_iter().chain([running("b", "x", "10.0.0.2")]));
    let delta = commit(&mut compiler, [running("b", "b", "10.0.0.2")]);
    let set = names(&compiler, "sel4_").remove(0);
    assert_eq!(elements(&compiler, &set), "10.0.0.2");
    let expected = ElementChange { add: [(Key::addr([10, 0, 0, 2]), Value::Plain)].into(), ..Default::default() };
    assert_eq!(delta, Delta { elements: [(set, expected)].into(), ..Delta::default() });
    assert!(commit(&mut compiler, [running("b", "x", "10.0.0.2"), running("b", "b", "10.0.0.2")]).is_empty());
}

#[test]
fn a_named_port_belongs_to_its_pods_only() {
    let mut compiler = compiler();
    commit(&mut compiler, [running("a", "a", "10.0.0.1"), endpoint("twl1", "a", "u", "10.0.0.1"), from_b()]);
    commit(&mut compiler, [running("b", "b", "10.0.0.2")]);
    assert_eq!(elements(&compiler, &names(&compiler, "np4_").remove(0)), "10.0.0.1 . tcp . 80");
}

#[test]
fn pods_with_the_same_list_share_its_chain_and_it_goes_with_the_last() {
    let mut compiler = compiler();
    commit(
        &mut compiler,
        [
            running("a", "a", "10.0.0.1"),
            endpoint("twl1", "a", "u", "10.0.0.1"),
            running("c", "a", "10.0.0.3"),
            endpoint("twl3", "c", "u", "10.0.0.3"),
            from_b(),
        ],
    );
    assert_eq!(elements(&compiler, "to_pod"), "\"twl1\", \"twl3\"");
    assert_eq!(elements(&compiler, "from_pod"), "");
    assert_eq!(names(&compiler, "list_").len(), 1);
    commit(&mut compiler, [Event::EndpointDetached { ifname: "twl1".into() }]);
    assert_eq!(names(&compiler, "list_").len(), 1);
    commit(&mut compiler, [Event::EndpointDetached { ifname: "twl3".into() }]);
    for prefix in ["list_", "sel", "np"] {
        assert_eq!(names(&compiler, prefix), Vec::<Name>::new());
    }
    assert!(compiler.sets.is_empty() && compiler.chains.is_empty());
    assert!(compiler.index.peers.is_idle(), "selectors that no set follows are forgotten");
}

#[test]
fn a_pod_that_may_do_everything_needs_no_list() {
    let mut compiler = compiler();
    let open = policy("open", json!({"podSelector": {}, "ingress": [{}], "egress": [{}]}));
    commit(&mut compiler, [running("a", "a", "10.0.0.1"), endpoint("twl1", "a", "u", "10.0.0.1"), from_b(), open]);
    assert_eq!((elements(&compiler, "to_pod"), elements(&compiler, "from_pod")), (String::new(), String::new()));
    assert!(names(&compiler, "list_").is_empty());
}

#[test]
fn pools_that_overlap_become_ranges_that_do_not() {
    let mut compiler = compiler();
    let pool = |cidr: &str, nat_outgoing| Pool { cidr: cidr.parse().unwrap(), nat_outgoing };
    let pools = vec![pool("10.0.0.0/16", false), pool("10.0.1.0/24", true), pool("fd00::/64", true)];
    let addresses: BTreeSet<_> = ["192.0.2.1".parse().unwrap(), "fd01::1".parse().unwrap()].into();
    let node = Node {
        name: "n1".into(),
        labels: Arc::default(),
        known_as: addresses.clone(),
        addresses,
        tunnels: BTreeSet::new(),
    };
    commit(&mut compiler, [Event::PoolsChanged(pools), Event::NodesChanged(vec![node])]);
    assert_eq!((elements(&compiler, "pools4"), elements(&compiler, "nat4")), ("10.0.0.0".into(), "10.0.1.0".into()));
    assert_eq!((elements(&compiler, "nodes4"), elements(&compiler, "nodes6")), ("192.0.2.1".into(), "fd01::1".into()));
    commit(&mut compiler, [Event::PoolsChanged(vec![]), Event::NodesChanged(vec![])]);
    assert_eq!(compiler.ruleset(), &skeleton(&Settings::default()));
}

#[test]
fn many_selectors_share_a_set_and_few_have_their_own_again() {
    let limits = Limits { share_above: 2, own_below: 2 };
    let mut compiler = compiler().with_limits(limits);
    commit(&mut compiler, [running("b", "b", "10.0.0.2"), running("a", "a", "10.0.0.1"), from_b()]);
    commit(&mut compiler, [endpoint("twl1", "a", "u", "10.0.0.1")]);
    let own = names(&compiler, "sel4_").pop().unwrap();
    assert_eq!((elements(&compiler, &own), names(&compiler, "np4_").len()), ("10.0.0.2".to_owned(), 1));

    let from_c = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "c"}}}]}]});
    let delta = commit(&mut compiler, [policy("from-c", from_c), running("c", "c", "10.0.0.3")]);
    assert!(delta.remove_sets.contains(&own) && delta.replace_rules.is_empty(), "old lists go with their sets");
    let number = u64::from_str_radix(own.strip_prefix("sel4_").unwrap(), 16).unwrap();
    let member = Key::selector(number).and_addr(std::net::Ipv4Addr::new(10, 0, 0, 2));
    assert!(compiler.ruleset().sets["sel4_all"].elements.contains_key(&member));
    let all = elements(&compiler, "sel4_all");
    assert!(all.contains("10.0.0.3") && all.matches("0.0.0.0").count() == 2, "a marker per selector: {all}");
    let ports = elements(&compiler, "np4_all");
    assert!(ports.contains(" . 10.0.0.1 . tcp . 80") && ports.contains(" . 0.0.0.0 . 0 . 0"), "{ports}");

    // An element more or less is still one change of one set.
    let delta = commit(&mut compiler, [running("d", "c", "10.0.0.4")]);
    assert_eq!((delta.elements.len(), delta.add_chains.len()), (1, 0));

    let key = PolicyKey { kind: "NetworkPolicy", namespace: "n".into(), name: "from-c".into() };
    commit(&mut compiler, [Event::PolicyDeleted(key)]);
    assert_eq!(elements(&compiler, "sel4_all").matches("0.0.0.0").count(), 1, "what nobody uses went from it");
    let gone = Event::EndpointDetached { ifname: "twl1".into() };
    commit(&mut compiler, [gone]);
    commit(&mut compiler, [endpoint("twl1", "a", "u", "10.0.0.1")]);
    assert_eq!(names(&compiler, "sel4_"), [own]);
}
