//! The RBAC that deploy/twill.yaml ships is the least that the code does with: every component runs under its own roles alone, while the API
//! server writes down who asks for what.
//!
//! ```text
//!  n1, n2 ── tor-r1     bgpd and felix of each as users of their own, the controller beside them
//! ```
//! 1. Nothing that a component asks for is forbidden, and all that it is there for comes about.
//! 2. Of a daemon whose reads are refused, and whose writes are not, no block is claimed for a pod that it cannot attach, but one ahead of need.
//! 3. Every verb on every resource that a role grants is used. [`UNUSED`] names what this test cannot bring about, and why it is granted.
#![allow(clippy::unwrap_used)]

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use support::{only, pod};
use twill_control_plane::ApiServer;
use twill_e2e::{Lab, repository, succeeded, twill, within};
use twill_lab::io::labs;
use twill_lab::state::{Daemon, State};

const NAMESPACE: &str = "twill-system";
/// Much more than anything takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// The users, and what each is bound to: a kind of role, and its name.
const COMPONENTS: [(&str, &[&str]); 3] = [
    ("bgpd", &["clusterrole/twill-bgpd", "role/twill-bgpd"]),
    ("felix", &["clusterrole/twill-felix"]),
    ("controller", &["clusterrole/twill-controller", "role/twill-controller"]),
];

/// What is granted and not used here: user, verb, resource, and why it is granted all the same. Whoever adds a line says who uses it.
const UNUSED: [(&str, &str, &str, &str); 0] = [];

const LAB: &str = "apiVersion: twill.network/v1
kind: Lab
metadata: {name: test}
spec:
  datastore: kubernetes
  racks: [{name: r1, subnet: 172.31.1.0/24, nodes: [n1, n2], tor: {asn: 65101}}]
  topology: Fabric
  resources: [pods.yaml]
";

/// Three addresses a block beside the one of the node itself, so that a few pods need another.
const POOL: &str = "---
apiVersion: twill.network/v1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.42.0.0/24, blockSize: 30}
";

/// About namespaces that there are not.
const POLICIES: &str = "---
apiVersion: twill.network/v1
kind: BGPFilter
metadata: {name: far}
spec: {import: [{action: Reject}]}
---
apiVersion: twill.network/v1
kind: NamespaceIsolation
metadata: {name: tenants}
spec: {namespaceSelector: {matchLabels: {tenant: 'yes'}}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {tenant: 'yes'}}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
";

/// Kept for one of the pods of [`daily_life`], whose felix says that it has it.
const KEPT: &str = "---
apiVersion: twill.network/v1
kind: IPReservation
metadata: {name: kept}
spec: {addresses: [10.42.0.250], pod: {namespace: default, name: more3}}
";

/// What a component may do: a verb on a resource (`GROUP/RESOURCE`, `GROUP/RESOURCE/SUBRESOURCE`), of some names only if there are any.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    user: String,
    resource: String,
    verb: String,
    names: Vec<String>,
}

/// What a component asked for, as the server wrote it down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    user: String,
    resource: String,
    verb: String,
    name: String,
    code: u64,
}

impl Grant {
    fn covers(&self, request: &Request) -> bool {
        let named = self.names.is_empty() || self.names.contains(&request.name);
        (&self.user, &self.resource, &self.verb) == (&request.user, &request.resource, &request.verb) && named
    }
}

/// A lab in an API server that writes down what its components ask for. The lab ends before its server does.
struct Cluster {
    lab: Lab,
    controller: Option<Child>,
    users: BTreeMap<&'static str, PathBuf>,
    server: ApiServer,
    /// Of the audit.
    directory: tempfile::TempDir,
}

