//! The runtime's other calls: CHECK, GC, STATUS, what an ADD may ask for, and addresses from and for other plugins.

use crate::node::{Attached, Node};
use crate::world::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use twill_crds::IPPool;

fn error(reply: &Value) -> (u64, String) {
    let error = &reply["error"];
    (error["code"].as_u64().unwrap_or_else(|| panic!("{reply}")), error["msg"].as_str().unwrap().to_owned())
}

/// A call whose request is changed before it is sent.
fn called(node: &Node, command: &str, pod: &Attached, change: impl FnOnce(&mut Value)) -> Value {
    let mut request = node.request(command, pod, &pod.ns.path().display().to_string());
    change(&mut request);
    node.ask(&request).unwrap()
}

fn addresses(reply: &Value) -> Vec<String> {
    let ips = reply["result"]["ips"].as_array().unwrap_or_else(|| panic!("{reply}"));
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

fn in_use(node: &Node) -> BTreeSet<String> {
    let all = node.ask(&json!({"op": "addresses"})).unwrap();
    all.as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[ignore = "needs root: make test"]
fn a_check_finds_nothing_and_then_names_what_somebody_changed() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    node.deny_all();
    let a = node.pod("a");
    let result = node.cni("ADD", &a)["result"].clone();
    let address = result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned();
    let check =
        |previous: &Value| called(&node, "CHECK", &a, |request| request["config"]["prevResult"] = previous.clone());
    assert_eq!(check(&result), json!({"result": null}));
    // What later plugins of the list add is theirs.
    let mut more = result.clone();
    more["interfaces"].as_array_mut().unwrap().push(json!({"name": "ifb0"}));
    more["ips"].as_array_mut().unwrap().push(json!({"address": "192.0.2.1/24"}));
    a.ns.run(&["ip", "link", "set", "eth0", "mtu", "1300"]);
    assert_eq!(check(&more), json!({"result": null}));
    let breaks: [(&Attached, &[&str], &[&str], String); 5] = [
        (
            &a,
            &["ip", "addr", "del", &format!("{address}/32"), "dev", "eth0"],
            &["ip", "addr", "add", &format!("{address}/32"), "dev", "eth0"],
            format!("eth0 in the pod has not {address}"),
        ),
        (
            &a,
            &["ip", "-6", "route", "del", "default"],
            &["ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0"],
            "the default route via fe80::1 is missing in the pod".to_owned(),
        ),
        (
            &a,
            &["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"],
            &["ip", "link", "set", "eth0", "address", result["interfaces"][1]["mac"].as_str().unwrap()],
            "has the MAC address 02:00:00:00:00:99".to_owned(),
        ),
        (
            &a,
            &["ip", "neigh", "del", "169.254.1.1", "dev", "eth0"],
            &["ip", "neigh", "add", "169.254.1.1", "lladdr", "02:74:77:69:6c:6c", "nud", "permanent", "dev", "eth0"],
            "the neighbour 169.254.1.1 is missing in the pod".to_owned(),
        ),
        (&a, &["ip", "link", "set", "eth0", "name", "eth1"], &[], "interface eth0 is missing in the pod".to_owned()),
    ];
    for (pod, break_it, mend, says) in breaks {
        pod.ns.run(break_it);
        let reply = check(&result);
        let (code, said) = error(&reply);
        assert!(code == 104 && said.contains(&says), "{break_it:?}: {code} {said}");
        if mend.is_empty() {
            break;
        }
        pod.ns.run(mend);
        // Taking an address or the link's address away took the routes with it.
        let neighbour =
            ["ip", "neigh", "replace", "169.254.1.1", "lladdr", "02:74:77:69:6c:6c", "nud", "permanent", "dev", "eth0"];
        let _ = pod.ns.output(&neighbour);
        let neighbour =
            ["ip", "neigh", "replace", "fe80::1", "lladdr", "02:74:77:69:6c:6c", "nud", "permanent", "dev", "eth0"];
        let _ = pod.ns.output(&neighbour);
        let _ = pod.ns.output(&["ip", "route", "replace", "169.254.1.1", "dev", "eth0", "scope", "link"]);
        let _ = pod.ns.output(&["ip", "route", "replace", "default", "via", "169.254.1.1", "dev", "eth0"]);
        assert_eq!(check(&result), json!({"result": null}), "after {mend:?}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_check_of_what_is_not_attached_or_is_another_s_is_refused() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let a = node.pod("a");
    let result = node.cni("ADD", &a)["result"].clone();
    assert_eq!(error(&called(&node, "CHECK", &a, |_| {})).0, 7, "without the result");
    let with = |change: &dyn Fn(&mut Value)| {
        let reply = called(&node, "CHECK", &a, |request| {
            request["config"]["prevResult"] = result.clone();
            change(request);
        });
        error(&reply)
    };
    assert_eq!(with(&|request| request["containerId"] = json!("other")).0, 3);
    let (code, said) = with(&|request| request["config"]["name"] = json!("other"));
    assert!(code == 104 && said.contains("attached to network twill, not to other"), "{said}");
    let (code, said) = with(&|request| request["config"]["prevResult"]["ips"] = json!([{"address": "10.42.7.7/32"}]));
    assert!(code == 104 && said.contains("prevResult does not have 10.42."), "{said}");
    let (code, said) = with(&|request| request["netns"] = json!("/run/netns/there-is-none"));
    assert!(code == 104 && said.contains("does not exist"), "{said}");
    node.delete_in_shop::<twill_crds::Pod>("a");
    until("the pod is closed", Duration::from_secs(5), || {
        let reply = called(&node, "CHECK", &a, |request| request["config"]["prevResult"] = result.clone());
        reply["error"]["msg"].as_str().is_some_and(|said| said.contains("pod shop/a is closed"))
    });
}

#[test]
#[ignore = "needs root: make test"]
fn gc_frees_what_the_runtime_does_not_have_and_nothing_of_other_networks() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pods: Vec<Attached> = ["a", "b", "c", "gone"].map(|name| node.pod(name)).into();
    let of_other = node.pod("other");
    let mut held: Vec<String> = pods.iter().flat_map(|pod| node.add(pod)).collect();
    held.extend(addresses(&called(&node, "ADD", &of_other, |request| request["config"]["name"] = json!("second"))));
    let gc = |name: &str, lists: &[(&str, Value)]| {
        let mut config = json!({"cniVersion": "1.1.0", "name": name, "type": "twill-cni"});
        lists.iter().for_each(|(key, list)| config[*key] = list.clone());
        node.ask(&json!({"op": "cni", "command": "GC", "config": config})).unwrap()
    };
    let list = |names: &[&str]| {
        names.iter().map(|n| json!({"containerID": format!("c-{n}"), "ifname": "eth0"})).collect::<Value>()
    };
    let expect = |indices: &[usize], when: &str| {
        assert_eq!(in_use(&node), indices.iter().map(|n| held[*n].clone()).collect(), "{when}");
    };
    assert_eq!(error(&gc("twill", &[("cni.dev/attachments", json!({}))])).0, 7);
    // Nobody says what is in use: only one is provably gone, with its namespace.
    node.ns.run(&["ip", "netns", "del", &pods[3].ns.0]);
    until("its interface is gone", Duration::from_secs(5), || {
        node.ns.run(&["ip", "-o", "link"]).matches("twl").count() == 4
    });
    assert_eq!(gc("twill", &[("cni.dev/attachments", Value::Null)]), json!({"result": null}));
    expect(&[0, 1, 2, 4], "no list");
    assert_eq!(
        gc("twill", &[("cni.dev/valid-attachments", list(&["a", "b"])), ("cni.dev/attachments", list(&["a", "b"]))]),
        json!({"result": null})
    );
    expect(&[0, 1, 4], "two are in use");
    assert_eq!(gc("twill", &[("cni.dev/attachments", list(&["b"]))]), json!({"result": null}));
    expect(&[1, 4], "by the other key");
    assert_eq!(gc("third", &[("cni.dev/valid-attachments", json!([]))]), json!({"result": null}));
    expect(&[1, 4], "a network without attachments");
    assert_eq!(gc("twill", &[("cni.dev/valid-attachments", json!([]))]), json!({"result": null}));
    expect(&[4], "none is in use");
    assert_eq!(node.ns.run(&["ip", "-o", "link"]).matches("twl").count(), 1);
    assert!(of_other.ns.run(&["ip", "-o", "link"]).contains("eth0"));
}

#[test]
#[ignore = "needs root: make test"]
fn gc_spares_what_was_attached_after_it_was_called() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let a = node.pod("a");
    let at = |n: u64| json!(format!("boot/{n}"));
    called(&node, "ADD", &a, |request| request["generation"] = at(100));
    let gc = |n: u64| {
        let config = json!({"cniVersion": "1.1.0", "name": "twill", "cni.dev/valid-attachments": []});
        node.ask(&json!({"op": "cni", "command": "GC", "generation": at(n), "config": config})).unwrap()
    };
    assert_eq!((gc(99), in_use(&node).len()), (json!({"result": null}), 1));
    assert_eq!((gc(101), in_use(&node).len()), (json!({"result": null}), 0));
}

#[test]
#[ignore = "needs root: make test"]
fn status_says_whether_an_add_would_succeed() {
    let mut node = Node::new(&[]);
    node.start();
    let status = || {
        node.ask(&json!({"op": "cni", "command": "STATUS", "config": {"cniVersion": "1.1.0", "name": "twill"}}))
            .unwrap()
    };
    let (code, said) = error(&status());
    assert!(code == 50 && said.contains("there is no IPPool"), "{code} {said}");
    // Addresses of another's plugin need none of ours.
    let foreign = |request: &mut Value| request["config"]["ipam"] = json!({"type": "static"});
    let (a, b) = (node.pod("a"), node.pod("b"));
    assert_eq!(called(&node, "STATUS", &a, foreign), json!({"result": null}));
    for (pod, address) in [(&a, "2001:db8::5"), (&b, "2001:db8::6")] {
        let reply = called(&node, "ADD", pod, |request| {
            foreign(request);
            request["ipamResult"] = json!({"ips": [{"address": format!("{address}/64")}]});
        });
        assert_eq!(addresses(&reply), [address]);
    }
    assert!(a.ns.pings("2001:db8::6"));
    node.create::<IPPool>(json!({"metadata": {"name": "late"}, "spec": {"cidr": "10.42.0.0/16"}}));
    until("it would", Duration::from_secs(15), || status() == json!({"result": null}));
}

#[test]
#[ignore = "needs root: make test"]
fn a_pod_gets_the_addresses_and_the_mac_that_are_asked_for_or_a_reason() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let first = node.add(&b);
    let (prefix, _) = first[0].rsplit_once('.').unwrap();
    let four = format!("{prefix}.40");
    let six = std::net::Ipv6Addr::from(first[1].parse::<std::net::Ipv6Addr>().unwrap().to_bits() | 0x3e).to_string();
    let asked = json!({"ips": [six, format!("{four}/24")], "mac": "02:aa:bb:cc:dd:ee"});
    let reply = called(&node, "ADD", &a, |request| request["config"]["runtimeConfig"] = asked.clone());
    let given = addresses(&reply);
    assert_eq!(given[0], four, "{reply}");
    assert!(a.ns.run(&["ip", "link", "show", "eth0"]).contains("02:aa:bb:cc:dd:ee"));
    assert!(a.ns.pings(&first[0]) && b.ns.pings(&four) && b.ns.pings(&given[1]));
    let check = called(&node, "CHECK", &a, |request| {
        request["config"]["runtimeConfig"] = asked.clone();
        request["config"]["prevResult"] = reply["result"].clone();
    });
    assert_eq!(check, json!({"result": null}));
    let c = node.pod("c");
    let refused = |args: &str| {
        let reply = called(&node, "ADD", &c, |request| {
            request["args"] = json!(format!("{}{args}", request["args"].as_str().unwrap()));
        });
        error(&reply)
    };
    let (code, said) = refused(&format!(";IP={four}"));
    assert!(code == 103 && said.contains("pod shop/a has it"), "{code} {said}");
    assert_eq!(refused(";IP=192.0.2.7").0, 103);
    assert_eq!(refused(";IP=x").0, 4);
    assert_eq!(refused(";MAC=01:00:5e:00:00:01").0, 4);
    // A block that is nobody's is claimed for it.
    let far = called(&node, "ADD", &c, |request| request["config"]["args"] = json!({"cni": {"ips": ["10.42.77.77"]}}));
    assert_eq!(addresses(&far)[0], "10.42.77.77");
}

