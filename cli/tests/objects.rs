//! `twill apply`, `get`, `delete`, `explain` on a datastore of their own, by the executable.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const APP: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: []
---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.42.0.0/16, encapsulation: {protocol: VXLAN}}
";

fn twill(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twill"))
        .args(args)
        .env("TWILL_DATASTORE", format!("sqlite:{}/t.db", directory.display()))
        .current_dir(directory)
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn run(directory: &Path, args: &[&str]) -> (i32, String, String) {
    let output = twill(directory, args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn applied() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("app.yaml"), APP).unwrap();
    let (code, out, err) = run(directory.path(), &["apply", "-f", "app.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("namespace/shop created\n"), "namespaces come first: {out}");
    directory
}

#[test]
fn what_was_applied_is_there_and_applied_again_is_unchanged() {
    let directory = applied();
    let (code, out, _) = run(directory.path(), &["get", "pods", "-n", "shop"]);
    assert_eq!(code, 0);
    assert_eq!(out.lines().count(), 3, "{out}");
    let (_, out, _) = run(directory.path(), &["get", "pool", "pool", "-o", "json"]);
    let pool: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(pool["spec"]["cidr"], "10.42.0.0/16");
    let (code, out, _) = run(directory.path(), &["apply", "-f", "app.yaml"]);
    assert_eq!(code, 0);
    assert_eq!(out.lines().filter(|line| line.ends_with(" unchanged")).count(), 5, "{out}");
    std::fs::write(directory.path().join("more.yaml"), APP.replace("app: web", "app: front")).unwrap();
    let (_, out, _) = run(directory.path(), &["apply", "-f", "more.yaml"]);
    assert_eq!(out.lines().filter(|line| *line == "pod/shop/web configured").count(), 1, "{out}");
    let (code, out, _) = run(directory.path(), &["delete", "-f", "app.yaml"]);
    assert_eq!((code, out.lines().count()), (0, 5));
    let (code, _, err) = run(directory.path(), &["delete", "pod", "web", "-n", "shop"]);
    assert_eq!((code, err.contains("Pod shop/web does not exist")), (1, true), "{err}");
}

#[test]
fn a_manifest_with_one_fault_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("app.yaml"), APP.replace("encapsulation", "encapsulaton")).unwrap();
    let (code, out, err) = run(directory.path(), &["apply", "-f", "app.yaml"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err.trim_end(),
        "twill: app.yaml:26: IPPool pool: spec.encapsulaton: is no field of this kind; correct its name or leave it out"
    );
    let (code, _, err) = run(directory.path(), &["get", "ns"]);
    assert_eq!(
        (code, err.contains("does not exist; check the path")),
        (1, true),
        "not even the datastore was made: {err}"
    );
}

#[test]
fn explain_says_why_and_exits_2_when_it_is_denied() {
    let directory = applied();
    let address = |pod: &str, ip: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let url = format!("sqlite:{}/t.db", directory.path().display());
            let store = twill_datastore::Datastore::open(&url).await.unwrap();
            let key = twill_datastore::Key::namespaced("shop", pod);
            let mut object: twill_crds::Pod = store.get(&key).await.unwrap().unwrap();
            let status = serde_json::json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
            object.status = Some(serde_json::from_value(status).unwrap());
            store.update_status(&object).await.unwrap();
        });
    };
    address("web", "10.42.0.1");
    address("db", "10.42.0.2");
    let (code, out, err) = run(directory.path(), &["explain", "shop/web", "shop/db"]);
    assert_eq!(code, 2, "{out}{err}");
    assert!(out.contains("denied") && out.contains("shop/db"), "{out}");
    let (code, out, _) = run(directory.path(), &["explain", "shop/db", "10.42.0.1:80/tcp", "-o", "json"]);
    let explained: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &explained[0]["allowed"]), (0, &Value::Bool(true)));
}

