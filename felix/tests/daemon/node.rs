//! One node: a namespace with an uplink, a datastore, and felix as a process.
// Not each of the test programs that share it needs all of it.
#![allow(dead_code)]

use crate::world::{Ns, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use twill_crds::{IPBlock, IPPool, Namespace, NetworkPolicy, Node as NodeObject, Object, Pod};
use twill_datastore::{Datastore, Filter, Key, Preconditions};

const ARGS: &str = "TWILL_TEST_FELIX";

/// Not a test of its own: what [`Node::start`] runs in the node's namespace.
#[test]
#[ignore = "started by the other tests of this file: make test"]
fn felix_process() {
    let Ok(args) = std::env::var(ARGS) else { return };
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        felix: twill_felix::Args,
    }
    let line: Vec<String> = serde_json::from_str(&args).unwrap();
    let Line { felix } = clap::Parser::parse_from(line);
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::DEBUG).init();
    if let Err(error) = twill_felix::run(felix) {
        eprintln!("felix: {error:#}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

pub struct Node {
    pub name: &'static str,
    pub ns: Ns,
    pub directory: tempfile::TempDir,
    pub state: PathBuf,
    pub boot_id: &'static str,
    /// Seconds.
    pub quarantine: u32,
    /// Where felix is to tell the runtime that pods can be attached.
    pub conflists: Option<PathBuf>,
    /// More of felix's arguments.
    pub more_args: Vec<&'static str>,
    /// Where felix finds the datastore.
    pub url: String,
    /// What felix finds as `/etc/resolv.conf`; none: the machine's.
    pub resolver: Option<PathBuf>,
    datastore: Datastore,
    runtime: tokio::runtime::Runtime,
    felix: Option<Child>,
}

impl Node {
    /// A node with one pool, its Node object and namespace `shop`; felix is not started.
    pub fn new(pools: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("cluster")).unwrap();
        // What felix sees of it can be taken away.
        std::os::unix::fs::symlink("cluster", directory.path().join("reached")).unwrap();
        let url = |link: &str| format!("sqlite:{}/{link}/cluster.db", directory.path().display());
        let (own, felix) = (url("cluster"), url("reached"));
        Self::of(directory, &own, felix, pools)
    }

    /// The same with another datastore, which is empty.
    pub fn on(url: &str, pools: &[&str]) -> Self {
        Self::of(tempfile::tempdir().unwrap(), url, url.to_owned(), pools)
    }

    /// `own` is the datastore's URL for the test, `url` for felix.
    fn of(directory: tempfile::TempDir, own: &str, url: String, pools: &[&str]) -> Self {
        let node = Self::bare(directory, own, url, "n1", "172.31.1.11");
        node.create::<Namespace>(json!({"metadata": {"name": "shop"}}));
        for (n, cidr) in pools.iter().enumerate() {
            node.create::<IPPool>(json!({"metadata": {"name": format!("pool{n}")}, "spec": {"cidr": cidr}}));
        }
        node
    }

    /// Another node of the same cluster, on no network with it.
    pub fn beside(&self, name: &'static str) -> Self {
        let url = format!("sqlite:{}/cluster/cluster.db", self.directory.path().display());
        Self::bare(tempfile::tempdir().unwrap(), &url, url.clone(), name, "172.31.1.12")
    }

    fn bare(directory: tempfile::TempDir, own: &str, url: String, name: &'static str, address: &str) -> Self {
        let ns = Ns::new("node");
        ns.run(&["ip", "link", "add", "up0", "mtu", "1450", "type", "veth", "peer", "name", "up1"]);
        ns.run(&["ip", "addr", "add", &format!("{address}/24"), "dev", "up0"]);
        ns.run(&["ip", "link", "set", "up0", "up"]);
        ns.run(&["ip", "link", "set", "up1", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let datastore = runtime.block_on(Datastore::open(own)).unwrap();
        let state = directory.path().join("state");
        let (boot_id, quarantine, conflists, more_args) = ("boot-1", 900, None, Vec::new());
        let (resolver, felix) = (None, None);
        let node = Self {
            name,
            ns,
            directory,
            state,
            boot_id,
            quarantine,
            conflists,
            more_args,
            url,
            resolver,
            datastore,
            runtime,
            felix,
        };
        node.create::<NodeObject>(json!({
            "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }));
        node
    }

    pub fn create<K: Object>(&self, mut object: Value) -> K {
        object["apiVersion"] = json!(K::kind().api_version());
        object["kind"] = json!(K::kind().kind);
        let typed: K = serde_json::from_value(object).unwrap();
        let created = self.runtime.block_on(self.datastore.create(&typed)).unwrap();
        if typed.namespace().is_empty() && K::kind().kind == "Node" {
            let mut with_status = serde_json::to_value(&created).unwrap();
            with_status["status"] = serde_json::to_value(&typed).unwrap()["status"].clone();
            let with_status: K = serde_json::from_value(with_status).unwrap();
            return self.runtime.block_on(self.datastore.update_status(&with_status)).unwrap();
        }
        created
    }

    pub fn list<K: Object>(&self) -> Vec<K> {
        self.runtime.block_on(self.datastore.list::<K>(&Filter::default())).unwrap().items
    }

    pub fn update_status<K: Object>(&self, object: &K) {
        self.runtime.block_on(self.datastore.update_status(object)).unwrap();
    }

    pub fn delete<K: Object>(&self, name: &str) {
        self.runtime.block_on(self.datastore.delete::<K>(&Key::cluster(name), &Preconditions::default())).unwrap();
    }

    pub fn annotate<K: Object>(&self, name: &str, annotation: &str, value: &str) {
        let mut object = self.runtime.block_on(self.datastore.get::<K>(&Key::cluster(name))).unwrap().unwrap();
        object.meta_mut().annotations.get_or_insert_default().insert(annotation.to_owned(), value.to_owned());
        self.runtime.block_on(self.datastore.update(&object)).unwrap();
    }

    /// Gives a pod of `shop` other labels.
    pub fn relabel(&self, name: &str, labels: Value) {
        let key = Key::namespaced("shop", name);
        let mut pod = self.runtime.block_on(self.datastore.get::<Pod>(&key)).unwrap().unwrap();
        pod.metadata.labels = serde_json::from_value(labels).unwrap();
        self.runtime.block_on(self.datastore.update(&pod)).unwrap();
    }

    /// Creates an object of `shop`, or gives it another spec.
    pub fn put_in_shop<K: Object>(&self, object: &Value) {
        let key = Key::namespaced("shop", object["metadata"]["name"].as_str().unwrap());
        let Some(old) = self.runtime.block_on(self.datastore.get::<K>(&key)).unwrap() else {
            self.create::<K>(object.clone());
            return;
        };
        let mut new = serde_json::to_value(&old).unwrap();
        new["spec"] = object["spec"].clone();
        let new: K = serde_json::from_value(new).unwrap();
        self.runtime.block_on(self.datastore.update(&new)).unwrap();
    }

    /// Gives an object of the cluster another spec.
    pub fn put_in_cluster<K: Object>(&self, name: &str, spec: Value) {
        let old = self.runtime.block_on(self.datastore.get::<K>(&Key::cluster(name))).unwrap().unwrap();
        let mut new = serde_json::to_value(&old).unwrap();
        new["spec"] = spec;
        let new: K = serde_json::from_value(new).unwrap();
        self.runtime.block_on(self.datastore.update(&new)).unwrap();
    }

    /// Gives the namespace `shop` other labels.
    pub fn label_shop(&self, labels: Value) {
        let mut shop = self.runtime.block_on(self.datastore.get::<Namespace>(&Key::cluster("shop"))).unwrap().unwrap();
        shop.metadata.labels = serde_json::from_value(labels).unwrap();
        self.runtime.block_on(self.datastore.update(&shop)).unwrap();
    }

    /// A policy for all pods of `shop` that lets nothing in.
    pub fn deny_all(&self) {
        self.create::<NetworkPolicy>(json!({
            "metadata": {"name": "deny-all", "namespace": "shop"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        }));
    }

    pub fn pod(&self, name: &str) -> Attached {
        let pod = self.create::<Pod>(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
            "spec": {"nodeName": self.name, "containers": [{"name": "c", "image": "i"}]},
        }));
        Attached { ns: Ns::new(name), name: name.to_owned(), uid: pod.metadata.uid.unwrap() }
    }

    pub fn start(&mut self) {
        self.launch();
        // On a machine that has never used nftables the kernel loads a dozen modules first: half a minute on an emulated processor.
        until("felix in sync", Duration::from_secs(90), || {
            self.status().is_some_and(|status| status["inSync"] == json!(true))
        });
    }

    /// Starts felix, and plays bgpd: every block of the node gets its unreachable route.
    pub fn start_routed(&mut self, families: usize) {
        self.start();
        until("a block per family", Duration::from_secs(30), || {
            self.list::<IPBlock>().iter().filter(|block| block.spec.node == self.name).count() >= families
        });
        for block in self.list::<IPBlock>() {
            if block.spec.node != self.name {
                continue;
            }
            let cidr = block.spec.cidr.to_string();
            self.ns.run(&["ip", "route", "replace", "unreachable", &cidr, "proto", "84", "metric", "4096"]);
        }
    }

    /// What a reboot does to workload interfaces.
    pub fn del_links(&self) {
        for link in self.ns.run(&["ip", "-o", "link"]).lines().filter_map(|line| line.split([' ', '@']).nth(1)) {
            if link.starts_with("twl") {
                self.ns.run(&["ip", "link", "del", link]);
            }
        }
    }

    /// Another block in the place of one, whoever tries the same at once.
    pub fn replace_block(&self, name: &str, spec: Value) {
        loop {
            let key = Key::cluster(name);
            let _ = self.runtime.block_on(self.datastore.delete::<IPBlock>(&key, &Preconditions::default()));
            let block = json!({
                "apiVersion": IPBlock::kind().api_version(), "kind": "IPBlock", "metadata": {"name": name}, "spec": spec,
            });
            let block: IPBlock = serde_json::from_value(block).unwrap();
            if self.runtime.block_on(self.datastore.create(&block)).is_ok() {
                return;
            }
        }
    }

    /// felix does not reach the datastore any more; the test does.
    pub fn datastore_away(&self) {
        std::fs::remove_file(self.directory.path().join("reached")).unwrap();
    }

    /// It reaches it again, or another one in its place.
    pub fn datastore_back(&self, directory: &str) {
        std::os::unix::fs::symlink(directory, self.directory.path().join("reached")).unwrap();
    }

    /// What a kubelet tells of a pod that runs.
    pub fn report(&self, pod: &Attached, addresses: &[String]) {
        let mut object =
            self.list::<Pod>().into_iter().find(|one| one.metadata.uid.as_deref() == Some(&pod.uid)).unwrap();
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        object.status = serde_json::from_value(json!({"phase": "Running", "podIPs": ips})).unwrap();
        self.update_status(&object);
    }

    pub fn delete_in_shop<K: Object>(&self, name: &str) {
        let key = Key::namespaced("shop", name);
        self.runtime.block_on(self.datastore.delete::<K>(&key, &Preconditions::default())).unwrap();
    }

    /// Waits until felix has nothing to go by but its memory, and its table is up to that.
    pub fn until_it_recalls(&self) {
        until("felix goes on with what it heard", Duration::from_secs(10), || {
            self.status().is_some_and(|status| status["problems"].to_string().contains("goes on with what it heard"))
                && self.log_text().contains("table committed")
        });
        assert_eq!(self.status().unwrap()["inSync"], json!(false));
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn launch(&mut self) {
        assert!(self.felix.is_none());
        let run = self.directory.path().display().to_string();
        let state = self.state.display().to_string();
        let line = ["felix", "--node", self.name, "--datastore", &self.url, "--run-dir", &run, "--state-dir", &state];
        let quarantine = self.quarantine.to_string();
        let mut line: Vec<&str> =
            line.into_iter().chain(["--boot-id", self.boot_id, "--quarantine", &quarantine]).collect();
        line.extend(&self.more_args);
        if let Some(conflists) = &self.conflists {
            line.extend(["--write-conflist", "--cni-conf-dir", conflists.to_str().unwrap()]);
        }
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let test = std::env::current_exe().unwrap();
        let test =
            [test.to_str().unwrap(), "--exact", "node::felix_process", "--ignored", "--nocapture", "--test-threads=1"];
        // Inside, a process has mounts of its own.
        let resolver = self
            .resolver
            .as_ref()
            .map(|file| ["sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"", file.to_str().unwrap()]);
        let arguments: Vec<&str> = resolver.into_iter().flatten().chain(test).collect();
        let mut command = self.ns.command(&arguments);
        command.env(ARGS, serde_json::to_string(&line).unwrap());
        command.stdout(Stdio::null()).stderr(log);
        self.felix = Some(command.spawn().unwrap());
    }

    pub fn log(&self) -> PathBuf {
        self.directory.path().join("felix.log")
    }

    /// Of the felix that runs.
    pub fn pid(&self) -> u32 {
        self.felix.as_ref().unwrap().id()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        let mut felix = self.felix.take().unwrap();
        felix.kill().unwrap();
        felix.wait().unwrap();
    }

    /// SIGTERM, and its exit status.
    pub fn stop(&mut self) -> bool {
        let mut felix = self.felix.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(felix.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        felix.wait().unwrap().success()
    }

    pub fn wait(&mut self) -> bool {
        self.felix.take().unwrap().wait().unwrap().success()
    }

    pub fn ask(&self, request: &Value) -> Option<Value> {
        let mut stream = UnixStream::connect(self.directory.path().join("felix.sock")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        writeln!(stream, "{request}").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    pub fn status(&self) -> Option<Value> {
        self.ask(&json!({"op": "status"}))
    }

    pub fn cni(&self, command: &str, pod: &Attached) -> Value {
        self.call(command, pod, &pod.ns.path().display().to_string())
    }

    /// A call as the plugin makes it.
    pub fn request(&self, command: &str, pod: &Attached, netns: &str) -> Value {
        let args = format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={};K8S_POD_UID={}", pod.name, pod.uid);
        json!({
            "op": "cni", "command": command, "containerId": format!("c-{}", pod.name), "netns": netns, "ifname": "eth0",
            "args": args, "config": {"cniVersion": "1.1.0", "name": "twill", "type": "twill-cni"},
        })
    }

    pub fn call(&self, command: &str, pod: &Attached, netns: &str) -> Value {
        self.call_with(command, pod, netns, &Value::Null)
    }

    /// The same with what the runtime says by capabilities.
    pub fn call_with(&self, command: &str, pod: &Attached, netns: &str, capabilities: &Value) -> Value {
        let mut request = self.request(command, pod, netns);
        request["config"]["runtimeConfig"] = capabilities.clone();
        self.ask(&request).unwrap_or_else(|| panic!("no answer; {}", self.tail()))
    }

    /// ADD that must succeed; its addresses without prefix length.
    pub fn add(&self, pod: &Attached) -> Vec<String> {
        self.add_with(pod, &Value::Null)
    }

    /// The same with what the runtime says by capabilities.
    pub fn add_with(&self, pod: &Attached, capabilities: &Value) -> Vec<String> {
        let reply = self.call_with("ADD", pod, &pod.ns.path().display().to_string(), capabilities);
        let ips = reply["result"]["ips"].as_array().unwrap_or_else(|| panic!("{reply}; {}", self.tail()));
        ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
    }

    pub fn del(&self, pod: &Attached) {
        assert_eq!(self.cni("DEL", pod), json!({"result": null}), "{}", self.tail());
    }

    /// What felix logged last.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Node {
    /// What differs between the kernel and what felix means it to hold, by `nft`'s reading and by felix's own; nothing if there is no felix
    /// that means anything.
    fn differences(&mut self) -> Vec<String> {
        let runs = self.felix.as_mut().is_some_and(|felix| felix.try_wait().unwrap().is_none());
        let Some(meant) = runs.then(|| self.ask(&json!({"op": "ruleset"}))).flatten() else { return Vec::new() };
        let kernel = self.ns.output(&["nft", "-j", "list", "table", "inet", "twill"]);
        if !kernel.status.success() {
            // Another process's namespace has its own table; before ours is made there is none.
            return vec!["there is no table".to_owned()];
        }
        let text = meant["text"].as_str().unwrap();
        let mut found = twill_table_check::differences(&String::from_utf8(kernel.stdout).unwrap(), text).unwrap();
        found.extend(meant["differs"].as_array().unwrap().iter().map(ToString::to_string));
        found
    }

    /// The kernel holds what was meant: at the end of every test, whatever it was about.
    fn hold_to_what_was_meant(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let found = self.differences();
            if found.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "the kernel does not hold what was meant:\n{}", found.join("\n"));
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.hold_to_what_was_meant();
        }
        if let Some(mut felix) = self.felix.take() {
            let _ = felix.kill();
            let _ = felix.wait();
        }
        if std::thread::panicking() {
            eprintln!("felix said:\n{}", self.tail());
        }
    }
}

/// A pod's namespace and identity.
pub struct Attached {
    pub ns: Ns,
    pub name: String,
    pub uid: String,
}
