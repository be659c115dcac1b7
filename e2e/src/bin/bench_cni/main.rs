//! What attaching a pod costs: Twill's ADD beside that of the reference plugins (`ptp` with `host-local`), in one run on one node of a lab,
//! turn by turn, so that whatever else the machine does slows both.
//!
//! Measured is what a runtime waits for: from the start of the plugin's process to its end. Twill's pods are governed by a NetworkPolicy each way,
//! and are in the datastore before they are attached, as a kubelet has it; the reference knows neither. Namespaces are made before and DEL
//! comes after, unmeasured.

mod runtime;

use anyhow::{Context, ensure};
use clap::Parser;
use runtime::{Plugin, Sandbox};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;
use twill_crds::names::{CNI_CONFLIST, CNI_PLUGIN};
use twill_crds::{Object, Pod};
use twill_datastore::Datastore;
use twill_e2e::Lab;
use twill_lab::io::{cni, labs, netns};

#[derive(Parser)]
#[command(about = "ADD beside the reference plugins ptp and host-local: p50 and p99, alone and many at once")]
struct Args {
    /// ADDs of each, one after the other.
    #[arg(long, default_value_t = 100)]
    alone: usize,
    /// ADDs at once.
    #[arg(long, default_value_t = 50)]
    parallel: usize,
    /// How often so many at once, of each.
    #[arg(long, default_value_t = 4)]
    batches: usize,
    /// Pods that run on the node meanwhile.
    #[arg(long, default_value_t = 0)]
    running: usize,
    /// Directory of the reference plugins.
    #[arg(long, default_value = "/usr/lib/cni")]
    reference: PathBuf,
    /// Exit 1 if a median is more than so many times the reference's.
    #[arg(long)]
    limit: Option<f64>,
}

const LAB: &str = "apiVersion: twill.network/v1
kind: Lab
metadata: {name: bench}
spec:
  racks: [{name: r1, subnet: 172.31.1.0/24, nodes: [n1]}]
  resources: [pool.yaml, policy.yaml]
";

/// Blocks so large that no ADD waits for the next: addresses rest for a minute, and here pods come and go faster than anywhere.
const POOL: &str = "apiVersion: twill.network/v1
kind: IPPool
metadata: {name: bench}
spec: {cidr: 10.42.0.0/16, blockSize: 21, natOutgoing: true}
";

/// Each way something is allowed, so that lists and sets are there.
const POLICY: &str = "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: own}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: bench}}}], ports: [{port: 80}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: bench}}}]}, {ports: [{port: 53, protocol: UDP}]}]
";

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    for name in ["ptp", "host-local"] {
        let path = args.reference.join(name);
        ensure!(
            path.is_file(),
            "{} is missing: apt install containernetworking-plugins, or name --reference",
            path.display()
        );
    }
    let lab = Lab::up("cni", LAB, &[("pool.yaml", POOL), ("policy.yaml", POLICY)])?;
    let bench = Bench::new(&lab, &args)?;
    let mut pods = bench.pods(args.running + args.alone + args.parallel * args.batches)?.into_iter();
    let _running = bench.run(pods.by_ref().take(args.running).collect())?;
    let alone = bench.alone(pods.by_ref().take(args.alone).collect())?;
    let mut at_once = [Vec::new(), Vec::new()];
    for _ in 0..args.batches {
        let batch = bench.at_once(&pods.by_ref().take(args.parallel).collect::<Vec<_>>())?;
        at_once.iter_mut().zip(batch).for_each(|(all, more)| all.extend(more));
    }
    println!("| ADD, milliseconds | Twill p50 | p99 | ptp + host-local p50 | p99 | p50 ratio | p99 ratio |");
    println!("|---|---|---|---|---|---|---|");
    let ratios = [
        row(&format!("alone, {} each", args.alone), alone),
        row(&format!("{} at once, {} each", args.parallel, at_once[0].len()), at_once),
    ];
    if let Some(limit) = args.limit {
        ensure!(ratios.iter().all(|ratio| *ratio <= limit), "a median is more than {limit} times the reference's");
    }
    Ok(())
}