impl Cluster {
    fn up() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (policy, log) = (directory.path().join("policy.json"), directory.path().join("log"));
        let users = COMPONENTS.map(|(user, _)| user);
        let rules = json!([{"level": "Metadata", "users": users}, {"level": "None"}]);
        let audit = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules});
        fs::write(&policy, audit.to_string()).unwrap();
        let (policy, log) =
            (format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display()));
        let server = ApiServer::start_with(&[&policy, &log]).unwrap();
        server.apply(&fs::read_to_string(repository().join("deploy/twill.yaml")).unwrap()).unwrap();
        let optional = repository().join("e2e/tests/support/cluster_network_policies.yaml");
        server.apply(&fs::read_to_string(optional).unwrap()).unwrap();
        let crds = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        succeeded(server.kubectl(&crds).unwrap()).unwrap();
        let users = COMPONENTS.iter().map(|(user, roles)| (*user, bound(&server, user, roles))).collect();
        let lab = Lab::new("rights").unwrap();
        fs::write(directory.path().join("lab.yaml"), LAB).unwrap();
        let pods = [POOL, &pod("a", "n1"), &pod("b", "n2")].concat();
        fs::write(directory.path().join("pods.yaml"), pods).unwrap();
        let cluster = Self { lab, controller: None, users, server, directory };
        let file = cluster.directory.path().join("lab.yaml").display().to_string();
        let mut up = cluster.lab.lab(["up", &file]);
        succeeded(up.env("KUBECONFIG", cluster.server.kubeconfig()).output().unwrap()).unwrap();
        cluster
    }

    fn url(&self, user: &str) -> String {
        format!("kubernetes:{}", self.users[user].display())
    }

    /// Starts a daemon that was killed, with no other rights than its own.
    fn start(&self, node: &str, daemon: Daemon) {
        let told = |datastore: String| {
            let mut state = labs::load(&self.lab.name).unwrap();
            let before = std::mem::replace(&mut state.datastore, datastore);
            labs::save(&state).unwrap();
            before
        };
        let admins = told(self.url(&daemon.to_string()));
        let started = self.lab.lab(["start", node, &daemon.to_string()]).output();
        told(admins);
        succeeded(started.unwrap()).unwrap();
    }

    fn start_controller(&mut self) {
        let controller = Command::new(twill().unwrap())
            .args(["controller", "--lease=4", "--quarantine=5s", "--namespace", NAMESPACE, "--datastore"])
            .arg(self.url("controller"))
            .arg("--run-dir")
            .arg(self.directory.path())
            .spawn();
        self.controller = Some(controller.unwrap());
    }

    fn end_controller(&mut self) {
        let mut controller = self.controller.take().unwrap();
        kill(Pid::from_raw(i32::try_from(controller.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(controller.wait().unwrap().success());
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        succeeded(self.server.kubectl(arguments).unwrap()).unwrap()
    }

    fn get(&self, what: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[&["get", "-o", "json"], what].concat())).unwrap()
    }

    fn items(&self, what: &[&str]) -> Vec<Value> {
        self.get(what)["items"].as_array().unwrap().clone()
    }

    /// Names of the blocks of a node.
    fn blocks(&self, node: &str) -> BTreeSet<String> {
        let blocks = self.items(&["ipblocks"]);
        let own = blocks.iter().filter(|block| block["spec"]["node"] == node);
        own.map(|block| block["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    fn has_network(&self, node: &str) -> bool {
        self.items(&["nodenetworks"]).iter().any(|network| network["metadata"]["name"] == node)
    }

    /// How often something was told of an object, at most, in one event.
    fn told(&self, reason: &str, name: &str) -> u64 {
        let events = self.items(&["events.v1.events.k8s.io", "--all-namespaces"]);
        let mine = events.iter().filter(|event| event["reason"] == reason && event["regarding"]["name"] == name);
        mine.map(|event| event["series"]["count"].as_u64().unwrap_or(1)).max().unwrap_or(0)
    }

    fn signal(&self, node: &str, daemon: Daemon, signal: Signal) {
        let process = labs::load(&self.lab.name).unwrap().daemons[&State::key(node, daemon)];
        kill(Pid::from_raw(process.pid), signal).unwrap();
    }

    /// What the components asked for, the lab's own questions in their name excepted.
    fn requests(&self) -> Vec<Request> {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|event| !event["userAgent"].as_str().unwrap_or_default().starts_with("twill-lab/"))
            .filter_map(|event| request(&event))
            .collect()
    }

    fn grants(&self) -> BTreeSet<Grant> {
        let roles = COMPONENTS.iter().flat_map(|(user, roles)| roles.iter().map(move |role| (*user, *role)));
        let granted = |(user, role)| grants(user, &self.get(&[role, "--namespace", NAMESPACE]));
        roles.flat_map(granted).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut controller) = self.controller.take() {
            let _ = controller.kill();
            let _ = controller.wait();
        }
        // What does not come about was mostly forbidden.
        if std::thread::panicking() {
            forbidden(&self.requests()).iter().for_each(|request| eprintln!("forbidden: {request:?}"));
        }
    }
}

