//! `twill controller` on a real API server, as its own account, with the rights that deploy/ gives it.
//!
//! 1. Of two one leads. What a deleted node left is freed after the quarantine, unless a pod names it or it comes back; the pool says so.
//! 2. The leader is killed: the other takes over. The API server is gone for longer than the Lease: nobody leads, then one does.
//! 3. It chooses who reflects, waits for what nodes say before it takes sessions away, and replaces one that is cordoned. In a cluster of more
//!    than 110 nodes that take part it makes a BGPConfiguration where there is none.
//! 4. The controller lacks no right that it asks for, and watches no pods.
#![allow(clippy::unwrap_used)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use twill_control_plane::ApiServer;
use twill_crds::control::{ControllerRequest, ControllerStatus};
use twill_crds::names::CONTROLLER_SOCKET;
use twill_e2e::{repository, succeeded, within};

const NAMESPACE: &str = "twill-system";
const ACCOUNT: &str = "system:serviceaccount:twill-system:twill-controller";
/// Much more than anything takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    server: ApiServer,
    /// Of the controller's account.
    kubeconfig: PathBuf,
    /// What the server is to write down, and beside it what it has.
    policy: PathBuf,
}

impl Cluster {
    /// The manifest is applied, and requests are written down.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let policy = std::env::temp_dir().join(format!("twill-audit-{}-{number}.yaml", std::process::id()));
        fs::write(
            &policy,
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n",
        )
        .unwrap();
        let log = policy.with_extension("log");
        let _ = fs::remove_file(&log);
        let arguments =
            [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
        let server = ApiServer::start_with(&[&arguments[0], &arguments[1]]).unwrap();
        server.apply(&fs::read_to_string(repository().join("deploy/twill.yaml")).unwrap()).unwrap();
        let crds = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        succeeded(server.kubectl(&crds).unwrap()).unwrap();
        let create = ["--namespace", NAMESPACE, "create", "token", "twill-controller"];
        let token = succeeded(server.kubectl(&create).unwrap()).unwrap().trim().to_owned();
        let mut config: Value = serde_json::from_str(&fs::read_to_string(server.kubeconfig()).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"token": token});
        let kubeconfig = server.directory().join("controller.kubeconfig");
        fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { server, kubeconfig, policy }
    }

    fn get(&self, what: &[&str]) -> Value {
        let output = self.server.kubectl(&[&["get", "-o", "json"], what].concat()).unwrap();
        serde_json::from_str(&succeeded(output).unwrap()).unwrap()
    }

    fn delete(&self, what: &[&str]) {
        let delete = ["delete", "--wait=false", "--force", "--grace-period=0"];
        succeeded(self.server.kubectl(&[&delete[..], what].concat()).unwrap()).unwrap();
    }

    fn owners(&self) -> Vec<String> {
        let blocks = self.get(&["ipblocks"]);
        blocks["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["spec"]["node"].as_str().unwrap().to_owned())
            .collect()
    }

    fn networks(&self) -> Vec<String> {
        let networks = self.get(&["nodenetworks"]);
        let name = |network: &Value| network["metadata"]["name"].as_str().unwrap().to_owned();
        networks["items"].as_array().unwrap().iter().map(name).collect()
    }

    fn claimed(&self) -> Value {
        self.get(&["ippool", "pods"])["status"]["blocks"]["claimed"].clone()
    }

    /// Reasons of the events about a node.
    fn told(&self, node: &str) -> BTreeSet<String> {
        let events = self.get(&["events.v1.events.k8s.io", "--all-namespaces"]);
        let about = events["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == node);
        about.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
    }

    fn controller(&self, name: &str) -> Controller {
        let run_dir = self.server.directory().join(name);
        let child = Command::new(twill_e2e::twill().unwrap())
            .args(["controller", "--lease=4", "--quarantine=8s", "--run-dir"])
            .arg(&run_dir)
            .arg(format!("--datastore=kubernetes:{}", self.kubeconfig.display()))
            .env("POD_NAMESPACE", NAMESPACE)
            .spawn()
            .unwrap();
        Controller { child, run_dir }
    }

    /// What the server wrote down of the controller's requests: verb, resource, status.
    fn audited(&self) -> Vec<(String, String, u64)> {
        let text = fs::read_to_string(self.policy.with_extension("log")).unwrap();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ours = all.filter(|event| event["user"]["username"] == ACCOUNT);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        ours.map(|e| {
            (text(&e["verb"]), text(&e["objectRef"]["resource"]), e["responseStatus"]["code"].as_u64().unwrap_or(0))
        })
        .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for extension in ["yaml", "log"] {
            let _ = fs::remove_file(self.policy.with_extension(extension));
        }
    }
}

struct Controller {
    child: Child,
    run_dir: PathBuf,
}

impl Controller {
    fn status(&self) -> Option<ControllerStatus> {
        status(&self.run_dir.join(CONTROLLER_SOCKET))
    }

    fn leads(&self) -> bool {
        self.status().is_some_and(|status| status.leading && status.in_sync)
    }

    fn is_ready(&self) -> bool {
        let ready = Command::new(twill_e2e::twill().unwrap())
            .args(["ready", "controller", "--run-dir"])
            .arg(&self.run_dir)
            .output();
        ready.unwrap().status.success()
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(socket: &Path) -> Option<ControllerStatus> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{}", serde_json::to_string(&ControllerRequest::Status).unwrap()).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds).unwrap();
}

const POOL: &str = "apiVersion: twill.network/v1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.42.0.0/24, blockSize: 28}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec: {nodeName: pod, containers: [{name: c, image: i}]}
";

fn node(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n")
}

/// A node that takes part.
fn member(name: &str) -> String {
    node(name)
        + &format!("---\napiVersion: twill.network/v1\nkind: NodeNetwork\nmetadata: {{name: {name}}}\nspec: {{}}\n")
}

/// A node with what its daemons made.
fn populated(n: usize, name: &str) -> String {
    let at = n * 16;
    member(name)
        + &format!(
            "---\napiVersion: twill.network/v1\nkind: IPBlock\nmetadata: {{name: 10-42-0-{at}-28}}\n\
             spec: {{cidr: 10.42.0.{at}/28, node: {name}, claimant: {name}}}\n"
        )
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn what_deleted_nodes_left_is_freed_by_whoever_leads() {
    let mut cluster = Cluster::new();
    let nodes: String =
        ["gone", "pod", "back", "stays", "later"].iter().enumerate().map(|(n, name)| populated(n, name)).collect();
    cluster.server.apply(&(POOL.to_owned() + &nodes)).unwrap();

    let mut first = cluster.controller("a");
    until("the only one leads", || first.leads());
    let mut second = cluster.controller("b");
    let leader = first.status().unwrap().identity;
    until("the second waits", || second.status().is_some_and(|status| status.leader.as_ref() == Some(&leader)));
    assert!(first.is_ready() && second.is_ready());
    until("the pool says what is claimed", || cluster.claimed() == 5);
    let pool = cluster.get(&["ippool", "pods"]);
    let ready = pool["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
    assert_eq!((&ready["status"], &ready["observedGeneration"]), (&json!("True"), &json!(1)));

    cluster.delete(&["node", "gone", "pod", "back"]);
    // On a starved machine the Lease may run out by itself: whoever leads then.
    let sees = |one: &Controller, gone: u32| one.status().is_some_and(|status| status.leading && status.gone == gone);
    until("all three are seen to be gone", || [&first, &second].iter().any(|one| sees(one, 3)));
    cluster.server.apply(&node("back")).unwrap();
    until("the block of the gone node is freed", || cluster.owners().len() == 4);
    until("and its NodeNetwork", || !cluster.networks().contains(&"gone".to_owned()));
    until("people are told", || cluster.told("gone").contains("BlocksFreed"));
    until("the pod is named", || cluster.told("pod").contains("PodsRemain"));

    // The next is freed by the other one, a whole quarantine later.
    cluster.delete(&["node", "later"]);
    until("it is seen to be gone", || [&first, &second].iter().any(|one| sees(one, 2)));
    if second.leads() {
        std::mem::swap(&mut first, &mut second);
    }
    first.end(Signal::SIGKILL);
    until("the other leads when the Lease has run out", || second.leads());
    until("it frees the block", || !cluster.owners().contains(&"later".to_owned()));
    assert_eq!(cluster.owners(), ["pod", "back", "stays"]);

    cluster.server.kill();
    until("nobody leads without the server", || {
        second.status().is_some_and(|status| !status.leading) && !second.is_ready()
    });
    cluster.server.start_again().unwrap();
    until("the second leads again", || second.leads());
    cluster.delete(&["pod", "web", "--namespace=default"]);
    until("without its pod the node's block is freed, too", || cluster.owners() == ["back", "stays"]);
    until("the pool says so", || cluster.claimed() == 2);

    assert_eq!(second.end(Signal::SIGTERM), Some(0));
    let leases = cluster.get(&["leases", "--namespace", NAMESPACE]);
    assert_eq!(leases["items"], json!([]), "it lets go");
    let audited = cluster.audited();
    // A server that has just started refuses what it has not read the roles for; what is never allowed is a right that is missing. Old
    // events are the server's own to remove: the one thing that is tried in vain.
    let all = |allowed: bool| -> BTreeSet<(&str, &str)> {
        audited
            .iter()
            .filter(|(.., status)| (*status != 403) == allowed)
            .map(|(v, w, _)| (v.as_str(), w.as_str()))
            .collect()
    };
    let refused: Vec<_> = all(false).difference(&all(true)).copied().collect();
    assert!(refused.iter().all(|one| *one == ("list", "events")), "{refused:?}");
    let of = |verb: &str, what: &str| audited.iter().filter(|(v, w, _)| v == verb && w == what).count();
    assert_eq!((of("watch", "pods"), of("create", "pods")), (0, 0));
    assert!(of("list", "pods") > 3 && of("delete", "ipblocks") == 3, "{audited:?}");
    println!(
        "{} requests; {} of pods, {} of the Lease",
        audited.len(),
        of("list", "pods"),
        audited.iter().filter(|a| a.1 == "leases").count()
    );
}

/// What bgpd of a node reports; it has all its routes with this decision.
fn reports(cluster: &Cluster, n: usize, step: Option<u64>) {
    let status = json!({"status": {"bgp": {"addresses": [format!("172.31.0.{}", n + 1)], "asn": 64512, "step": step}, "felix": {}}});
    let patch = [
        "patch",
        "nodenetwork",
        &format!("r{n}"),
        "--subresource=status",
        "--type=merge",
        "--patch",
        &status.to_string(),
    ]
    .map(str::to_owned);
    let patch: Vec<&str> = patch.iter().map(String::as_str).collect();
    succeeded(cluster.server.kubectl(&patch).unwrap()).unwrap();
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn reflectors_are_chosen_and_nothing_goes_before_nodes_say_that_it_may() {
    let cluster = Cluster::new();
    let controller = cluster.controller("a");
    until("it leads", || controller.leads());
    let many: String = (0..111).map(|n| member(&format!("large-{n:03}"))).collect();
    cluster.server.apply(&many).unwrap();
    let sessions = || cluster.get(&["bgpconfigurations"])["items"][0]["status"]["sessions"].clone();
    until("a large cluster has a configuration, and nobody can reflect", || sessions()["topology"] == "Mesh");
    cluster.delete(&["nodes,nodenetworks", "--all"]);
    let nodes: String = (0..5).map(|n| member(&format!("r{n}"))).collect();
    cluster.server.apply(&nodes).unwrap();
    (0..5).for_each(|n| reports(&cluster, n, Some(1)));
    let reflect = [
        "patch",
        "bgpconfiguration",
        "default",
        "--type=merge",
        "--patch",
        r#"{"spec": {"topology": "RouteReflector"}}"#,
    ];
    succeeded(cluster.server.kubectl(&reflect).unwrap()).unwrap();
    until("three are chosen, and the mesh is kept", || {
        let now = sessions();
        now["routeReflectors"] == json!(["r0", "r1", "r2"]) && now["retiring"]["mesh"] == true
    });
    let converged = || {
        let conditions = cluster.get(&["bgpconfigurations"])["items"][0]["status"]["conditions"].clone();
        let found = conditions.as_array().unwrap().iter().find(|one| one["type"] == "Converged").unwrap().clone();
        (found["reason"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
    };
    let step = sessions()["step"].as_u64();
    (0..4).for_each(|n| reports(&cluster, n, step));
    until("one is waited for, by name", || converged().1.contains("since r4 still needs them"));
    assert_eq!(sessions()["retiring"]["mesh"], true);
    reports(&cluster, 4, step);
    until("the mesh goes", || sessions()["retiring"].is_null());
    succeeded(cluster.server.kubectl(&["cordon", "r1"]).unwrap()).unwrap();
    until("another one takes its place, and it still reflects", || {
        let now = sessions();
        now["routeReflectors"] == json!(["r0", "r2", "r3"]) && now["retiring"]["routeReflectors"] == json!(["r1"])
    });
    let step = sessions()["step"].as_u64();
    (0..5).for_each(|n| reports(&cluster, n, step));
    until("it is relieved", || sessions()["retiring"].is_null() && converged().0 == "RouteReflector");
    let audited = cluster.audited();
    let refused = audited.iter().filter(|(_, what, status)| what == "bgpconfigurations" && *status == 403).count();
    let made = audited
        .iter()
        .filter(|(verb, what, status)| verb == "create" && what == "bgpconfigurations" && *status == 201)
        .count();
    assert_eq!((refused, made), (0, 1));
}
