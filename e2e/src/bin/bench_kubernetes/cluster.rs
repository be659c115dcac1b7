//! The control plane, with what `deploy/twill.yaml` puts there; nodes reach it with the token of a pod of their own, as daemons do.

use super::objects;
use super::relay::Relay;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;
use twill_control_plane::ApiServer;
use twill_crds::{IPPool, Pod};
use twill_datastore::Datastore;
use twill_e2e::{repository, succeeded};
use twill_ipam::Pool;

const NAMESPACE: &str = "twill-system";
/// What Twill's daemons ask for; the server asks itself for more.
const OURS: [&str; 10] = [
    "pods",
    "namespaces",
    "networkpolicies",
    "nodes",
    "ippools",
    "ipblocks",
    "nodenetworks",
    "bgpconfigurations",
    "bgppeers",
    "events",
];

/// The ways of a node's two daemons to the server.
pub(crate) struct Ways {
    pub(crate) felix: Relay,
    pub(crate) felix_kubeconfig: PathBuf,
    pub(crate) bgpd: Relay,
    pub(crate) bgpd_kubeconfig: PathBuf,
}

/// Requests by verb and resource: those that were answered, and the watches that are open.
pub(crate) type Requests = BTreeMap<(String, String), u64>;

/// What two processes have used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Seconds of processor.
    pub(crate) api_server: f64,
    /// Seconds of processor.
    pub(crate) etcd: f64,
}

/// The control plane.
pub(crate) struct Cluster {
    server: ApiServer,
    address: SocketAddr,
    processes: [u32; 2],
    relays: Handle,
}

impl Cluster {
    /// Starts it. The programs end with this thread.
    pub(crate) fn start(relays: Handle) -> anyhow::Result<Self> {
        let mut server = ApiServer::start()?;
        let manifest = fs::read_to_string(repository().join("deploy/twill.yaml"))?;
        server.apply(&manifest)?;
        succeeded(server.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?)?;
        let address = server.url().trim_start_matches("https://").parse().context("the server's address")?;
        let etcd = server.etcd().pid().context("etcd has ended")?;
        let processes = [server.pid().context("the API server has ended")?, etcd];
        Ok(Self { server, address, processes, relays })
    }

    /// Who may do everything, on a way that is not counted.
    pub(crate) async fn admin(&self) -> anyhow::Result<Datastore> {
        let url = format!("kubernetes:{}", self.server.kubeconfig().display());
        Ok(Datastore::open_existing_as(&url, "bench").await?)
    }

    /// Puts there what is there before any node: namespaces, a policy in each, a pool, two routers.
    pub(crate) async fn seed(&self, admin: &Datastore) -> anyhow::Result<Pool> {
        for number in 0..objects::NAMESPACES {
            admin.create(&objects::a_namespace(number)?).await?;
            admin.create(&objects::a_policy(number)?).await?;
        }
        let spec = json!({"cidr": "10.42.0.0/16"});
        let pool: IPPool = serde_json::from_value(json!({"metadata": {"name": "pods"}, "spec": spec}))?;
        let pool = admin.create(&pool).await?;
        let fabric = json!({"metadata": {"name": "default"}, "spec": {"topology": "Fabric"}});
        admin.create(&serde_json::from_value::<twill_crds::BGPConfiguration>(fabric)?).await?;
        for (router, address) in [("tor-1", "10.127.0.1"), ("tor-2", "10.127.0.2")] {
            let spec = json!({"remote": {"address": address}, "asn": 64512});
            let peer = json!({"metadata": {"name": router}, "spec": spec});
            admin.create(&serde_json::from_value::<twill_crds::BGPPeer>(peer)?).await?;
        }
        Ok(Pool { name: "pods".to_owned(), cidr: pool.spec.cidr, block_len: pool.spec.block_prefix_len() })
    }