/// A user with these roles and no others; its kubeconfig.
fn bound(server: &ApiServer, user: &str, roles: &[&str]) -> PathBuf {
    for role in roles {
        let (kind, name) = role.split_once('/').unwrap();
        let of = format!("--{kind}={name}");
        let binding = if kind == "role" { "rolebinding" } else { "clusterrolebinding" };
        let who = format!("--user={user}");
        let create = ["create", binding, &format!("test-{user}"), &of, &who, "--namespace", NAMESPACE];
        succeeded(server.kubectl(&create).unwrap()).unwrap();
    }
    server.kubeconfig_of(user, &[]).unwrap()
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn grants(user: &str, role: &Value) -> Vec<Grant> {
    let mut grants = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                grants.extend(words(&rule["verbs"]).into_iter().map(|verb| Grant {
                    user: user.to_owned(),
                    resource: format!("{group}/{resource}"),
                    verb,
                    names: words(&rule["resourceNames"]),
                }));
            }
        }
    }
    grants
}

/// None for what is no resource, such as the API's own description.
fn request(event: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = event["objectRef"].as_object()?;
    let part = |name: &str| object.get(name).map(text).unwrap_or_default();
    let (resource, subresource) = (part("resource"), part("subresource"));
    let whole = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
    Some(Request {
        user: text(&event["user"]["username"]),
        resource: format!("{}/{whole}", part("apiGroup")),
        verb: text(&event["verb"]),
        name: part("name"),
        code: event["responseStatus"]["code"].as_u64().unwrap_or(0),
    })
}

fn forbidden(requests: &[Request]) -> BTreeSet<&Request> {
    requests.iter().filter(|request| request.code == 403).collect()
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds).unwrap();
}

/// The daemons of the two nodes come again, each as itself: the NodeNetwork of one is made by its bgpd, that of the other by its felix.
fn start_as_themselves(cluster: &Cluster) {
    for (node, order) in [("n1", [Daemon::Bgpd, Daemon::Felix]), ("n2", [Daemon::Felix, Daemon::Bgpd])] {
        for daemon in order {
            succeeded(cluster.lab.lab(["kill", node, &daemon.to_string()]).output().unwrap()).unwrap();
        }
        cluster.kubectl(&["delete", "nodenetwork", node]);
        let [first, second] = order;
        cluster.start(node, first);
        until("the first daemon makes the NodeNetwork", || cluster.has_network(node));
        cluster.start(node, second);
    }
}

