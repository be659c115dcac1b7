//! The lab itself, by its contract.
//!
//! 1. Commands: exit codes of `exec`, scaling, deleting, a namespace with all that is in it, daemons killed meanwhile.
//! 2. Nothing is left: after `down`, after `down` again, after `up` was interrupted or killed.
//! 3. Dual stack, a fabric, hostNetwork pods and pods that have ended, in one matrix.
//! 4. A hostNetwork pod that is expected beyond a tunnel by its node's address there.
//! 5. What does not work after `up` or a change is said, with exit code 2.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;
use support::families::{DUAL, racks};
use support::{hold_against_oracle, one_rack, only, pod, two_racks};
use twill_e2e::{Lab, failed, repository, within};
use twill_lab::io::{netns, process};
use twill_lab::names::netns_prefix;

fn deployment(replicas: usize, port: u16) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: c, ports: [{{containerPort: {port}}}]}}]}}
"
    )
}

fn names(lab: &Lab) -> Vec<String> {
    lab.status().unwrap().pods.iter().map(|p| format!("{}/{} on {}", p.namespace, p.name, p.node)).collect()
}

#[test]
#[ignore = "needs root: make test"]
fn deployments_scale_change_and_go_with_their_namespace() {
    let lab = Lab::up("scale", &one_rack("  resources: [web.yaml]\n"), &[("web.yaml", &deployment(3, 80))]).unwrap();
    assert_eq!(names(&lab), ["shop/web-0 on n1", "shop/web-1 on n2", "shop/web-2 on n1"]);
    let before = lab.pod("shop/web-0").unwrap();

    lab.apply(&deployment(2, 80)).unwrap();
    assert_eq!(names(&lab), ["shop/web-0 on n1", "shop/web-1 on n2"]);
    assert_eq!(lab.pod("shop/web-0").unwrap().ips, before.ips, "who stays is left alone");
    assert!(!netns::names(&netns_prefix(&lab.name)).iter().any(|n| n.ends_with("web-2")));

    lab.apply(&deployment(2, 81)).unwrap();
    let probe = lab.probe(&[]).unwrap();
    assert!(probe.cells.iter().all(|c| c.port == 81 && c.observed == "reached"), "{probe:?}");

    lab.delete("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").unwrap();
    assert_eq!(names(&lab), Vec::<String>::new());
    assert_eq!(netns::names(&netns_prefix(&lab.name)).len(), 3, "two nodes and a router are left");
}

#[test]
#[ignore = "needs root: make test"]
fn commands_run_where_they_are_sent_and_their_exit_code_comes_back() {
    let host = pod("agent", "n2").replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let pods = [pod("a", "n1"), host].concat();
    let lab = Lab::up("exec", &one_rack("  resources: [pods.yaml]\n"), &[("pods.yaml", &pods)]).unwrap();
    assert_eq!(lab.exec_command("n1", &["sh", "-c", "exit 7"]).status().unwrap().code(), Some(7));
    let address = &lab.pod("default/a").unwrap().ips[0];
    assert!(lab.exec("default/a", &["ip", "-4", "address"]).unwrap().contains(address));
    assert!(lab.exec("default/a", &["ls", "/sys/class/net"]).unwrap().contains("eth0"));
    assert!(lab.exec("default/agent", &["ip", "-4", "address"]).unwrap().contains("172.31.1.12"));
    assert!(lab.exec("router", &["ip", "-4", "address"]).unwrap().contains("172.31.1.1/24"));
    let error = failed(lab.exec_command("default/none", &["true"]).output().unwrap()).unwrap();
    assert!(error.contains("has no pod default/none"), "{error}");
    let error = failed(lab.lab(["kill", "n9", "felix"]).output().unwrap()).unwrap();
    assert!(error.contains("no node n9; it has n1, n2"), "{error}");
}