#[test]
#[ignore = "needs root: make test"]
fn a_container_may_have_several_interfaces_and_the_first_keeps_its_routes() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b) = (node.pod("a"), node.pod("b"));
    let (first, other) = (node.add(&a), node.add(&b));
    let named = |request: &mut Value| {
        request["ifname"] = json!("net1");
        request["config"]["name"] = json!("second");
    };
    let reply = called(&node, "ADD", &a, named);
    let second = addresses(&reply);
    let check = called(&node, "CHECK", &a, |request| {
        named(request);
        request["config"]["prevResult"] = reply["result"].clone();
    });
    assert_eq!(check, json!({"result": null}));
    for (n, family) in ["-4", "-6"].iter().enumerate() {
        let way = a.ns.run(&["ip", family, "route", "get", &other[n]]);
        assert!(way.contains("dev eth0") && way.contains(&first[n]), "{way}");
        // What `sbr` does: the second address has a table of its own.
        let default = a.ns.run(&["ip", family, "route", "show", "default", "dev", "net1"]);
        assert!(default.contains("via"), "{default}");
        let gateway = default.split(' ').nth(2).unwrap();
        a.ns.run(&["ip", family, "route", "add", "default", "via", gateway, "dev", "net1", "onlink", "table", "100"]);
        a.ns.run(&["ip", family, "rule", "add", "from", &second[n], "table", "100"]);
        assert!(b.ns.pings(&first[n]) && b.ns.pings(&second[n]) && a.ns.pings(&other[n]), "{family}");
    }
    assert_eq!(called(&node, "DEL", &a, named), json!({"result": null}));
    assert!(b.ns.pings(&first[0]) && b.ns.pings(&first[1]));
    assert_eq!(in_use(&node), first.into_iter().chain(other).collect());
}