/// Pods that need another block, a policy, and a drain, by the daemons as themselves.
fn daily_life(cluster: &Cluster) {
    let lab = &cluster.lab;
    let before = cluster.blocks("n1").len();
    let pods: String = (0..4).map(|n| pod(&format!("more{n}"), "n1")).collect();
    lab.apply(&[KEPT, &pods].concat()).unwrap();
    assert!(cluster.blocks("n1").len() > before, "another block is claimed");
    assert_eq!(cluster.get(&["ipreservation", "kept"])["status"]["holder"]["node"], "n1");
    lab.apply(&only("guard", "b", "a")).unwrap();
    let probe = lab.probe(&["--to", "default/b"]).unwrap();
    assert!(probe.differences == 0 && probe.cells.iter().any(|cell| cell.observed == "denied"), "{:?}", probe.cells);
    lab.delete(&only("guard", "b", "a")).unwrap();
    lab.ask("n1", &["drain", "n1"]).unwrap();
    lab.ask("n1", &["drain", "--undo", "n1"]).unwrap();
    until("the pool says what is claimed", || {
        let claimed = cluster.items(&["ipblocks"]).len();
        cluster.get(&["ippool", "pods"])["status"]["blocks"]["claimed"] == claimed
    });
    let of_peers = |peer: &Value| peer["status"]["conditions"].as_array().is_some_and(|all| !all.is_empty());
    until("the peers have a status", || cluster.items(&["bgppeers"]).iter().all(of_peers));
    cluster.server.apply(POLICIES).unwrap();
    for (kind, name) in [
        ("bgpconfiguration", "default"),
        ("bgpfilter", "far"),
        ("namespaceisolation", "tenants"),
        ("clusternetworkpolicy", "guard"),
    ] {
        let accepted = |object: &Value| {
            let mut all = object["status"]["conditions"].as_array().into_iter().flatten();
            all.any(|one| {
                ["Accepted", "twill.network/Accepted"].contains(&one["type"].as_str().unwrap())
                    && one["status"] == "True"
            })
        };
        until(&format!("{kind} {name} is accepted"), || accepted(&cluster.get(&[kind, name])));
    }
    let checked = |block: &Value| block["status"]["used"].as_u64() == Some(3);
    until("a full block says so", || cluster.items(&["ipblocks"]).iter().any(checked));
}

/// A block of n1 becomes another node's while felix of n1 looks away; that node goes, and its block is freed and comes back.
fn taken_and_back(cluster: &Cluster, time: u64) {
    let ip = cluster.lab.pod("default/a").unwrap().ips[0].clone();
    let network: String =
        ip.rsplit_once('.').map(|(head, last)| format!("{head}.{}", last.parse::<u8>().unwrap() & !3)).unwrap();
    let name = format!("{}-30", network.replace('.', "-"));
    assert!(cluster.blocks("n1").contains(&name), "{name}");
    let others = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n9}}\n---\napiVersion: twill.network/v1\nkind: NodeNetwork\nmetadata: {{name: n9}}\nspec: {{}}\n\
         ---\napiVersion: twill.network/v1\nkind: IPBlock\nmetadata: {{name: {name}}}\nspec: {{cidr: {network}/30, node: n9, claimant: another}}\n"
    );
    cluster.signal("n1", Daemon::Felix, Signal::SIGSTOP);
    cluster.kubectl(&["delete", "ipblock", &name]);
    cluster.server.apply(&others).unwrap();
    cluster.signal("n1", Daemon::Felix, Signal::SIGCONT);
    until("people are told of the pod", || cluster.told("AddressTaken", "a") == time);
    cluster.kubectl(&["delete", "node", "n9"]);
    until("what the node left is freed", || cluster.blocks("n9").is_empty() && !cluster.has_network("n9"));
    until("people are told of it", || cluster.told("BlocksFreed", "n9") == time);
    until("the block is n1's again", || cluster.blocks("n1").contains(&name));
    until("all is as before", || cluster.lab.probe(&["--to", "default/a"]).unwrap().differences == 0);
}

