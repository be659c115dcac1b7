//! Bad input: one clear sentence, an exit code, and nothing else disturbed.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{one_rack, pod};
use twill_e2e::{Lab, failed, twill, within};
use twill_lab::io::netns;

/// A file that must be refused; says how, and that nothing is left.
fn refused(name: &str, lab: &str, files: &[(&str, &str)]) -> String {
    let before = netns::names("");
    let error = Lab::up(name, lab, files).err().unwrap().to_string();
    let left = netns::names("").into_iter().filter(|n| n.contains(&format!("twill_{name}-"))).collect::<Vec<_>>();
    assert!(left.is_empty(), "left: {left:?}, before: {before:?}");
    error
}

#[test]
#[ignore = "needs root: make test"]
fn lab_files_and_pools_that_cannot_be_are_refused_and_leave_nothing() {
    let error = refused("key", &one_rack("  topologie: Mesh\n"), &[]);
    assert!(error.contains("lab.yaml:6: spec.topologie: is no field here"), "{error}");
    let error = refused("twice", &one_rack("").replace("[n1, n2]", "[n1, n1]"), &[]);
    assert!(error.contains("two nodes are named n1"), "{error}");
    let pool = |name: &str, cidr: &str, protocol: &str| {
        format!(
            "---\napiVersion: twill.network/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}, encapsulation: {{protocol: {protocol}}}}}\n"
        )
    };
    let with = |pools: &str| refused("pools", &one_rack("  resources: [pools.yaml]\n"), &[("pools.yaml", pools)]);
    let error = with(&[pool("a", "10.42.0.0/16", "None"), pool("b", "10.42.128.0/17", "None")].concat());
    assert!(
        error.contains("IPPool b") && error.contains("10.42.128.0/17") && error.contains("10.42.0.0/16"),
        "{error}"
    );
    let error = with(&pool("a", "172.31.0.0/16", "None"));
    assert!(error.contains("overlaps 172.31.1.0/24 of rack r1"), "{error}");
    if !twill_lab::io::underlay::kernel_has_ipip() {
        let error = with(&pool("a", "10.42.0.0/16", "IPIP"));
        assert!(error.contains("this kernel has no IP-in-IP"), "{error}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn a_running_cluster_refuses_bad_changes_and_goes_on() {
    let pool = "---\napiVersion: twill.network/v1\nkind: IPPool\nmetadata: {name: small}\nspec: {cidr: 10.42.0.0/28, blockSize: 29}\n";
    let files = [("pods.yaml", [pod("a", "n1"), pod("b", "n2")].concat()), ("pool.yaml", pool.to_owned())];
    let files = files.each_ref().map(|(n, t)| (*n, t.as_str()));
    let lab = Lab::up("running", &one_rack("  resources: [pool.yaml, pods.yaml]\n"), &files).unwrap();

    let error = lab.apply(&pool.replace("small", "other")).unwrap_err().to_string();
    assert!(error.contains("IPPool other") && error.contains("overlap"), "{error}");

    // A block of eight addresses has seven for pods.
    let many = (0..8).map(|i| pod(&format!("more-{i}"), "n1")).collect::<String>();
    let error = lab.apply(&many).unwrap_err().to_string();
    assert!(error.contains("Pod default/more-") && error.contains("small"), "a full pool is named: {error}");

    let garbage = netns::inside(&lab.pod("default/a").map(|_| format!("twill_{}_n2", lab.name)).unwrap(), || {
        Ok(TcpStream::connect_timeout(&"172.31.1.11:179".parse()?, Duration::from_secs(2))?)
    });
    // The speaker may hang up before all of it is written.
    let _ = garbage.unwrap().write_all(&[0x41; 4096]);
    let sessions = || lab.ask("n1", &["peers"]).is_ok();
    within(Duration::from_secs(5), "all sessions of n1 are established", sessions).unwrap();
    assert_eq!(lab.probe(&["--from", "a,b", "--to", "a,b"]).unwrap().differences, 0);
}

#[test]
#[ignore = "needs root: make test"]
fn the_plugin_answers_bad_calls_with_an_error_object() {
    let lab = Lab::up("cni", &one_rack("  resources: [pods.yaml]\n"), &[("pods.yaml", &pod("a", "n1"))]).unwrap();
    let socket = format!("/run/twill-lab/{}/n1/felix.sock", lab.name);
    let good = format!(r#"{{"cniVersion": "1.0.0", "name": "twill", "type": "twill-cni", "socket": "{socket}"}}"#);
    let call = |input: &str, netns: &str| {
        let mut child = Command::new(twill().unwrap().with_file_name("twill-cni"))
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", "c0ffee")
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_UID=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        failed(output).unwrap();
        (error["code"].as_u64().unwrap(), error["msg"].as_str().unwrap().to_owned())
    };
    assert_eq!(call("{\"cniVersion\": ", "/run/netns/none").0, 6, "not JSON: the specification's code 6");
    let (code, message) = call(&good, "/run/netns/there-is-none");
    assert!(code != 0 && message.contains("/run/netns/there-is-none"), "{code} {message}");
    assert_eq!(lab.probe(&[]).unwrap().differences, 0);
}