#[test]
#[ignore = "needs root: make test"]
fn results_of_plugins_before_ours_are_passed_on() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let a = node.pod("a");
    let before = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "d0"}], "ips": [{"address": "192.0.2.9/24", "interface": 0}],
        "dns": {"domain": "example"}});
    let reply = called(&node, "ADD", &a, |request| request["config"]["prevResult"] = before);
    let result = &reply["result"];
    assert_eq!((&result["interfaces"][0]["name"], &result["interfaces"][2]["name"]), (&json!("d0"), &json!("eth0")));
    assert_eq!((&result["ips"][0]["address"], &result["ips"][1]["interface"]), (&json!("192.0.2.9/24"), &json!(2)));
    assert_eq!(result["dns"], json!({"domain": "example"}));
    let check = called(&node, "CHECK", &a, |request| request["config"]["prevResult"] = result.clone());
    assert_eq!(check, json!({"result": null}));
    let sandbox = a.ns.path();
    let made = json!({"interfaces": [{"name": "eth0", "sandbox": sandbox}], "ips": []});
    let (code, said) = error(&called(&node, "ADD", &a, |request| request["config"]["prevResult"] = made));
    assert!(code == 2 && said.contains("has made eth0 already"), "{said}");
    assert_eq!(in_use(&node).len(), 1, "what was attached before stays");
}

