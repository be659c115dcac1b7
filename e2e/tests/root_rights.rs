//! The capabilities that deploy/twill.yaml gives the daemons suffice, and each is needed.
//!
//! ```text
//! a network and mount namespace of its own, as a container of the host's network has it: /proc/sys read-only, the node's own
//! mounted beside it; bgpd and felix with the capabilities of the manifest and no others, and no way to gain any
//! ```
//!
//! 1. With them felix attaches a pod, and bgpd listens on its port and makes its tunnel device.
//! 2. Without any one of felix's no pod is attached.
//! 3. Without any one of bgpd's it does not listen, or makes no device.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use twill_e2e::{repository, succeeded, twill, within};

/// What the manifest adds for a container after it has dropped everything.
fn capabilities(container: &str) -> Vec<String> {
    let manifest = fs::read_to_string(repository().join("deploy/twill.yaml")).unwrap();
    let container = manifest.split_once(&format!("- name: {container}\n")).unwrap().1;
    let list =
        container.split_once("drop: [ALL]").unwrap().1.split_once("add: [").unwrap().1.split_once(']').unwrap().0;
    list.split(", ").map(str::to_lowercase).collect()
}

/// A root directory as the machine's own, but for what a runtime changes: `sh -c CONTAINER sh ROOT COMMAND…`
const CONTAINER: &str = r#"set -e
root=$1; shift
mount -t tmpfs none "$root"
for entry in /*; do
  if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
  elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"; fi
done
mkdir -p "$root/host/proc/sys"
mount --bind /proc/sys "$root/host/proc/sys"
mount --bind /proc/sys "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
exec chroot "$root" "$@"
"#;

const OBJECTS: &str = "
{apiVersion: twill.network/v1, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.42.0.0/16, natOutgoing: true}}
---
{apiVersion: twill.network/v1, kind: IPPool, metadata: {name: pods6}, spec: {cidr: 'fd42::/112'}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 172.31.1.11}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 172.31.1.12}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}, spec: {nodeName: n1, containers: [{name: c, image: i}]}}
---
apiVersion: twill.network/v1
kind: BGPPeer
metadata: {name: tor}
spec: {asn: external, remote: {interface: up0}}
";

/// A node whose daemons run as containers do.
struct Node {
    directory: tempfile::TempDir,
    netns: String,
    pod: String,
    daemons: Vec<Child>,
}

impl Node {
    fn new(label: &str) -> Self {
        let netns = format!("twrights-{}-{label}", std::process::id());
        let pod = format!("{netns}-pod");
        let node = Self { directory: tempfile::tempdir().unwrap(), netns, pod, daemons: Vec::new() };
        ["state", "root-bgpd", "root-felix"].iter().for_each(|name| fs::create_dir(node.path(name)).unwrap());
        for name in [&node.netns, &node.pod] {
            run("ip", &["netns", "add", name]);
        }
        for line in [
            "ip link set lo up",
            "ip link add up0 type veth peer name up1",
            "ip addr add 172.31.1.11/24 dev up0",
            "ip link set up0 up",
            "ip link set up1 up",
        ] {
            node.inside(line);
        }
        fs::write(node.path("objects.yaml"), OBJECTS).unwrap();
        node.twill(&["apply", "-f", &node.path("objects.yaml")]);
        node
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path("cluster.db"))
    }

    fn inside(&self, line: &str) -> String {
        let words: Vec<&str> = ["netns", "exec", &self.netns].into_iter().chain(line.split(' ')).collect();
        run("ip", &words)
    }

    fn twill(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(twill().unwrap());
        succeeded(command.args(arguments).env("TWILL_DATASTORE", self.url()).output().unwrap()).unwrap()
    }

    /// Starts a daemon with these capabilities and no others.
    fn start(&mut self, daemon: &str, capabilities: &[String]) {
        let added = capabilities.iter().map(|name| format!(",+{name}")).collect::<String>();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, "unshare", "--mount", "sh", "-c", CONTAINER, "sh"]);
        command.arg(self.path(&format!("root-{daemon}")));
        command.args(["setpriv", "--no-new-privs", "--inh-caps=-all", &format!("--bounding-set=-all{added}")]);
        command.arg(twill().unwrap()).args([daemon, "--node", "n1", "--datastore", &self.url()]);
        command.args(["--run-dir", &self.path(""), "--state-dir", &self.path("state")]);
        command.stdout(Stdio::null()).stderr(fs::File::create(self.path(daemon)).unwrap());
        self.daemons.push(command.spawn().unwrap());
    }

    fn is_ready(&self, daemon: &str) -> bool {
        let mut command = Command::new(twill().unwrap());
        command.args(["ready", daemon, "--run-dir", &self.path("")]).stderr(Stdio::null()).status().unwrap().success()
    }

    /// The addresses that the plugin gives the pod, or its error.
    fn attach(&self) -> Result<Vec<String>, String> {
        let pod: Value = serde_json::from_str(&self.twill(&["get", "pod", "a", "-n", "shop", "-o", "json"])).unwrap();
        let uid = pod["metadata"]["uid"].as_str().unwrap();
        let config = json!({
            "cniVersion": "1.0.0", "name": "twill", "type": "twill-cni", "socket": self.path("felix.sock"),
        });
        let mut plugin = Command::new(twill().unwrap().with_file_name("twill-cni"))
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", format!("/run/netns/{}", self.pod))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a;K8S_POD_UID={uid}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        plugin.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        let output = plugin.wait_with_output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let ips = answer["ips"].as_array().ok_or_else(|| answer.to_string())?;
        Ok(ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect())
    }

    fn listens(&self) -> bool {
        !self.inside("ss -Hltn sport = 179").is_empty()
    }

    /// Whether bgpd has heard an unnumbered peer's interface out: nobody is there.
    fn looks_for_routers(&self) -> bool {
        fs::read_to_string(self.path("bgpd")).unwrap().contains("no router interface=\"up0\"")
    }

    fn has_tunnel(&self) -> bool {
        self.inside("ip -o link").contains("twill-vxlan")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for name in [&self.netns, &self.pod] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
        if std::thread::panicking() {
            let log = |daemon| fs::read_to_string(self.path(daemon)).unwrap_or_default();
            eprintln!("felix said:\n{}\nbgpd said:\n{}", log("felix"), log("bgpd"));
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    succeeded(Command::new(program).args(arguments).output().unwrap()).unwrap()
}

/// All but one of them, each time another.
fn all_but_one(all: &[String]) -> impl Iterator<Item = (&String, Vec<String>)> {
    all.iter().map(|missing| (missing, all.iter().filter(|name| *name != missing).cloned().collect()))
}

const LONG: Duration = Duration::from_secs(15);

#[test]
#[ignore = "needs root: make test"]
fn the_capabilities_of_the_manifest_suffice() {
    let mut node = Node::new("all");
    node.start("bgpd", &capabilities("bgpd"));
    node.start("felix", &capabilities("felix"));
    within(LONG, "both are ready", || node.is_ready("felix") && node.is_ready("bgpd")).unwrap();
    within(LONG, "bgpd listens, with its tunnel", || node.listens() && node.has_tunnel()).unwrap();
    within(LONG, "bgpd looks for the router on an interface", || node.looks_for_routers()).unwrap();
    let addresses = node.attach().unwrap();
    assert_eq!(addresses.len(), 2, "one per family: {addresses:?}");
    for address in addresses {
        node.inside(&format!("ping -c 1 -W 2 {address}"));
    }
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        assert_eq!(node.inside(&format!("sysctl -n {setting}")).trim(), "1", "{setting}");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn without_any_one_of_felix_s_no_pod_is_attached() {
    let all = capabilities("felix");
    assert!(all.len() >= 2, "{all:?}");
    for (number, (missing, rest)) in all_but_one(&all).enumerate() {
        let mut node = Node::new(&format!("felix{number}"));
        node.start("bgpd", &capabilities("bgpd"));
        node.start("felix", &rest);
        let ready = within(LONG, "felix is ready", || node.is_ready("felix") || ended(&mut node.daemons[1]));
        assert!(ready.is_ok(), "without {missing} felix neither ends nor gets ready");
        let attached = node.is_ready("felix").then(|| node.attach());
        assert!(!matches!(attached, Some(Ok(_))), "felix attaches pods without {missing}: take it out of the chart");
    }
}

#[test]
#[ignore = "needs root: make test"]
fn without_any_one_of_bgpd_s_it_does_not_do_its_work() {
    let all = capabilities("bgpd");
    assert!(all.len() >= 2, "{all:?}");
    for (number, (missing, rest)) in all_but_one(&all).enumerate() {
        let mut node = Node::new(&format!("bgpd{number}"));
        node.start("bgpd", &rest);
        within(LONG, "bgpd is ready", || node.is_ready("bgpd") || ended(&mut node.daemons[0])).unwrap();
        let works = || node.listens() && node.has_tunnel() && node.looks_for_routers();
        let works = within(Duration::from_secs(3), "bgpd works", works);
        assert!(works.is_err(), "bgpd does all of its work without {missing}: take it out of the chart");
    }
}

fn ended(daemon: &mut Child) -> bool {
    daemon.try_wait().unwrap().is_some()
}
