//! `twill trace` says what became of real packets, by which policy or whose table, and leaves nothing behind.
//!
//! ```text
//!   n1: web (closed but for 8000), near          n2: far
//! ```
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::Duration;
use support::flows::{Flow, Pod};
use support::{POOLS, pod};
use twill_e2e::{Lab, twill, within};
use twill_lab::io::netns;

const POLICY: &str = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 8000}]}]}
";
/// One rack with two nodes, of both families.
const LAB: &str = "
apiVersion: twill.network/v1
kind: Lab
metadata: {name: test}
spec:
  racks: [{name: r1, subnets: [172.31.1.0/24, 'fd31:1::/64'], nodes: [n1, n2]}]
  resources: [pools.yaml, pods.yaml]
";
/// For what is not answered.
const SHORT: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_secs(20);

struct World {
    lab: Lab,
}

impl World {
    fn up() -> Self {
        let pods = [pod("web", "n1"), pod("near", "n1"), pod("far", "n2"), POLICY.to_owned()].concat();
        Self { lab: Lab::up("trace", LAB, &[("pools.yaml", POOLS), ("pods.yaml", &pods)]).unwrap() }
    }

    fn pod(&self, name: &str) -> Pod {
        let pod = self.lab.pod(&format!("default/{name}")).unwrap();
        Pod { netns: pod.netns, addresses: pod.ips.iter().map(|ip| ip.parse().unwrap()).collect() }
    }

    /// Starts to watch on n1, and has begun when this returns.
    fn watch(&self, args: &[&str]) -> Child {
        let twill = twill().unwrap();
        let command = [&[twill.to_str().unwrap(), "trace", "-o", "json"], args].concat();
        let child = self.lab.exec_command("n1", &command).stdout(Stdio::piped()).spawn().unwrap();
        within(SOON, "its table is there", || self.tables() == 1).unwrap();
        child
    }

    fn tables(&self) -> usize {
        self.lab.exec("n1", &["nft", "list", "tables"]).unwrap().matches("twill_trace").count()
    }