#[test]
#[ignore = "needs root: make test"]
fn addresses_of_another_s_plugin_are_guarded_like_ours_and_never_ours_to_give() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b, c) = (node.pod("a"), node.pod("b"), node.pod("c"));
    let given = |request: &mut Value| {
        request["config"]["ipam"] = json!({"type": "host-local"});
        request["ipamResult"] = json!({"ips": [{"address": "192.0.2.5/24", "gateway": "192.0.2.1"}, {"address": "2001:db8::5/64"}],
            "dns": {"nameservers": ["192.0.2.53"]}});
    };
    let reply = called(&node, "ADD", &a, given);
    assert_eq!(addresses(&reply), ["192.0.2.5", "2001:db8::5"], "{reply}");
    assert_eq!(reply["result"]["dns"], json!({"nameservers": ["192.0.2.53"]}));
    assert_eq!(called(&node, "ADD", &a, given), reply, "the same call again");
    let ours = node.add(&b);
    assert!(b.ns.pings("192.0.2.5") && b.ns.pings("2001:db8::5") && a.ns.pings(&ours[0]) && a.ns.pings(&ours[1]));
    let (code, said) = error(&called(&node, "ADD", &c, given));
    assert!(code == 11 && said.contains("still held by pod shop/a"), "{code} {said}");
    // Policy by address is as for ours.
    node.deny_all();
    node.ask(&json!({"op": "wait", "timeout_ms": 10_000})).unwrap();
    assert!(!b.ns.pings("192.0.2.5") && !a.ns.pings(&ours[1]) && node.ns.pings("192.0.2.5"));
    node.del(&a);
    // Its plugin gives it again at once.
    assert_eq!(addresses(&called(&node, "ADD", &c, given)), ["192.0.2.5", "2001:db8::5"]);
}

