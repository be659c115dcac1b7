//! Nodes with a kubelet, containerd and runc, each in namespaces of its own on one machine, and the wire between them.
//!
//! ```text
//!  the test's network namespace: API server at .1 ── bridge ── node at .11, node at .12, …
//! ```

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use twill_control_plane::{ApiServer, KUBERNETES_SERVICE, asset};
use twill_e2e::{repository, succeeded, within};
use twill_lab::io::{netns, underlay};

/// Where the API server is.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(172, 31, 9, 1);
const BRIDGE: &str = "br0";
/// Directories below the root of which each node has its own.
const PLACES: [&str; 9] = [
    "run/twill",
    "run/netns",
    "run/containerd",
    "var/lib/twill",
    "var/lib/containerd",
    "var/lib/kubelet",
    "var/log",
    "opt/cni/bin",
    "etc/cni/net.d",
];
/// Much more than anything takes, for busy machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// The calling thread, and what it starts, has a network of its own from here on, with the wire that joins nodes.
pub(crate) fn wire() {
    unshare(CloneFlags::CLONE_NEWNET).expect("network namespaces are made as root");
    underlay::loopback_up().unwrap();
    ip(&["link", "add", BRIDGE, "type", "bridge"]);
    ip(&["addr", "add", &format!("{SERVER}/24"), "dev", BRIDGE]);
    ip(&["link", "set", BRIDGE, "up"]);
}

fn ip(arguments: &[&str]) {
    succeeded(Command::new("ip").args(arguments).output().unwrap()).unwrap();
}

/// A program of the distribution.
fn installed(name: &str, package: &str) -> PathBuf {
    let places =
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/lib/cni", "/opt/cni/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; apt-get install --no-install-recommends {package}"))
}

/// The static busybox.
pub(crate) fn busybox() -> PathBuf {
    installed("busybox", "busybox-static")
}

/// A node; all of it ends when this is dropped.
pub(crate) struct Machine {
    pub(crate) name: String,
    cgroup: String,
    /// Directories of this machine that were made to be mounted over, outermost first.
    made: Vec<PathBuf>,
    process: Child,
    directory: tempfile::TempDir,
}

impl Machine {
    /// Starts the node `number`, with these images; the first is that of every pod's sandbox.
    pub(crate) fn start(server: &ApiServer, number: u8, images: &[(&str, &Path)]) -> Self {
        installed("containerd", "containerd");
        installed("runc", "runc");
        let name = format!("k{number}");
        let directory = tempfile::tempdir().unwrap();
        let cgroup = format!("/twill-e2e-{}-{name}", std::process::id());
        let at = |file: &str| directory.path().join(file);
        fs::create_dir(at("images")).unwrap();
        for (index, (_, archive)) in images.iter().enumerate() {
            fs::hard_link(archive, at(&format!("images/{index}.tar"))).unwrap();
        }
        fs::write(at("containerd.toml"), containerd(images[0].0)).unwrap();
        fs::write(at("kubelet.yaml"), kubelet(server, &cgroup).to_string()).unwrap();
        let made = missing();
        let process = process(server, &name, number, &cgroup, directory.path());
        let machine = Self { name, cgroup, made, process, directory };
        machine.plug_in(number);
        within(PATIENCE, "a node joins", || machine.has_joined(server))
            .unwrap_or_else(|e| panic!("{e}: {}", machine.last_words()));
        machine
    }

    fn plug_in(&self, number: u8) {
        let (own, port) = (fs::read_link("/proc/thread-self/ns/net").unwrap(), format!("port{number}"));
        let theirs = || fs::read_link(format!("/proc/{}/ns/net", self.pid())).is_ok_and(|theirs| theirs != own);
        within(PATIENCE, "a node has a network namespace", theirs).unwrap();
        let pid = self.pid().to_string();
        ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        ip(&["link", "set", &port, "master", BRIDGE, "up"]);
    }

    fn has_joined(&self, server: &ApiServer) -> bool {
        server.kubectl(&["get", "node", &self.name]).is_ok_and(|output| output.status.success())
    }