/// Nodes tell routers of Services, which they follow for that; and a BGPConfiguration that is deleted comes again, since nodes follow what it said.
fn told_and_configured(cluster: &Cluster) {
    let patch = |spec: &Value| {
        let spec = json!({"spec": spec}).to_string();
        cluster.kubectl(&["patch", "bgpconfiguration", "default", "--type=merge", "--patch", &spec]);
    };
    let range = "198.51.100.0/24";
    patch(&json!({"services": {"externalIPs": [range]}}));
    until("the router hears of Services", || {
        !cluster.lab.exec("tor-r1", &["ip", "route", "show", range]).unwrap().is_empty()
    });
    let follows = |network: &Value| network["status"]["bgp"]["step"].is_u64();
    until("nodes follow a decision", || cluster.items(&["nodenetworks"]).iter().all(follows));
    let before = cluster.get(&["bgpconfiguration", "default"]);
    cluster.kubectl(&["delete", "bgpconfiguration", "default"]);
    until("the controller makes one", || !cluster.items(&["bgpconfigurations"]).is_empty());
    patch(&before["spec"]);
    until("it is as before", || {
        cluster.get(&["bgpconfiguration", "default"])["status"]["sessions"]["topology"] == "Fabric"
    });
}

/// Twill leaves n2, by its own daemons.
fn uninstalled(cluster: &Cluster) {
    assert!(!cluster.blocks("n2").is_empty());
    cluster.kubectl(&["patch", "nodenetwork", "n2", "--type=merge", "--patch", r#"{"spec": {"uninstall": true}}"#]);
    until("n2 is clean", || !cluster.has_network("n2") && cluster.blocks("n2").is_empty());
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn each_component_lives_with_its_own_rights_and_uses_all_of_them() {
    let mut cluster = Cluster::up();
    cluster.start_controller();
    start_as_themselves(&cluster);
    daily_life(&cluster);
    taken_and_back(&cluster, 1);
    taken_and_back(&cluster, 2);
    told_and_configured(&cluster);
    uninstalled(&cluster);
    cluster.end_controller();
    let requests = cluster.requests();
    let mut wrong: Vec<String> = forbidden(&requests).iter().map(|request| format!("forbidden: {request:?}")).collect();
    for grant in cluster.grants() {
        let used = requests.iter().filter(|request| grant.covers(request) && request.code != 403).count();
        let Grant { user, resource, verb, names } = &grant;
        println!("{user:10} {resource:45} {verb:7} {used:6} {}", names.join(","));
        let excused =
            UNUSED.iter().any(|(u, v, r, _)| (*u, *v, *r) == (user.as_str(), verb.as_str(), resource.as_str()));
        match (used, excused) {
            (0, false) => wrong.push(format!("granted and not used: {grant:?}")),
            (1.., true) => wrong.push(format!("used, so take it from UNUSED: {grant:?}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
#[ignore = "needs a Kubernetes API server: make test-kubernetes"]
fn an_add_that_gets_no_answer_claims_no_block() {
    let cluster = Cluster::up();
    start_as_themselves(&cluster);
    until("n1 attaches pods again", || cluster.lab.apply(&pod("first", "n1")).is_ok());
    let role = cluster.get(&["clusterrole", "twill-felix"]);
    // What an ADD waits for cannot be asked any more; a claim is a write.
    let mut poorer = role.clone();
    for rule in poorer["rules"].as_array_mut().unwrap() {
        if words(&rule["resources"]).contains(&"pods".to_owned()) {
            rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != "get");
        }
    }
    assert_ne!(poorer, role);
    let change = |to: &Value| {
        let patch = json!({"rules": to["rules"]}).to_string();
        cluster.kubectl(&["patch", "clusterrole", "twill-felix", "--type=merge", "--patch", &patch]);
    };
    change(&poorer);
    let before = cluster.blocks("n1");
    // More than the block has room for, the last address of which may be given out: a pod's status speaks for it.
    let more: String = (0..3).map(|n| pod(&format!("late{n}"), "n1")).collect();
    let refused = cluster.lab.apply(&more).unwrap_err().to_string();
    // One is claimed ahead of need, as ever.
    let claimed = cluster.blocks("n1");
    assert!(claimed.len() <= before.len() + 1, "{claimed:?}: {refused}");
    change(&role);
    until("they are attached once that may be", || cluster.lab.apply(&more).is_ok());
}