#[test]
#[ignore = "needs root: make test"]
fn addresses_are_lent_to_other_plugins_and_outlive_felix_until_they_come_back() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let a = node.pod("a");
    let lent = |request: &mut Value| {
        request["delegated"] = json!(true);
        request["args"] = json!("");
        request["ifname"] = json!("net1");
        request["config"] = json!({"cniVersion": "1.0.0", "name": "bridged", "type": "bridge",
            "ipam": {"type": "twill-ipam", "routes": [{"dst": "0.0.0.0/0"}]}});
    };
    let reply = called(&node, "ADD", &a, lent);
    let result = &reply["result"];
    assert!(result.get("interfaces").is_none(), "{reply}");
    let (four, gateway) =
        (result["ips"][0]["address"].as_str().unwrap(), result["ips"][0]["gateway"].as_str().unwrap());
    assert!(four.ends_with("/26") && gateway.ends_with(['0', '4', '8', '2']), "{reply}");
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": gateway}]));
    assert_eq!(called(&node, "ADD", &a, lent), reply);
    assert!(!node.ns.run(&["ip", "-o", "link"]).contains("twl"));
    let check = |result: &Value| {
        called(&node, "CHECK", &a, |request| {
            lent(request);
            request["config"]["prevResult"] = result.clone();
        })
    };
    assert_eq!(check(result), json!({"result": null}));
    assert_eq!(error(&check(&json!({"ips": []}))).0, 104);
    let held = in_use(&node);
    let result = result.clone();
    node.kill();
    node.start();
    assert_eq!(in_use(&node), held);
    let own = node.add(&a);
    assert!(own.iter().all(|address| !held.contains(address)), "{own:?}");
    let config = json!({"cniVersion": "1.1.0", "name": "bridged", "cni.dev/valid-attachments": []});
    let gc = |delegated: bool| {
        node.ask(&json!({"op": "cni", "command": "GC", "delegated": delegated, "config": config.clone()})).unwrap();
        in_use(&node).len()
    };
    assert_eq!((gc(false), gc(true)), (4, 2));
    assert_eq!(called(&node, "DEL", &a, lent), json!({"result": null}));
    assert!(result["ips"].is_array());
}

#[test]
#[ignore = "needs root: make test"]
fn a_repeated_add_that_gets_nothing_leaves_what_was_there() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pod = node.pod("a");
    let first = node.add(&pod).remove(0);
    let refused = called(&node, "ADD", &pod, |request| {
        request["config"]["runtimeConfig"] = json!({"ips": ["192.0.2.1/32"]});
    });
    assert_eq!(error(&refused).0, 103, "{refused}");
    assert_eq!(in_use(&node), BTreeSet::from([first.clone()]));
    assert!(node.ns.pings(&first));
    // One that gets something has that, and nothing else.
    let block = node.list::<twill_crds::IPBlock>().remove(0).spec.cidr;
    let other = twill_ipam::range::address(block, 40).unwrap().to_string();
    let renewed = called(&node, "ADD", &pod, |request| {
        request["config"]["runtimeConfig"] = json!({"ips": [format!("{other}/32")]});
    });
    assert_eq!(addresses(&renewed), std::slice::from_ref(&other));
    assert_eq!(in_use(&node), BTreeSet::from([other.clone()]));
    assert!(node.ns.pings(&other) && !node.ns.pings(&first));
}
