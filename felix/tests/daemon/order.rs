//! The order of an ADD, held to account by stopping the one thread of felix whose work it must wait for.

use crate::node::{Attached, Node};
use crate::world::until;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::json;
use std::sync::mpsc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A thread of felix that does nothing until this is dropped, while the others go on.
struct Held(Pid);

impl Held {
    /// Stops the thread of this name.
    fn new(node: &Node, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap().map(|task| task.unwrap());
        let named =
            |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap().trim() == name;
        let mut found: Vec<i32> =
            tasks.filter(named).map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect();
        assert_eq!(found.len(), 1, "threads of felix named {name}");
        let thread = Pid::from_raw(found.remove(0));
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A thread that has ended is as free.
        let _ = ptrace::detach(self.0, None);
    }
}

/// A pod that felix knows and has not attached; nothing else is under way.
fn known_pod(node: &Node) -> Attached {
    let pod = node.pod("a");
    let heard = node.ask(&json!({"op": "wait", "timeout_ms": 10_000})).unwrap();
    assert_eq!(heard["applied"], json!(true), "{heard}");
    pod
}

fn interfaces(node: &Node) -> usize {
    node.ns.run(&["ip", "-o", "link"]).matches("twl").count()
}

#[test]
#[ignore = "needs root: make test"]
fn an_add_is_not_answered_before_what_the_datastore_had_when_it_began_was_heard() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pod = known_pod(&node);
    // The datastore says how late it is, and its events do not arrive.
    let events = Held::new(&node, "sqlite-watch");
    node.deny_all();
    let reply = node.cni("ADD", &pod);
    let why = "felix did not hear from the datastore what it had when the call began within 10 s";
    assert_eq!((&reply["error"]["code"], &reply["error"]["msg"]), (&json!(11), &json!(why)), "{reply}");
    assert_eq!(interfaces(&node), 0);
    drop(events);
    let reply = node.cni("ADD", &pod);
    let lists = node.ns.run(&["nft", "list", "map", "inet", "twill", "to_pod"]);
    let interface = reply["result"]["interfaces"][0]["name"].as_str().unwrap_or_else(|| panic!("{reply}"));
    assert!(lists.contains(interface), "the policy of that moment is in force: {lists}");
}

#[test]
#[ignore = "needs root: make test"]
fn an_add_is_neither_answered_nor_gets_an_interface_before_the_kernel_has_its_policy() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.deny_all();
    node.start_routed(1);
    let pod = known_pod(&node);
    let stored = |node: &Node| {
        let files = ["addresses.db", "addresses.db-wal"]
            .map(|file| node.state.join(twill_ipam::io::store::DIRECTORY).join(file));
        let bytes = files.map(|file| std::fs::read(file).unwrap_or_default()).concat();
        bytes.windows(pod.uid.len()).any(|window| window == pod.uid.as_bytes())
    };
    let commits = Held::new(&node, "nft");
    let (said, answer) = mpsc::channel();
    let reply = std::thread::scope(|scope| {
        let (node, pod) = (&node, &pod);
        scope.spawn(move || said.send(node.cni("ADD", pod)).unwrap());
        until("its address is kept, which comes before the commit", SOON, || stored(node));
        // Nothing tells of what does not happen. What must come after the commit takes a hundredth of this when it comes before it.
        let early = answer.recv_timeout(Duration::from_secs(2));
        let made = interfaces(node);
        drop(commits);
        assert_eq!((early, made), (Err(mpsc::RecvTimeoutError::Timeout), 0));
        answer.recv_timeout(SOON).unwrap()
    });
    let interface = reply["result"]["interfaces"][0]["name"].as_str().unwrap_or_else(|| panic!("{reply}"));
    for part in [["set", "known"], ["map", "to_pod"], ["map", "from_pod"]] {
        let held = node.ns.run(&["nft", "list", part[0], "inet", "twill", part[1]]);
        assert!(held.contains(interface), "{held}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_question_about_the_table_keeps_nobody_else_waiting() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.deny_all();
    node.start_routed(1);
    let pod = known_pod(&node);
    node.add(&pod);
    let commits = Held::new(&node, "nft");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| node.ask(&json!({"op": "ruleset"})).unwrap());
        // What the table is to hold is asked of that thread. Whoever asks felix for something else has an answer, before and after felix has
        // heard of the question.
        for _ in 0..50 {
            assert_eq!(node.status().unwrap()["endpoints"], 1);
        }
        assert!(!asked.is_finished());
        drop(commits);
        let shown = asked.join().unwrap();
        assert_eq!(shown["differs"], json!([]), "{shown}");
        let lists: Vec<&serde_json::Value> =
            shown["lists"].as_object().unwrap().values().flat_map(|users| users.as_array().unwrap()).collect();
        assert!(lists.iter().all(|user| user["pod"] == "shop/a") && lists.len() == 2, "{shown}");
    });
}