#[test]
#[ignore = "needs root: make test"]
fn what_a_dead_daemon_misses_is_said_and_made_up_for() {
    let pods = [pod("a", "n1"), pod("b", "n2")].concat();
    let lab = Lab::up("dead", &one_rack("  resources: [pods.yaml]\n"), &[("pods.yaml", &pods)]).unwrap();
    for daemon in ["bgpd", "felix"] {
        assert!(lab.lab(["kill", "n1", daemon]).status().unwrap().success());
        let error = failed(lab.lab(["kill", "n1", daemon]).output().unwrap()).unwrap();
        assert!(error.contains(&format!("twill lab start n1 {daemon}")), "{error}");
    }
    // A pod for a node without felix is refused, and tried again when it is asked for again.
    let error = lab.apply(&pod("c", "n1")).unwrap_err().to_string();
    assert!(error.contains("Pod default/c on n1"), "{error}");
    lab.apply(&only("closed", "a", "nobody")).unwrap();
    for daemon in ["bgpd", "felix"] {
        assert!(lab.lab(["start", "n1", daemon]).status().unwrap().success());
        let error = failed(lab.lab(["start", "n1", daemon]).output().unwrap()).unwrap();
        assert!(error.contains("runs already"), "{error}");
    }
    lab.apply(&pod("c", "n1")).unwrap();
    assert_eq!(lab.pod("default/c").unwrap().phase, "Running");
    let probe = lab.probe(&[]).unwrap();
    hold_against_oracle(&lab, &probe);
    assert!(probe.cells.iter().any(|c| c.to == "default/a" && c.observed == "denied"));
}

#[test]
#[ignore = "needs root: make test"]
fn nothing_is_left_after_up_was_interrupted_or_killed() {
    let file = repository().join("demo/lab.yaml").display().to_string();
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGKILL] {
        let lab = Lab::new("cut").unwrap();
        let spaces = || netns::names(&netns_prefix(&lab.name));
        let mut up = lab.lab(["up", &file]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        within(Duration::from_secs(10), "a node has processes", || !process::inside(&spaces()).is_empty()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(up.id().try_into().unwrap()), signal).unwrap();
        assert!(!up.wait().unwrap().success());
        if signal == nix::sys::signal::Signal::SIGKILL {
            assert!(!spaces().is_empty(), "it was killed half way");
            for _ in 0..2 {
                assert!(lab.lab(["down"]).status().unwrap().success());
            }
        }
        assert_eq!(spaces(), Vec::<String>::new());
        assert!(!std::path::Path::new("/run/twill-lab").join(&lab.name).exists());
    }
}

#[test]
#[ignore = "needs root: make test"]
fn both_families_a_fabric_the_nodes_network_and_ended_pods_in_one_matrix() {
    let pools = "
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: v4}
spec: {cidr: 10.42.0.0/16, natOutgoing: true}
---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: v6}
spec: {cidr: 'fd42::/48'}
";
    let host = pod("agent", "n3").replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let ended = format!("{}status: {{phase: Failed}}\n", pod("ended", "n1"));
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3"), host, ended, only("closed", "c", "a")].concat();
    let lab = racks(DUAL, "  topology: Fabric\n  resources: [pools.yaml, pods.yaml]\n");
    let lab = Lab::up("families", &lab, &[("pools.yaml", pools), ("pods.yaml", &pods)]).unwrap();
    let ended = lab.pod("default/ended").unwrap();
    assert_eq!((ended.phase.as_str(), ended.ips.len()), ("Failed", 2), "it had its addresses");
    assert!(!netns::names(&netns_prefix(&lab.name)).contains(&ended.netns), "and its sandbox is gone");
    let probe = lab.probe(&[]).unwrap();
    hold_against_oracle(&lab, &probe);
    assert_eq!(probe.cells.len(), 4 * 4 * 2 * 2, "four pods, two ports, two families; who has ended is not asked");
    let denied = probe.cells.iter().filter(|c| c.observed == "denied").map(|c| (c.from.as_str(), c.to.as_str()));
    let denied = denied.collect::<std::collections::BTreeSet<_>>();
    assert_eq!(denied, [("default/b", "default/c")].into(), "the agent is on the node of c, which always reaches it");
}

/// Plainly its node sends from the address that the policy names, through a tunnel from another.
#[test]
#[ignore = "needs root: make test"]
fn the_nodes_network_is_expected_as_it_is_seen_on_this_side_of_a_tunnel_and_beyond() {
    let policy = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: node, namespace: default}
spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.31.1.11/32}}]}]}
";
    let pool = "
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.42.0.0/16, encapsulation: {protocol: VXLAN, when: CrossSubnet}}
";
    let agent = pod("agent", "n1").replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let pods = [pod("a", "n1"), pod("b", "n2"), pod("c", "n3"), agent].concat();
    let files = [("pool.yaml", pool), ("pods.yaml", &pods), ("policy.yaml", policy)];
    let lab = Lab::up("beyond", &two_racks("  resources: [pool.yaml, pods.yaml, policy.yaml]\n"), &files).unwrap();
    let probe = lab.probe(&["--from", "default/agent"]).unwrap();
    let seen = |to: &str| {
        let of = probe.cells.iter().filter(|cell| cell.to == to);
        of.map(|cell| cell.observed.as_str()).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(probe.differences, 0, "{probe:?}");
    assert_eq!(
        [seen("default/a"), seen("default/b"), seen("default/c")],
        [["reached"], ["reached"], ["denied"]].map(Into::into)
    );
}

/// Racks behind routers that know nothing of pods need a tunnel between them.
#[test]
#[ignore = "needs root: make test"]
fn what_does_not_work_is_said_and_exits_with_2() {
    let pool = |encapsulation: &str| {
        format!(
            "apiVersion: twill.network/v1\nkind: IPPool\nmetadata: {{name: test}}\nspec: {{cidr: 10.42.0.0/16, encapsulation: {encapsulation}}}\n"
        )
    };
    let (plain, tunnel) = (pool("{protocol: None}"), pool("{protocol: VXLAN}"));
    let pods = [pod("a", "n1"), pod("c", "n3")].concat();
    let file = two_racks("  resources: [pool.yaml, pods.yaml]\n");
    let lab = Lab::new("degraded").unwrap();
    let directory = std::env::temp_dir().join(format!("twill-e2e-{}-files", lab.name));
    std::fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    write("pods.yaml", &pods);
    let (lab_file, pool_file) = (write("lab.yaml", &file), write("pool.yaml", &plain));
    let run = |lab: &Lab, args: &[&str]| {
        let output = lab.lab(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let began = std::time::Instant::now();
    let (code, out, err) = run(&lab, &["up", &lab_file]);
    assert_eq!(code, Some(2), "{err}");
    assert!(began.elapsed() < Duration::from_secs(10), "every node has the same patience, at the same time");
    assert!(out.contains("up in ") && err.contains("bgpd of n1: ") && err.contains("node n3"), "{err}");
    assert!(
        err.contains(&format!("stays up to be looked at; take it away with: twill lab down --name {}", lab.name)),
        "{err}"
    );

    std::fs::write(&pool_file, &tunnel).unwrap();
    assert_eq!(run(&lab, &["apply", "-f", &pool_file]), (Some(0), "1 object applied\n".to_owned(), String::new()));
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    std::fs::write(&pool_file, &plain).unwrap();
    let (code, out, err) = run(&lab, &["apply", "-f", &pool_file]);
    assert_eq!((code, out.as_str()), (Some(2), "1 object applied\n"), "{err}");
    assert!(err.contains("bgpd of n3: ") && err.contains("IPPool test"), "{err}");
    let listed = run(&lab, &["status"]).1;
    assert!(listed.contains("bgpd of n3: "), "{listed}");

    // A directory gives all its manifests; what it has beside them is none.
    std::fs::write(&pool_file, &tunnel).unwrap();
    std::fs::remove_file(&lab_file).unwrap();
    let all = directory.display().to_string();
    assert_eq!(run(&lab, &["apply", "-f", &all]), (Some(0), "3 objects applied\n".to_owned(), String::new()));
    hold_against_oracle(&lab, &lab.probe(&[]).unwrap());
    assert_eq!(
        run(&lab, &["kill", "n1", "felix"]).1,
        "felix of n1 is killed; start it again with: twill lab start n1 felix\n"
    );
    assert_eq!(run(&lab, &["start", "n1", "felix"]).1, "felix of n1 runs and is in sync\n");
    assert_eq!(run(&lab, &["down"]).1, format!("lab {} is gone\n", lab.name));
    assert_eq!(run(&lab, &["down"]), (Some(0), String::new(), String::new()));
    std::fs::remove_dir_all(&directory).unwrap();
}
