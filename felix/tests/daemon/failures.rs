//! Bad input and bad luck: one clear sentence, and nothing left behind.

use crate::node::Node;
use crate::world::{Ns, until};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use twill_crds::{IPBlock, IPPool, NodeNetwork};

fn error(reply: &Value) -> (u64, String) {
    let error = &reply["error"];
    (error["code"].as_u64().unwrap_or_else(|| panic!("{reply}")), error["msg"].as_str().unwrap().to_owned())
}

#[test]
#[ignore = "needs root: make test"]
fn a_namespace_that_is_missing_or_none_or_the_node_s_own_is_refused() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let a = node.pod("a");
    let (code, message) = error(&node.call("ADD", &a, "/run/netns/there-is-none"));
    assert_eq!((code, message.as_str()), (3, "CNI_NETNS: network namespace /run/netns/there-is-none does not exist"));
    let (code, message) = error(&node.call("ADD", &a, "/etc/hostname"));
    assert_eq!((code, message.as_str()), (4, "CNI_NETNS: /etc/hostname is no network namespace"));
    let (code, message) = error(&node.call("ADD", &a, "/proc/self/ns/mnt"));
    assert_eq!((code, message.as_str()), (4, "CNI_NETNS: /proc/self/ns/mnt is no network namespace"));
    // A pipe that nobody writes into: opening it must not wait, or felix would answer nobody any more.
    let pipe = node.directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (code, message) = error(&node.call("ADD", &a, &pipe.display().to_string()));
    assert_eq!(code, 4, "{message}");
    let (code, message) = error(&node.call("ADD", &a, &node.ns.path().display().to_string()));
    assert_eq!(code, 4);
    assert!(message.contains("the node's own network namespace"), "{message}");
    // The pod has an eth0 already: nothing of the attempt stays, neither interface nor address.
    a.ns.run(&["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other"]);
    let (code, message) = error(&node.cni("ADD", &a));
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("eth0") && message.contains("exists"), "{message}");
    assert!(!node.ns.run(&["ip", "-o", "link"]).contains("twl"));
    assert_eq!(node.ask(&json!({"op": "addresses"})).unwrap(), json!([]));
    let stranger = crate::node::Attached { ns: Ns::new("x"), name: "a".into(), uid: "another-uid".into() };
    let (code, message) = error(&node.cni("ADD", &stranger));
    assert_eq!(code, 11);
    assert!(message.starts_with("pod shop/a with UID another-uid did not appear in the datastore within"), "{message}");
}

#[test]
#[ignore = "needs root: make test"]
fn a_full_pool_is_named_with_its_use() {
    let mut node = Node::new(&[]);
    node.create::<IPPool>(json!({"metadata": {"name": "tiny"}, "spec": {"cidr": "10.42.0.0/30", "blockSize": 31}}));
    node.create::<IPBlock>(
        json!({"metadata": {"name": "10-42-0-0-31"}, "spec": {"cidr": "10.42.0.0/31", "node": "n2"}}),
    );
    node.start();
    let (a, b) = (node.pod("a"), node.pod("b"));
    assert_eq!(node.add(&a), ["10.42.0.3"]);
    let (code, message) = error(&node.cni("ADD", &b));
    assert_eq!(code, 100);
    assert!(
        message.starts_with("IPPool tiny (10.42.0.0/30) is full: 2 of its 2 blocks of /31 are claimed"),
        "{message}"
    );
    assert!(!node.ns.run(&["ip", "-o", "link"]).contains(&b.uid));
    // Rests after DEL, so the pool stays full: the address is not handed to the next at once.
    node.del(&a);
    assert_eq!(error(&node.cni("ADD", &b)).0, 100);
}

#[test]
#[ignore = "needs root: make test"]
fn without_a_pool_the_sentence_says_so_and_overlapping_pools_are_a_problem() {
    let mut node = Node::new(&[]);
    node.start();
    let a = node.pod("a");
    let (code, message) = error(&node.cni("ADD", &a));
    assert_eq!(code, 100);
    assert!(message.starts_with("no IPPool gives addresses to pods of namespace shop on node n1"), "{message}");
    until("the conditions are written", Duration::from_secs(5), || {
        let networks = node.list::<NodeNetwork>();
        let status = networks.first().and_then(|network| network.status.clone());
        status.is_some_and(|status| {
            status
                .felix
                .conditions
                .iter()
                .any(|condition| condition.type_ == "PolicySynced" && condition.status == "True")
        })
    });
}

#[test]
#[ignore = "needs root: make test"]
fn a_full_disk_under_the_store_is_said_and_leaks_nothing() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    let disk = node.directory.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let run = |args: &[&str]| assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    let path = disk.display().to_string();
    run(&["mount", "-t", "tmpfs", "-o", "size=256k", "none", &path]);
    struct Unmount(String);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").args(["-l", &self.0]).status();
        }
    }
    let _unmount = Unmount(path);
    node.state = disk.join("state");
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    node.add(&a);
    let filler = disk.join("filler");
    // All of it, to the last byte.
    let _ = std::fs::write(&filler, vec![0; 1 << 20]);
    let (code, message) = error(&node.cni("ADD", &b));
    assert_eq!(code, 102, "{message}");
    assert!(message.contains("addresses.db cannot be written") && message.contains("free space"), "{message}");
    assert_eq!(node.ask(&json!({"op": "addresses"})).unwrap().as_array().unwrap().len(), 1);
    assert_eq!(node.ns.run(&["ip", "-o", "link"]).matches("twl").count(), 1);
    std::fs::remove_file(&filler).unwrap();
    let address = node.add(&b).remove(0);
    assert!(a.ns.pings(&address));
}

#[test]
#[ignore = "needs root: make test"]
fn a_second_felix_on_one_state_directory_ends_with_a_sentence() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let mut second = Node::new(&["10.42.0.0/16"]);
    second.state = node.state.clone();
    second.launch();
    assert!(!second.wait());
    assert!(second.tail().contains("is in use by another process"), "{}", second.tail());
    assert_eq!(node.status().unwrap()["inSync"], true);
}

#[test]
#[ignore = "needs root: make test"]
fn without_bgpd_a_block_is_used_after_a_while_and_that_is_a_problem_until_its_route_comes() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start();
    let a = node.pod("a");
    let began = std::time::Instant::now();
    node.add(&a);
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    let problems = || node.status().unwrap()["problems"].to_string();
    assert!(problems().contains("is used without bgpd's route"), "{}", problems());
    let cidr = node.list::<IPBlock>()[0].spec.cidr.to_string();
    node.ns.run(&["ip", "route", "add", "unreachable", &cidr, "proto", "84", "metric", "4096"]);
    until("the problem is gone", Duration::from_secs(2), || problems() == "[]");
}