    /// Of the first process in its namespaces but that of processes.
    fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Runs a command on the node; what it says.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let pid = self.pid().to_string();
        let inside = ["--target", &pid, "--mount", "--net", "--"];
        succeeded(Command::new("nsenter").args(inside).args(command).output().unwrap()).unwrap()
    }

    /// A further image.
    pub(crate) fn import(&self, archive: &Path) {
        self.run(&["ctr", "--namespace", "k8s.io", "images", "import", &archive.display().to_string()]);
    }

    /// Network namespace of the pod with this address, as [`netns::enter`] takes it.
    pub(crate) fn netns(&self, address: Ipv4Addr) -> String {
        let directory = format!("/proc/{}/root/run/netns", self.pid());
        let has = |path: &String| netns::inside(path, || Ok(holds(address))).unwrap_or(false);
        let paths = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path().display().to_string());
        paths.into_iter().find(has).unwrap_or_else(|| panic!("no pod of {} has {address}", self.name))
    }

    /// Files of the node, in its root.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path)
    }

    /// The ends of its logs.
    fn last_words(&self) -> String {
        let end = |name: &str| {
            let text = fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(8).collect();
            format!("{} {name}:\n{}\n", self.name, lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        ["machine.log", "containerd.log", "import.log", "kubelet.log"].map(end).concat()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        for place in self.made.iter().rev() {
            // Somebody may use it by now.
            let _ = fs::remove_dir(place);
        }
        // Its processes end with the first of them; a cgroup goes once the last has.
        let roots: Vec<PathBuf> = cgroups(&self.cgroup);
        let gone = within(PATIENCE, "cgroups", || roots.iter().filter(|root| !remove(root)).count() == 0);
        if gone.is_err() {
            eprintln!("cgroups {} are left behind", self.cgroup);
        }
    }
}

/// What has to be made for [`PLACES`], outermost first.
fn missing() -> Vec<PathBuf> {
    let all = PLACES.iter().flat_map(|place| {
        let whole = Path::new("/").join(place);
        whole.ancestors().map(Path::to_owned).collect::<Vec<_>>().into_iter().rev()
    });
    all.filter(|path| !path.exists()).collect()
}

fn holds(address: Ipv4Addr) -> bool {
    let mut all = getifaddrs().into_iter().flatten().filter_map(|interface| interface.address);
    all.any(|one| one.as_sockaddr_in().is_some_and(|one| one.ip() == address))
}

fn cgroups(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
    all.map(|hierarchy| hierarchy.join(name.trim_start_matches('/'))).filter(|path| path.is_dir()).collect()
}

/// Whether the cgroup and those below are gone.
fn remove(cgroup: &Path) -> bool {
    let below =
        fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    for path in below {
        remove(&path);
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

fn process(server: &ApiServer, name: &str, number: u8, cgroup: &str, directory: &Path) -> Child {
    let user = format!("system:node:{name}");
    let kubeconfig = server.kubeconfig_of(&user, &["system:nodes"]).unwrap();
    let log = fs::File::create(directory.join("machine.log")).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc"]);
    command
        .args(["--kill-child", "--propagation", "private", "sh"])
        .arg(repository().join("e2e/tests/support/machine.sh"));
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("NODE", name).env("ADDRESS", address(number).to_string()).env("GATEWAY", SERVER.to_string());
    command.env("PLACES", PLACES.join(" "));
    command.env("DIRECTORY", directory).env("KUBECONFIG", kubeconfig).env("CGROUP", cgroup);
    command.env("SERVICE", KUBERNETES_SERVICE.to_string()).env("SERVER", format!("{SERVER}:{}", server.port()));
    command
        .env("KUBELET", asset("kubelet").unwrap())
        .env("LOOPBACK", installed("loopback", "containernetworking-plugins"));
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// Of the node's uplink.
fn address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = SERVER.octets();
    Ipv4Addr::new(a, b, c, 10 + number)
}

/// Without CAP_SYS_RESOURCE, as in a virtual machine's container, nobody may lower a process's score.
fn containerd(sandbox: &str) -> String {
    format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"{sandbox}\"\n  restrict_oom_score_adj = true\n"
    )
}

fn kubelet(server: &ApiServer, cgroup: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": server.authority()},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup, "failCgroupV1": false, "enforceNodeAllocatable": [],
        "failSwapOn": false, "oomScoreAdj": 0, "makeIPTablesUtilChains": false, "localStorageCapacityIsolation": false,
        "resolvConf": "",
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "memory.available": "1Mi"},
    })
}
