//! DEL in bad company: beside an ADD that runs, without felix, twice, late, with what belongs to another by now.

use crate::node::{Attached, Node};
use crate::world::until;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn in_use(node: &Node) -> usize {
    node.ask(&json!({"op": "addresses"})).unwrap().as_array().unwrap().len()
}

fn interfaces(node: &Node) -> usize {
    node.ns.run(&["ip", "-o", "link"]).matches("twl").count()
}

/// A moment as the plugin tells it, so many nanoseconds from the beginning of this boot.
fn at(nanoseconds: u64) -> Value {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    json!(format!("{}/{nanoseconds}", boot.trim()))
}

fn request(node: &Node, command: &str, pod: &Attached, generation: u64) -> Value {
    let mut request = node.request(command, pod, &pod.ns.path().display().to_string());
    request["generation"] = at(generation);
    request
}

/// Sends a request; its connection is the caller's to keep.
fn send(node: &Node, request: &Value) -> UnixStream {
    let mut stream = UnixStream::connect(node.directory.path().join("felix.sock")).unwrap();
    writeln!(stream, "{request}").unwrap();
    stream
}

fn answer(stream: &UnixStream) -> Value {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

/// A pod's namespace without its Pod: its ADD waits.
fn awaited(name: &str) -> Attached {
    Attached { ns: crate::world::Ns::new(name), name: name.to_owned(), uid: "not-yet".to_owned() }
}

#[test]
#[ignore = "needs root: make test"]
fn a_del_ends_an_add_that_runs_and_not_one_that_came_later() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pod = awaited("late");
    let add = send(&node, &request(&node, "ADD", &pod, 10));
    until("the ADD has begun", SOON, || node.log_text().contains("ADD begins"));
    let began = Instant::now();
    let earlier = send(&node, &request(&node, "DEL", &pod, 9));
    assert_eq!(node.ask(&request(&node, "DEL", &pod, 11)), Some(json!({"result": null})));
    assert_eq!(answer(&earlier), json!({"result": null}));
    let said = answer(&add);
    assert_eq!(said["error"]["code"], 11, "{said}");
    assert!(said["error"]["msg"].as_str().unwrap().contains("a DEL of the same container"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((in_use(&node), interfaces(&node)), (0, 0));
}

#[test]
#[ignore = "needs root: make test"]
fn an_add_whose_plugin_is_gone_is_taken_back_before_and_after_its_answer() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    // Before: it waits for a Pod that comes only when nobody waits any more.
    let pod = awaited("late");
    drop(send(&node, &request(&node, "ADD", &pod, 10)));
    until("that was noticed", SOON, || node.log_text().contains("nobody waits for the ADD any more"));
    assert_eq!((in_use(&node), interfaces(&node)), (0, 0));
    // After: it has the answer, and does not say that the runtime has it.
    let a = node.pod("a");
    let mut add = request(&node, "ADD", &a, 20);
    add["acknowledges"] = json!(true);
    let stream = send(&node, &add);
    assert!(answer(&stream)["result"]["ips"].is_array());
    assert_eq!((in_use(&node), interfaces(&node)), (1, 1));
    drop(stream);
    until("it is taken back", SOON, || (in_use(&node), interfaces(&node)) == (0, 0));
    // One that says so stays, whatever becomes of a repetition.
    let mut stream = send(&node, &add);
    let first = answer(&stream);
    writeln!(stream, "{{\"acknowledged\":true}}").unwrap();
    drop(stream);
    drop(send(&node, &add));
    assert_eq!(node.ask(&request(&node, "ADD", &a, 30)), Some(first));
    assert_eq!((in_use(&node), interfaces(&node)), (1, 1));
    // A DEL does not wait for a plugin that has not said so yet.
    let b = node.pod("b");
    let mut add = request(&node, "ADD", &b, 40);
    add["acknowledges"] = json!(true);
    let _stream = send(&node, &add);
    assert!(answer(&_stream)["result"]["ips"].is_array());
    let began = Instant::now();
    assert_eq!(node.ask(&request(&node, "DEL", &b, 41)), Some(json!({"result": null})));
    assert!(began.elapsed() < Duration::from_secs(5) && in_use(&node) == 1, "{:?}", began.elapsed());
}

#[test]
#[ignore = "needs root: make test"]
fn a_del_means_its_own_network_and_what_was_attached_before_it() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (a, b) = (node.pod("a"), node.pod("b"));
    node.ask(&request(&node, "ADD", &a, 20)).unwrap();
    let address = node.add(&b).remove(0);
    let mut other = request(&node, "DEL", &a, 30);
    other["config"]["name"] = json!("second");
    for harmless in [request(&node, "DEL", &a, 19), other] {
        assert_eq!(node.ask(&harmless), Some(json!({"result": null})));
        assert_eq!((in_use(&node), interfaces(&node)), (2, 2));
    }
    let mut taken = request(&node, "ADD", &a, 40);
    taken["config"]["name"] = json!("second");
    let refused = node.ask(&taken).unwrap();
    assert!(refused["error"]["msg"].as_str().unwrap().contains("has eth0 in network twill already"), "{refused}");
    // The path of its namespace is another pod's by now: that one is not touched.
    let reused = b.ns.path().display().to_string();
    let mut del = node.request("DEL", &a, &reused);
    del["generation"] = at(50);
    for _ in 0..2 {
        assert_eq!(node.ask(&del), Some(json!({"result": null})));
    }
    assert!(node.ns.pings(&address) && b.ns.run(&["ip", "-o", "link"]).contains("eth0"));
    assert_eq!((in_use(&node), interfaces(&node)), (1, 1));
}

