//! How fast pods may be (capability `bandwidth`): what passes, measured, and that it stays so.

use crate::node::{Attached, Node};
use crate::world::until;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use twill_felix::io::netns::Netns;

/// Bits per second, and bits at once.
const RATE: f64 = 40e6;
const BURST: u64 = 2_000_000;
const SOON: Duration = Duration::from_secs(5);
const PORT: u16 = 7000;

fn limits() -> Value {
    json!({"bandwidth": {"ingressRate": RATE as u64, "ingressBurst": BURST, "egressRate": RATE as u64, "egressBurst": BURST}})
}

/// Megabits per second of TCP from one namespace to another, without the first burst.
fn tcp_rate(from: &Netns, to: &Netns, address: &str) -> f64 {
    const SECONDS: f64 = 2.0;
    let address = SocketAddr::new(address.parse().unwrap(), PORT);
    let listener = to.run(move || TcpListener::bind(address).unwrap()).unwrap();
    let stream = from.run(move || TcpStream::connect_timeout(&address, SOON)).unwrap();
    let mut stream = stream.unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let sender = std::thread::spawn(move || while stream.write_all(&[0; 65536]).is_ok() {});
    let mut buffer = vec![0; 1 << 20];
    let mut left = 2 * usize::try_from(BURST / 8).unwrap();
    while left > 0 {
        left = left.saturating_sub(accepted.read(&mut buffer).unwrap());
    }
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed().as_secs_f64() < SECONDS {
        bytes += accepted.read(&mut buffer).unwrap();
    }
    let rate = bytes as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e6;
    drop(accepted);
    sender.join().unwrap();
    rate
}