    fn send(&self, from: &str, to: &str, port: u16) {
        let to = SocketAddr::new(self.pod(to).addresses[0], port);
        netns::inside(&self.pod(from).netns, || Ok(UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", to).map(|_| ())?))
            .unwrap();
    }

    /// What it told, and its exit code; nothing of it is left.
    fn told(&self, child: Child) -> (Vec<Value>, Option<i32>) {
        let output = child.wait_with_output().unwrap();
        within(SOON, "its table is gone", || self.tables() == 0).unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (told.as_array().unwrap().clone(), output.status.code())
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_trace_names_the_policy_that_drops_and_the_foreign_table_and_an_allowed_packet_passes() {
    let world = World::up();
    // Denied: by whose list, and what policy says is the same.
    let child = world.watch(&["default/near", "default/web:8001/udp", "-n", "1"]);
    world.send("near", "web", 8001);
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (1, Some(2)), "{told:?}");
    assert_eq!(
        told[0]["droppedBy"], "ingress of default/web (NetworkPolicy default/web): no rule allows it",
        "{}",
        told[0]
    );
    assert_eq!((&told[0]["differs"], &told[0]["policy"]["allowed"]), (&false.into(), &false.into()));

    // Allowed, over TCP, with the answers.
    let child = world.watch(&["default/far", "default/web:8000", "-n", "3"]);
    let mut flow = Flow::tcp(&world.pod("far"), &world.pod("web"), 0, 8000);
    assert!(flow.lives());
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (3, Some(0)), "{told:?}");
    assert!(told.iter().all(|one| one["droppedBy"].is_null() && one["differs"] == false), "{told:?}");
    assert!(told.iter().any(|one| one["answer"] == true) && told.iter().any(|one| one["answer"] == false), "{told:?}");
    let allows = "ingress of default/web (NetworkPolicy default/web): NetworkPolicy default/web ingress[0]";
    assert!(told[0]["steps"].as_array().unwrap().iter().any(|step| step["at"] == allows), "{told:?}");

    // Somebody else's table: it is named as it is, and policy says otherwise.
    let foreign = "table ip other { chain gate { type filter hook forward priority -5; ip protocol icmp drop comment \"no pings\"; }; }";
    world.lab.exec("n1", &["nft", foreign]).unwrap();
    let child = world.watch(&["default/near", "default/far:icmp", "-n", "1"]);
    let to = world.pod("far").addresses[0].to_string();
    let _ = world.lab.exec("default/near", &["ping", "-c", "1", "-W", "0.2", &to]);
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (1, Some(2)), "{told:?}");
    assert_eq!(told[0]["droppedBy"], "table ip other, chain gate: no pings");
    assert_eq!(told[0]["differs"], true);
}

/// A Service with one endpoint, as kube-proxy writes it for nftables: looked up by address, protocol and port, its endpoint by chance.
fn service(address: IpAddr, ports: &[(u16, u16)], endpoint: IpAddr) -> String {
    let (family, kind) = if address.is_ipv4() { ("ip", "ipv4_addr") } else { ("ip6", "ipv6_addr") };
    let elements: Vec<String> =
        ports.iter().map(|(port, _)| format!("{address} . tcp . {port} : goto service-{port}")).collect();
    let chains = ports.iter().map(|(port, target)| {
        let to = SocketAddr::new(endpoint, *target);
        format!(
            "chain endpoint-{port} {{ meta l4proto tcp dnat to {to}; }}
             chain service-{port} {{ numgen random mod 1 vmap {{ 0 : goto endpoint-{port} }}; }}"
        )
    });
    format!(
        "table {family} kube-proxy {{
           {}
           map service-ips {{ type {kind} . inet_proto . inet_service : verdict; elements = {{ {} }}; }}
           chain services {{ {family} daddr . meta l4proto . th dport vmap @service-ips; }}
           chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
           chain nat-output {{ type nat hook output priority -100; jump services; }}
         }}",
        chains.collect::<Vec<_>>().join("\n"),
        elements.join(", "),
    )
}