/// Prints what was measured; the ratio of the medians.
fn row(what: &str, mut measured: [Vec<Duration>; 2]) -> f64 {
    measured.iter_mut().for_each(|all| all.sort_unstable());
    let at = |all: &[Duration], share: f64| {
        let place = (all.len() as f64 * share).ceil() as usize;
        all.get(place.saturating_sub(1)).map_or(f64::NAN, |one| one.as_secs_f64() * 1000.0)
    };
    let [[own, own_late], [other, other_late]] = measured.each_ref().map(|all| [at(all, 0.5), at(all, 0.99)]);
    let (middle, late) = (own / other, own_late / other_late);
    println!("| {what} | {own:.1} | {own_late:.1} | {other:.1} | {other_late:.1} | {middle:.2} | {late:.2} |");
    middle
}

struct Bench {
    /// The node's network namespace.
    node: String,
    datastore: String,
    /// Twill's, and the reference.
    plugins: [Plugin; 2],
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(lab: &Lab, args: &Args) -> anyhow::Result<Self> {
        let state = labs::load(&lab.name)?;
        let machine = state.machine_dir("n1");
        let directory = tempfile::tempdir()?;
        let own = Plugin::of_list(&cni::bin_dir(&machine).join(CNI_PLUGIN), &machine.join(CNI_CONFLIST))?;
        let reference = Plugin {
            executable: args.reference.join("ptp"),
            config: json!({
                "cniVersion": "1.0.0", "name": "reference", "type": "ptp",
                "ipam": {
                    "type": "host-local", "dataDir": directory.path(),
                    "ranges": [[{"subnet": "10.99.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            }),
        };
        Ok(Self {
            node: state.node("n1")?.netns.clone(),
            datastore: state.datastore.clone(),
            plugins: [own, reference],
            _directory: directory,
        })
    }

    /// Pods of this node that nobody has attached yet.
    fn pods(&self, count: usize) -> anyhow::Result<Vec<Pod>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let datastore = Datastore::open(&self.datastore).await?;
            let mut pods = Vec::with_capacity(count);
            for n in 0..count {
                let pod: Pod = serde_json::from_value(json!({
                    "apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": "default", "name": format!("bench-{n}"), "labels": {"app": "bench"}},
                    "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]},
                }))?;
                pods.push(datastore.create(&pod).await.with_context(|| format!("Pod {}", pod.name()))?);
            }
            Ok(pods)
        })
    }

    /// Attaches pods by Twill and leaves them there.
    fn run(&self, pods: Vec<Pod>) -> anyhow::Result<Vec<Sandbox>> {
        let add = |pod: &Pod| {
            let sandbox = Sandbox::new(pod)?;
            self.plugins[0].add(&sandbox)?;
            Ok(sandbox)
        };
        netns::inside(&self.node, || pods.iter().map(add).collect())
    }

    /// One after the other, each pod by both in turn.
    fn alone(&self, pods: Vec<Pod>) -> anyhow::Result<[Vec<Duration>; 2]> {
        let mut measured = [Vec::new(), Vec::new()];
        netns::inside(&self.node, || {
            for pod in &pods {
                for (plugin, all) in self.plugins.iter().zip(&mut measured) {
                    let sandbox = Sandbox::new(pod)?;
                    all.push(plugin.add(&sandbox)?);
                    plugin.del(&sandbox)?;
                }
            }
            Ok(())
        })?;
        Ok(measured)
    }

    /// All at once, by one and then by the other.
    fn at_once(&self, pods: &[Pod]) -> anyhow::Result<[Vec<Duration>; 2]> {
        let mut measured = [Vec::new(), Vec::new()];
        for (plugin, all) in self.plugins.iter().zip(&mut measured) {
            let sandboxes = pods.iter().map(Sandbox::new).collect::<anyhow::Result<Vec<_>>>()?;
            let start = Barrier::new(sandboxes.len());
            let add = |sandbox: &Sandbox| {
                netns::inside(&self.node, || {
                    start.wait();
                    plugin.add(sandbox)
                })
            };
            let took = std::thread::scope(|scope| {
                let threads: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(move || add(sandbox))).collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<Duration>>| {
                    thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?
                };
                threads.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()
            })?;
            all.extend(took);
            netns::inside(&self.node, || sandboxes.iter().try_for_each(|sandbox| plugin.del(sandbox)))?;
        }
        Ok(measured)
    }
}

impl Plugin {
    /// The first plugin of a network configuration list, as a runtime reads it.
    fn of_list(executable: &Path, list: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(list).with_context(|| list.display().to_string())?;
        let mut list: serde_json::Value = serde_json::from_str(&text)?;
        let mut config = list["plugins"][0].take();
        config["name"] = list["name"].take();
        config["cniVersion"] = list["cniVersion"].take();
        Ok(Self { executable: executable.to_owned(), config })
    }
}
