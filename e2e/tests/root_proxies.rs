//! A Service's backend behind policy, with the rules of kube-proxy in its modes iptables and nftables (IPVS: felix's `ipvs`, in a virtual machine).
//!
//! ```text
//!  n1: web, same    n2: other ── tor-r1 ── spine ── tor-r2 ── n3: far
//! ```
//! 1. Without policy all reach the Service: pods of this node, of the rack and beyond it, the pod itself, nodes, and machines outside by a NodePort.
//! 2. Policy sees who speaks and which pod is spoken to, whatever address was dialled: one pod of three gets in, and the pod's own node.
//! 3. A machine outside that is let in by its address gets in by the NodePort of the pod's node. By another node's it has that node's address,
//!    since kube-proxy has put it there.
//! 4. Egress: a Service is where its pods are.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;
use support::{only, pod, two_racks};
use twill_e2e::{Lab, succeeded, within};

const LIMIT: Duration = Duration::from_secs(20);
const SERVICE: &str = "10.96.0.10/80";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// The same NodePort of the pod's node and of another.
const NEAR: &str = "172.31.1.11/30080";
const FAR: &str = "172.31.2.11/30080";

fn nftables(pod: &str) -> String {
    format!(
        "table ip kube-proxy {{
            map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
            map service-nodeports {{ type inet_proto . inet_service : verdict; }}
            chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}
            chain endpoint-web {{
                ip saddr {pod} jump mark-for-masquerade
                meta l4proto tcp dnat to {pod}:80
            }}
            chain service-web {{
                ip daddr 10.96.0.10 tcp dport 80 ip saddr != 10.42.0.0/16 jump mark-for-masquerade
                numgen random mod 1 vmap {{ 0 : goto endpoint-web }}
            }}
            chain external-web {{
                jump mark-for-masquerade
                goto service-web
            }}
            chain services {{
                ip daddr . meta l4proto . th dport vmap @service-ips
                fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
            }}
            chain masquerading {{
                meta mark & 0x4000 == 0 return
                meta mark set meta mark ^ 0x4000
                masquerade fully-random
            }}
            chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
            chain nat-output {{ type nat hook output priority -100; jump services; }}
            chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
        }}
        add element ip kube-proxy service-ips {{ 10.96.0.10 . tcp . 80 : goto service-web }}
        add element ip kube-proxy service-nodeports {{ tcp . 30080 : goto external-web }}
        "
    )
}

fn iptables(pod: &str) -> String {
    format!(
        "*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-EXT-WEB - [0:0]
:KUBE-SEP-WEB - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-WEB
-A KUBE-EXT-WEB -j KUBE-MARK-MASQ
-A KUBE-EXT-WEB -j KUBE-SVC-WEB
-A KUBE-SVC-WEB ! -s 10.42.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-WEB -j KUBE-SEP-WEB
-A KUBE-SEP-WEB -s {pod}/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-WEB -p tcp -m tcp -j DNAT --to-destination {pod}:80
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"
    )
}

/// Gives a program on a node its standard input.
fn feed(lab: &Lab, node: &str, command: &[&str], input: &str) {
    let mut child = lab.exec_command(node, command).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    succeeded(child.wait_with_output().unwrap()).unwrap();
}

/// Whether somebody gets an answer from the pod at `ADDRESS/PORT`.
fn reaches(lab: &Lab, from: &str, to: &str) -> bool {
    let script = format!("exec 3<>/dev/tcp/{to} && cat <&3");
    let output = lab.exec_command(from, &["timeout", "2", "bash", "-c", &script]).output().unwrap();
    let heard = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(["", "default/web"].contains(&heard.as_str()), "{from} to {to}: {heard}");
    !heard.is_empty()
}

/// Who reaches what, of these.
fn reaching<'a>(lab: &Lab, all: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    all.iter().filter(|(from, to)| reaches(lab, from, to)).copied().collect()
}

fn becomes(lab: &Lab, all: &[(&str, &str)], wanted: &[(&str, &str)], why: &str) {
    let mut last = Vec::new();
    let done = within(LIMIT, why, || {
        last = reaching(lab, all).iter().map(|(from, to)| format!("{from} {to}")).collect();
        last == wanted.iter().map(|(from, to)| format!("{from} {to}")).collect::<Vec<_>>()
    });
    assert!(done.is_ok(), "{why}: {last:?}");
}

fn a_service_is_judged_as_its_pod(mode: &str, rules: impl Fn(&Lab, &str)) {
    let pods: String = [("web", "n1"), ("same", "n1"), ("other", "n2"), ("far", "n3")]
        .iter()
        .map(|(name, node)| pod(name, node))
        .collect();
    let file = two_racks("  resources: [pods.yaml]\n");
    let lab = Lab::up(mode, &file, &[("pods.yaml", &pods)]).unwrap();
    let web = lab.pod("default/web").unwrap().ips[0].clone();
    rules(&lab, &web);

    let [same, other, far] = ["default/same", "default/other", "default/far"].map(|pod| (pod, SERVICE));
    let (itself, own_node, other_node) = (("default/web", SERVICE), ("n1", SERVICE), ("n3", SERVICE));
    let (near, around) = (("tor-r1", NEAR), ("tor-r2", FAR));
    let all = [same, other, far, own_node, other_node, near, around];
    becomes(&lab, &all, &all, "without policy all reach it");
    assert_eq!(reaching(&lab, &[itself]), [itself]);

    lab.apply(&only("web", "web", "other")).unwrap();
    becomes(&lab, &all, &[other, own_node], "one pod, and the node that its pod is on");

    let outside = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: outside}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{ipBlock: {cidr: 172.31.1.1/32}}, {ipBlock: {cidr: 172.31.2.1/32}}]}]
";
    lab.apply(outside).unwrap();
    becomes(&lab, &all, &[other, own_node, near], "machines outside, where they still have their own address");

    let egress = |to: &str| {
        format!(
            "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: egress}}
spec:
  podSelector: {{matchLabels: {{app: other}}}}
  policyTypes: [Egress]
  egress: [{{to: [{{podSelector: {{matchLabels: {{app: {to}}}}}}}]}}]
"
        )
    };
    lab.apply(&egress("far")).unwrap();
    becomes(&lab, &[other, near], &[near], "the Service is not where it may go");
    lab.apply(&egress("web")).unwrap();
    becomes(&lab, &[other, near], &[other, near], "the Service's pod is");
}

#[test]
#[ignore = "needs root: make test"]
fn with_kube_proxy_in_mode_nftables() {
    a_service_is_judged_as_its_pod("nftables", |lab, web| {
        NODES.iter().for_each(|node| feed(lab, node, &["nft", "-f", "-"], &nftables(web)));
    });
}

#[test]
#[ignore = "needs root: make test"]
fn with_kube_proxy_in_mode_iptables() {
    a_service_is_judged_as_its_pod("iptables", |lab, web| {
        NODES.iter().for_each(|node| feed(lab, node, &["iptables-restore", "--noflush"], &iptables(web)));
    });
}