/// Megabits per second of datagrams that arrive, of twice the rate sent, after the first burst.
fn udp_rate(from: &Netns, to: &Netns, address: &str) -> f64 {
    const SIZE: usize = 1200;
    let address = SocketAddr::new(address.parse().unwrap(), PORT);
    let receiver = to.run(move || UdpSocket::bind(address).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let sender = from.run(move || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let sending = std::thread::spawn(move || {
        let begin = Instant::now();
        let mut sent = 0.0;
        while begin.elapsed() < Duration::from_secs(3) {
            if sent * 8.0 < begin.elapsed().as_secs_f64() * RATE * 2.0 {
                let _ = sender.send_to(&[0; SIZE], address);
                sent += SIZE as f64;
            } else {
                std::thread::park_timeout(Duration::from_micros(500));
            }
        }
    });
    let mut buffer = [0; 2048];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        receiver.recv(&mut buffer).unwrap();
    }
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed().as_secs_f64() < 1.5 {
        bytes += receiver.recv(&mut buffer).unwrap();
    }
    let rate = bytes as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e6;
    sending.join().unwrap();
    rate
}

fn interface(reply: &Value) -> String {
    reply["result"]["interfaces"][0]["name"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

fn add(node: &Node, pod: &Attached, capabilities: &Value) -> (String, String) {
    let reply = node.call_with("ADD", pod, &pod.ns.path().display().to_string(), capabilities);
    let address = reply["result"]["ips"][0]["address"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
    (interface(&reply), address.split('/').next().unwrap().to_owned())
}

fn disciplines(node: &Node) -> String {
    node.ns.run(&["tc", "qdisc", "show"])
}

fn is_whole(node: &Node, interface: &str) -> bool {
    let device = interface.replace("twl", "twb");
    let all = disciplines(node);
    let has = |what: String| all.contains(&what);
    let filter = node.ns.output(&["tc", "filter", "show", "dev", interface, "parent", "ffff:"]);
    has(format!("tbf 7477: dev {interface} root"))
        && has(format!("ingress ffff: dev {interface}"))
        && has(format!("tbf 7477: dev {device} root"))
        && String::from_utf8_lossy(&filter.stdout).contains(&device)
}

#[test]
#[ignore = "needs root: make test"]
fn a_limited_pod_sends_and_receives_at_its_rate_and_others_do_not_feel_it() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (slow, free) = (node.pod("slow"), node.pod("free"));
    let (_, slow_at) = add(&node, &slow, &limits());
    let (_, free_at) = add(&node, &free, &Value::Null);
    let [slow, free, host] = [slow.ns.path(), free.ns.path(), node.ns.path()].map(|path| Netns::open(&path).unwrap());
    let measured = [
        ("TCP to it", tcp_rate(&free, &slow, &slow_at)),
        ("TCP from it", tcp_rate(&slow, &free, &free_at)),
        ("TCP from its node", tcp_rate(&host, &slow, &slow_at)),
        ("UDP to it", udp_rate(&free, &slow, &slow_at)),
        ("UDP from it", udp_rate(&slow, &free, &free_at)),
    ];
    for (what, rate) in measured {
        println!("{what}: {rate:.1} Mbit/s of {:.0}", RATE / 1e6);
        assert!((0.8..1.1).contains(&(rate * 1e6 / RATE)), "{what}: {rate}");
    }
    let unlimited = tcp_rate(&host, &free, &free_at);
    println!("TCP to another: {unlimited:.0} Mbit/s");
    assert!(unlimited > 400.0, "{unlimited}");
}

#[test]
#[ignore = "needs root: make test"]
fn limits_are_put_back_outlive_felix_and_leave_with_the_pod() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let (pod, other) = (node.pod("slow"), node.pod("free"));
    let (interface, _) = add(&node, &pod, &limits());
    add(&node, &other, &Value::Null);
    let device = interface.replace("twl", "twb");
    assert!(is_whole(&node, &interface), "{}", disciplines(&node));
    let repairs = |node: &Node| node.status().unwrap()["repairs"].as_u64().unwrap();
    assert_eq!(repairs(&node), 0, "what stands as it was made is not made again: {}", node.tail());
    let tc = |words: &str| {
        let words: Vec<&str> = ["tc"].into_iter().chain(words.split(' ')).collect();
        node.ns.run(&words);
    };
    for harm in [
        format!("qdisc del dev {interface} root"),
        format!("qdisc replace dev {interface} root handle 7477: tbf rate 1gbit burst 1mb limit 2mb"),
        format!("qdisc del dev {interface} ingress"),
        format!("filter del dev {interface} parent ffff:"),
        format!("qdisc del dev {device} root"),
    ] {
        let before = repairs(&node);
        tc(&harm);
        until(&format!("{harm}: put right"), Duration::from_secs(1), || {
            repairs(&node) > before && is_whole(&node, &interface) && !disciplines(&node).contains("1Gbit")
        });
    }
    for harm in [["del"].as_slice(), &["set", "down"]] {
        let before = repairs(&node);
        let words: Vec<&str> = match harm {
            ["del"] => vec!["ip", "link", "del", &device],
            _ => vec!["ip", "link", "set", &device, "down"],
        };
        node.ns.run(&words);
        until("the device is back", Duration::from_secs(1), || repairs(&node) > before && is_whole(&node, &interface));
    }
    node.kill();
    node.ns.run(&["tc", "qdisc", "del", "dev", &interface, "root"]);
    node.start();
    until("the next felix knows it", SOON, || is_whole(&node, &interface));
    // By the kernel's word alone.
    node.kill();
    std::fs::remove_dir_all(node.state.join("ipam")).unwrap();
    node.start();
    let before = repairs(&node);
    node.ns.run(&["ip", "link", "del", &device]);
    until("it is back without a store", SOON, || repairs(&node) > before && is_whole(&node, &interface));
    // The same pod once more, without limits and with them again.
    assert_eq!(add(&node, &pod, &Value::Null).0, interface);
    assert!(!disciplines(&node).contains("tbf") && !disciplines(&node).contains("ingress"), "{}", disciplines(&node));
    add(&node, &pod, &limits());
    assert!(is_whole(&node, &interface));
    // Of an interface that went without DEL nothing stays either.
    node.ns.run(&["ip", "link", "del", &interface]);
    let devices = |node: &Node| node.ns.run(&["ip", "-o", "link"]).contains("twb");
    until("its device follows", SOON, || !devices(&node));
    add(&node, &pod, &limits());
    assert!(is_whole(&node, &interface));
    node.del(&pod);
    assert!(!devices(&node) && !disciplines(&node).contains("tbf"));
}

#[test]
#[ignore = "needs root: make test"]
fn a_limit_that_cannot_be_put_right_is_said_once_and_hinders_nothing_else() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pod = node.pod("slow");
    let (interface, _) = add(&node, &pod, &limits());
    let device = interface.replace("twl", "twb");
    node.ns.run(&["ip", "link", "del", &device]);
    until("it is put right", SOON, || is_whole(&node, &interface));
    // The kernel lets nobody delete the loopback interface, whatever its name is.
    node.kill();
    node.ns.run(&["ip", "link", "del", &device]);
    node.ns.run(&["ip", "link", "set", "lo", "down"]);
    node.ns.run(&["ip", "link", "set", "lo", "name", &device]);
    node.start();
    let problems = |node: &Node| node.status().unwrap()["problems"].to_string();
    let told = |node: &Node| problems(node).contains(&format!("deleting interface {device}"));
    until("it is said", 2 * SOON, || told(&node));
    for _ in 0..3 {
        node.ns.run(&["ip", "route", "add", "10.99.0.1", "dev", &interface, "proto", "85"]);
        until("a route that leads to nobody goes", Duration::from_secs(12), || {
            !node.ns.run(&["ip", "route"]).contains("10.99.0.1")
        });
    }
    let said = |node: &Node| node.log_text().matches("not put right; tried again").count();
    assert_eq!(said(&node), 1, "{}", node.tail());
    node.ns.run(&["ip", "link", "set", &device, "name", "lo"]);
    node.ns.run(&["ip", "link", "set", "lo", "up"]);
    until("it is put right when it can be", Duration::from_secs(40), || is_whole(&node, &interface) && !told(&node));
}

#[test]
#[ignore = "needs root: make test"]
fn disciplines_of_others_stay_with_a_limit_and_without_one() {
    let mut node = Node::new(&["10.42.0.0/16"]);
    node.start_routed(1);
    let pod = node.pod("shared");
    let netns = pod.ns.path().display().to_string();
    let attached = node.call_with("ADD", &pod, &netns, &Value::Null);
    let interface = interface(&attached);
    let tc = |words: String| node.ns.run(&["tc"].into_iter().chain(words.split(' ')).collect::<Vec<_>>());
    let foreign = |node: &Node| {
        let all = disciplines(node);
        let filter = node.ns.run(&["tc", "filter", "show", "dev", &interface, "ingress"]);
        all.contains("tbf 1:") && all.contains(&format!("clsact ffff: dev {interface}")) && filter.contains("pref 7 ")
    };
    tc(format!("qdisc add dev {interface} root handle 1: tbf rate 1gbit burst 1mb latency 25ms"));
    tc(format!("qdisc add dev {interface} clsact"));
    tc(format!("filter add dev {interface} ingress prio 7 protocol all u32 match u32 1 1 flowid 1:1"));
    // CHECK finds nothing, and the same ADD once more takes nothing away.
    let check = |capabilities: &Value| {
        let mut request = node.request("CHECK", &pod, &netns);
        request["config"]["runtimeConfig"] = capabilities.clone();
        request["config"]["prevResult"] = attached["result"].clone();
        node.ask(&request).unwrap()
    };
    assert_eq!(check(&Value::Null), json!({"result": null}));
    add(&node, &pod, &Value::Null);
    assert!(foreign(&node), "{}", disciplines(&node));
    // Ours beside theirs, where there is room for both.
    let egress = json!({"bandwidth": {"egressRate": 1000}});
    add(&node, &pod, &egress);
    let device = interface.replace("twl", "twb");
    let filters = || node.ns.run(&["tc", "filter", "show", "dev", &interface, "ingress"]);
    assert!(foreign(&node) && filters().contains(&device), "{} {}", disciplines(&node), filters());
    assert_eq!(check(&egress), json!({"result": null}), "the slowest limit comes back as it was asked for");
    add(&node, &pod, &Value::Null);
    assert!(foreign(&node) && !filters().contains(&device) && !disciplines(&node).contains(&device));
    assert_eq!(node.status().unwrap()["repairs"], 0, "{}", node.tail());
}