/// Leaves what the plugin leaves when felix is away.
fn leave(node: &Node, request: &Value) {
    let directory = node.state.join("cni-deleted");
    fs::create_dir_all(&directory).unwrap();
    let name = format!("{}-{}", request["generation"].as_str().unwrap().replace('/', "-"), request["containerId"]);
    fs::write(directory.join(name), request.to_string()).unwrap();
}

fn left(node: &Node) -> usize {
    fs::read_dir(node.state.join("cni-deleted")).unwrap().count()
}

#[test]
#[ignore = "needs root: make test"]
fn dels_that_came_while_felix_was_away_are_performed_before_its_first_add() {
    let mut node = Node::new(&["10.42.0.0/16", "fd42::/112"]);
    node.start_routed(2);
    let (a, b, c) = (node.pod("a"), node.pod("b"), node.pod("c"));
    for (pod, generation) in [(&a, 10), (&b, 10), (&c, 30)] {
        assert!(node.ask(&request(&node, "ADD", pod, generation)).unwrap()["result"]["ips"].is_array());
    }
    node.kill();
    leave(&node, &request(&node, "DEL", &a, 20));
    leave(&node, &request(&node, "DEL", &c, 20));
    let mut other = request(&node, "DEL", &b, 20);
    other["config"]["name"] = json!("second");
    leave(&node, &other);
    // The datastore is away as well: even so nothing is served before.
    node.start();
    assert_eq!((in_use(&node), interfaces(&node), left(&node)), (4, 2, 0));
    assert!(b.ns.run(&["ip", "-o", "link"]).contains("eth0") && c.ns.run(&["ip", "-o", "link"]).contains("eth0"));
    assert!(!a.ns.run(&["ip", "-o", "link"]).contains("eth0"));
    // One whose plugin was killed before it called a felix that runs.
    leave(&node, &request(&node, "DEL", &c, 31));
    until("it is performed", SOON, || left(&node) == 0);
    assert_eq!((in_use(&node), interfaces(&node)), (2, 1));
    // The same once more does no harm to what comes after it.
    assert!(node.ask(&request(&node, "ADD", &c, 40)).unwrap()["result"]["ips"].is_array());
    leave(&node, &request(&node, "DEL", &c, 31));
    node.kill();
    node.start();
    assert_eq!((in_use(&node), interfaces(&node), left(&node)), (4, 2, 0));
}