#[test]
fn ipam_tells_pools_and_owners() {
    let directory = applied();
    let (code, out, _) = run(directory.path(), &["ipam", "show", "-o", "json"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["pools"][0]["total"]), (0, &Value::from(65536)));
    assert_eq!(run(directory.path(), &["ipam", "who", "10.42.0.9"]).0, 2);
    assert_eq!(run(directory.path(), &["ipam", "who", "nobody"]).0, 3);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let directory = applied();
    let mut child = Command::new(env!("CARGO_BIN_EXE_twill"))
        .args(["get", "pods", "-A"])
        .env("TWILL_DATASTORE", format!("sqlite:{}/t.db", directory.path().display()))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn an_uninstall_without_root_is_one_sentence() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    // Where another user can read it.
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("twill");
    std::fs::copy(env!("CARGO_BIN_EXE_twill"), &copy).unwrap();
    let mut command = Command::new(copy);
    command.arg("uninstall").current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"twill: twill uninstall needs root: it changes this node's network\n");
}

#[test]
fn usage_is_3_and_an_error_is_1_with_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    for usage in [
        &["frobnicate"][..],
        &["get"],
        &["delete"],
        &["get", "pods", "-o", "xml"],
        &["apply"],
        &["uninstall", "--force"],
        &["uninstall", "--cluster", "--timeout", "2"],
        &["explain", "shop/web", "shop/db:99999"],
        &["explain", "web_1", "shop/db"],
        &["get", "pods", "--log", "shout"],
        &["get", "pods", "--log", "shout=loud=x"],
        &["bgpd"],
    ] {
        let (code, _, err) = run(directory.path(), usage);
        assert_eq!(code, 3, "{usage:?}: {err}");
    }
    for error in [
        &["get", "unicorns"][..],
        &["get", "pod", "none"],
        &["apply", "-f", "none.yaml"],
        &["get", "pods", "--datastore", "sqlite:/none/t.db"],
    ] {
        let (code, out, err) = run(directory.path(), error);
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{error:?}: {err}");
    }
    assert_eq!(run(directory.path(), &["--help"]).0, 0);
    for shell in ["bash", "zsh", "fish"] {
        let script = run(directory.path(), &["completion", shell]).1;
        assert!(script.contains("uninstall") && !script.contains("run-detached"), "{shell}");
    }
}

#[test]
fn the_definitions_of_our_kinds_in_every_form() {
    let directory = tempfile::tempdir().unwrap();
    let (code, yaml, err) = run(directory.path(), &["crds"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let of_yaml: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    let (_, json, _) = run(directory.path(), &["crds", "-o", "json"]);
    let list: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((list["kind"].as_str(), list["items"].as_array()), (Some("List"), Some(&of_yaml)));
    let (_, table, _) = run(directory.path(), &["crds", "-o", "table"]);
    assert_eq!(table.lines().count(), of_yaml.len() + 1, "{table}");
    assert!(table.contains("ippools") && table.contains("twill.network/v1"), "{table}");
}

#[test]
fn what_a_gone_node_left_is_found_and_freed_after_the_whole_quarantine() {
    let directory = applied();
    let block = "
apiVersion: twill.network/v1
kind: IPBlock
metadata: {name: 10-42-0-0-26}
spec: {cidr: 10.42.0.0/26, node: n9}
";
    std::fs::write(directory.path().join("block.yaml"), block).unwrap();
    assert_eq!(run(directory.path(), &["ipam", "check"]).0, 0);
    assert_eq!(run(directory.path(), &["apply", "-f", "block.yaml"]).0, 0);
    let (code, out, _) = run(directory.path(), &["ipam", "check"]);
    assert!(code == 2 && out.contains("IPBlock 10.42.0.0/26") && out.contains("there is no such Node"), "{code} {out}");
    let began = std::time::Instant::now();
    let (code, out, err) = run(directory.path(), &["ipam", "check", "--repair", "--quarantine", "2s", "-o", "json"]);
    let said: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {err}"));
    assert_eq!((code, &said["findings"]), (0, &serde_json::json!([])), "{said}");
    assert_eq!(said["repaired"], serde_json::json!(["IPBlock 10.42.0.0/26 of node n9 freed"]));
    assert!(began.elapsed() >= std::time::Duration::from_secs(2));
    assert_eq!(run(directory.path(), &["ipam", "check", "--quarantine", "2s"]).0, 3, "--quarantine without --repair");
    assert_eq!(run(directory.path(), &["ipam", "defrag"]).0, 3, "--plan is all there is");
}