/// Both ends of a connection to a Service, which have heard each other.
fn through(client: &Pod, service: SocketAddr, server: &Pod, at: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = netns::inside(&server.netns, || Ok(TcpListener::bind(at)?)).unwrap();
    let mut client = netns::inside(&client.netns, || Ok(TcpStream::connect_timeout(&service, SOON)?)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    (client, server)
}

fn says(told: &[Value], field: &str) -> BTreeSet<String> {
    told.iter().filter_map(|one| one[field].as_str().map(str::to_owned)).collect()
}

#[test]
#[ignore = "needs root: make test"]
fn a_trace_follows_a_service_to_the_pod_behind_it_and_back_in_both_families() {
    let world = World::up();
    let (near, web) = (world.pod("near"), world.pod("web"));
    for (family, address) in [(0, "10.96.0.10"), (1, "fd96::10")] {
        let address: IpAddr = address.parse().unwrap();
        world.lab.exec("n1", &["nft", &service(address, &[(80, 8000), (81, 8001)], web.addresses[family])]).unwrap();
        let [to, denied] = [80, 81].map(|port| SocketAddr::new(address, port));
        let at = SocketAddr::new(web.addresses[family], 8000);

        // Asked for by the Service's address or by the pod behind it: the same packets, with the pod's name, both ways.
        for asked in [to.to_string(), "default/web:8000".to_owned()] {
            let child = world.watch(&["default/near", &asked, "-n", "5"]);
            let _connection = through(&near, to, &web, at);
            let (told, code) = world.told(child);
            assert_eq!((told.len(), code), (5, Some(0)), "{told:?}");
            assert!(told.iter().all(|one| one["droppedBy"].is_null() && one["differs"] == false), "{told:?}");
            let [client, server] = [("near", &near), ("web", &web)]
                .map(|(name, pod)| format!("default/{name} ({})", pod.addresses[family]));
            let ways = [(false, format!("{client} -> {server} TCP ")), (true, format!("{server} -> {client} TCP "))];
            for (answer, ends) in ways {
                let way: Vec<&Value> = told.iter().filter(|one| one["answer"] == answer).collect();
                assert!(way.len() >= 2, "{asked}: {told:?}");
                assert!(way.iter().all(|one| one["packet"].as_str().unwrap().starts_with(&ends)), "{asked}: {told:?}");
            }
            if asked == to.to_string() {
                assert_eq!(says(&told, "sentTo"), BTreeSet::from([asked]), "{told:?}");
            }
            let allows = "ingress of default/web (NetworkPolicy default/web): NetworkPolicy default/web ingress[0]";
            assert!(told[0]["steps"].as_array().unwrap().iter().any(|step| step["at"] == allows), "{}", told[0]);
        }

        // Denied behind the Service, by the policy of the pod.
        let child = world.watch(&["default/near", &denied.to_string(), "-n", "1"]);
        let tried = netns::inside(&near.netns, || Ok(TcpStream::connect_timeout(&denied, SHORT)?));
        assert!(tried.is_err());
        let (told, code) = world.told(child);
        assert_eq!((told.len(), code), (1, Some(2)), "{told:?}");
        let why = "ingress of default/web (NetworkPolicy default/web): no rule allows it";
        assert_eq!((&told[0]["droppedBy"], &told[0]["differs"]), (&why.into(), &false.into()), "{}", told[0]);
    }

    // Pings are another protocol in each family.
    let child = world.watch(&["default/near", "default/far:icmp", "-n", "4"]);
    for to in world.pod("far").addresses {
        let to = to.to_string();
        world.lab.exec("default/near", &["ping", "-c", "1", "-W", "5", &to]).unwrap();
    }
    let (told, code) = world.told(child);
    let (near, far) = (near.addresses, world.pod("far").addresses);
    let both = |family: usize, protocol: &str| {
        let ends = [format!("default/near ({})", near[family]), format!("default/far ({})", far[family])];
        [format!("{} -> {} {protocol}", ends[0], ends[1]), format!("{} -> {} {protocol}", ends[1], ends[0])]
    };
    let wanted = [both(0, "ICMP"), both(1, "ICMPv6")].concat().into_iter().collect();
    assert_eq!((says(&told, "packet"), code), (wanted, Some(0)), "{told:?}");
}

#[test]
#[ignore = "needs root: make test"]
fn a_trace_ends_after_its_time_and_leaves_nothing_when_it_is_killed() {
    let world = World::up();
    let child = world.watch(&["default/near", "default/web:8001/udp", "--for", "1s"]);
    let (told, code) = world.told(child);
    assert_eq!((told.len(), code), (0, Some(2)), "that nothing came is no good news");

    // Stopped, it cannot end by its clock: the kernel marks no packet any more all the same.
    let mut child = world.watch(&["default/near", "default/web:8001/udp", "--for", "2s"]);
    let pid = traced_process();
    signal(pid, nix::sys::signal::Signal::SIGSTOP);
    let armed = || world.lab.exec("n1", &["nft", "list", "ruleset"]).unwrap().contains("expires");
    within(SOON, "the mark has expired", || !armed()).unwrap();
    assert_eq!(world.tables(), 1, "its table is still there");
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
    within(SOON, "its table is gone", || world.tables() == 0).unwrap();
}

/// The one process that traces here.
fn traced_process() -> i32 {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|one| one.ok()?.file_name().to_str()?.parse().ok());
    let traces = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.get(1) == Some(&b"trace".as_slice()) && words.contains(&b"2s".as_slice())
    };
    let mut found: Vec<i32> = processes.filter(traces).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}