    /// Registers a node with its DaemonSet's pod and gives it two ways here, with a token that is bound to that pod.
    pub(crate) async fn register(&self, admin: &Datastore, number: usize) -> anyhow::Result<Ways> {
        let node = objects::node_name(number);
        admin.create(&objects::a_node(number)?).await?;
        let name = format!("twill-node-{node}");
        let spec = json!({"nodeName": node, "serviceAccountName": "twill-node", "hostNetwork": true, "containers": [{"name": "felix", "image": "twill"}]});
        let pod = json!({"metadata": {"namespace": NAMESPACE, "name": name}, "spec": spec});
        admin.create(&serde_json::from_value::<Pod>(pod)?).await?;
        let token = [
            "--namespace",
            NAMESPACE,
            "create",
            "token",
            "twill-node",
            "--duration=4h",
            "--bound-object-kind=Pod",
            "--bound-object-name",
            &name,
        ];
        let token = succeeded(self.server.kubectl(&token)?)?;
        let (felix, felix_kubeconfig) = self.way(&format!("{node}-felix"), token.trim()).await?;
        let (bgpd, bgpd_kubeconfig) = self.way(&format!("{node}-bgpd"), token.trim()).await?;
        Ok(Ways { felix, felix_kubeconfig, bgpd, bgpd_kubeconfig })
    }

    async fn way(&self, name: &str, token: &str) -> anyhow::Result<(Relay, PathBuf)> {
        let relay = self.relays.spawn(Relay::start(self.address)).await??;
        let mut config: Value = serde_json::from_slice(&fs::read(self.server.kubeconfig())?)?;
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{}", relay.port));
        config["users"][0]["user"] = json!({"token": token});
        let path = self.server.directory().join(format!("{name}.kubeconfig"));
        fs::write(&path, config.to_string())?;
        Ok((relay, path))
    }

    /// What it has been asked of the kinds that Twill follows.
    pub(crate) fn requests(&self) -> anyhow::Result<Requests> {
        let text = succeeded(self.server.kubectl(&["get", "--raw", "/metrics"])?)?;
        let mut requests = Requests::new();
        // A watch is counted as answered when it has ended.
        let counted = text.lines().filter(|line| {
            line.starts_with("apiserver_request_total{")
                || line.starts_with("apiserver_longrunning_requests{") && line.contains("verb=\"WATCH\"")
        });
        for line in counted {
            let (verb, resource) = (label(line, "verb"), label(line, "resource"));
            if OURS.contains(&resource.as_str()) {
                let count: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
                *requests.entry((verb, resource)).or_default() += count as u64;
            }
        }
        ensure!(!requests.is_empty(), "the API server's metrics name no request");
        Ok(requests)
    }

    /// Seconds of processor so far.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        let [api_server, etcd] = self.processes;
        Ok(Used { api_server: cpu_seconds(api_server)?, etcd: cpu_seconds(etcd)? })
    }

    /// MiB that API server and etcd have in memory.
    pub(crate) fn resident(&self) -> anyhow::Result<[f64; 2]> {
        let [api_server, etcd] = self.processes;
        Ok([resident_mib(api_server)?, resident_mib(etcd)?])
    }
}

/// What came between.
pub(crate) fn since(after: &Requests, before: &Requests) -> Requests {
    let more = |(key, count): (&(String, String), &u64)| {
        let new = count.saturating_sub(before.get(key).copied().unwrap_or_default());
        (new > 0).then(|| (key.clone(), new))
    };
    after.iter().filter_map(more).collect()
}

fn label(line: &str, name: &str) -> String {
    let rest = line.split_once(&format!("{name}=\"")).map(|(_, rest)| rest);
    // `verb="` is no part of another label's name here, `resource="` is of `subresource="`.
    let rest = match (name, rest) {
        ("resource", _) => {
            line.split_once(",resource=\"").or_else(|| line.split_once("{resource=\"")).map(|(_, rest)| rest)
        }
        (_, rest) => rest,
    };
    rest.and_then(|rest| rest.split_once('"')).map(|(value, _)| value.to_owned()).unwrap_or_default()
}

fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 =
        fields.get(11).context("no utime")?.parse::<f64>()? + fields.get(12).context("no stime")?.parse::<f64>()?;
    Ok(ticks / 100.0)
}

fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
