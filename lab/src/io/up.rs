//! `twill lab up`: everything is checked before the first change, and taken down again after an error.

use crate::file::{self, Datastore, LabFile, Topology, overlap};
use crate::io::cluster::Cluster;
use crate::io::interrupt::Interrupted;
use crate::io::{cni, daemons, down, health, labs, manifests, netns, relay, routers, server, tenancy, underlay};
use crate::names;
use crate::nodes::{self, RACK_LABEL};
use crate::plan::{self, Plan};
use crate::resources::{self, Desired};
use crate::routers::caveat;
use crate::state::{Daemon, State, Store};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use twill_crds::manifest::Manifest;
use twill_crds::{BGPConfiguration, BGPPeer, IPPool, Object};

/// How long routers, then nodes may take to settle.
const SETTLE: Duration = Duration::from_secs(60);

/// What `up` built.
pub struct Built {
    /// The lab.
    pub cluster: Cluster,
    /// Sentences that a person should read.
    pub notes: Vec<String>,
    /// What does not work, one sentence each.
    pub problems: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Builds the lab of a file; `name` overrides the file's.
///
/// # Errors
/// One sentence; nothing is left behind.
pub fn up(path: &Path, name: Option<&str>) -> anyhow::Result<Built> {
    let began = Instant::now();
    labs::need_root("twill lab up")?;
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut file = file::parse(&text, &path.display().to_string())?;
    if let Some(name) = name {
        file::lab_name(name).context("--name")?;
        file.name = name.to_owned();
    }
    file::short_enough(&file).with_context(|| path.display().to_string())?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut documents = Vec::new();
    for (index, resource) in file.resources.iter().enumerate() {
        let read = manifests::read(&[base.join(resource)]);
        documents.extend(read.with_context(|| format!("{}: spec.resources[{index}]", path.display()))?);
    }
    let mut desired = resources::desired(documents)?;
    let mut notes = Vec::new();
    complete(&file, &mut desired, &mut notes)?;
    let names = file.racks.iter().flat_map(|r| r.nodes.iter().map(String::as_str)).collect::<Vec<_>>();
    nodes::check(&names, &desired.objects)?;
    let plan = plan::plan(&file, &nodes::asns(&file, &desired.objects)?);
    let caveats: BTreeSet<&str> = plan.routers().filter_map(|(_, speaker)| caveat(speaker?)).collect();
    notes.extend(caveats.into_iter().map(str::to_owned));
    cni::executable()?;
    let store = server::find(file.datastore, &file.name).with_context(|| path.display().to_string())?;
    routers::installed(&plan).with_context(|| path.display().to_string())?;
    let lock = labs::lock(&file.name)?;
    ensure!(
        !labs::exists(&file.name),
        "lab {} is there already; remove it with: twill lab down --name {0}, or choose another --name",
        file.name
    );
    let interrupted = Interrupted::watch(&file.name)?;
    let built = build(&plan, &file, &store, desired, &mut notes);
    let error = match (built, interrupted.came()) {
        (Ok((cluster, problems)), false) => return Ok(Built { cluster, notes, problems, took: began.elapsed() }),
        (Err(error), false) => error,
        (_, true) => anyhow::anyhow!("interrupted; lab {} is taken down", file.name),
    };
    down::down(&file.name).with_context(|| format!("{error:#}; besides"))?;
    labs::forget(&file.name, lock);
    Err(error)
}

/// Adds what the lab brings itself unless the resources do, and checks pools against racks.
fn complete(file: &LabFile, desired: &mut Desired, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let fabric = file.topology == Topology::Fabric;
    let has = |desired: &Desired, kind: &str| desired.objects.iter().any(|o| o.kind.kind == kind);
    if !has(desired, "BGPConfiguration") {
        let topology = format!("{:?}", file.topology);
        desired.objects.push(own::<BGPConfiguration>("default", json!({"topology": topology})));
    }
    if fabric && !has(desired, "BGPPeer") {
        for rack in &file.racks {
            for (index, (tor, name)) in rack.tors.iter().zip(rack.tor_names()).enumerate() {
                for gateway in rack.gateways(index) {
                    let family = if gateway.addr().is_ipv6() { names::V6 } else { "" };
                    let spec = json!({
                        "nodeSelector": {"matchLabels": {RACK_LABEL: rack.name}},
                        "remote": {"address": gateway.addr()},
                        "asn": tor.asn,
                    });
                    desired.objects.push(own::<BGPPeer>(&format!("{name}{family}"), spec));
                }
            }
        }
    }
    let ipip = underlay::kernel_has_ipip();
    if !has(desired, "IPPool") {
        let six = file.racks.iter().flat_map(|rack| &rack.subnets).all(|subnet| subnet.addr().is_ipv6());
        let (protocol, why) = match (six, ipip) {
            (true, _) => ("VXLAN", "IP-in-IP is of IPv4 only"),
            (_, true) => ("IPIP", "this kernel has it"),
            (_, false) => ("VXLAN", "this kernel has no IP-in-IP"),
        };
        // Addresses of IPv6 are hidden where somebody asks for it.
        let (cidr, nat) = if six { ("fd42::/48", false) } else { ("10.42.0.0/16", true) };
        let encapsulation = json!({"protocol": protocol, "when": "CrossSubnet"});
        let spec = json!({"cidr": cidr, "encapsulation": encapsulation, "natOutgoing": nat});
        desired.objects.push(own::<IPPool>("default", spec));
        let nat = if nat { ", natOutgoing" } else { "" };
        notes.push(format!("pool {cidr}, {protocol} across subnets ({why}){nat}"));
    }
    check_pools(file, desired, ipip)
}

fn own<K: Object>(name: &str, spec: Value) -> Manifest {
    let kind = K::kind();
    let value = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name}, "spec": spec});
    Manifest { kind, value, line: 0 }
}

fn check_pools(file: &LabFile, desired: &Desired, kernel_has_ipip: bool) -> anyhow::Result<()> {
    let mut pools: Vec<IPPool> = Vec::new();
    for object in desired.objects.iter().filter(|o| o.kind == IPPool::kind()) {
        let pool: IPPool = serde_json::from_value(object.value.clone()).with_context(|| resources::what(object))?;
        let cidr = pool.spec.cidr;
        for rack in &file.racks {
            if let Some(subnet) = rack.subnets.iter().find(|s| overlap(**s, cidr)) {
                bail!(
                    "IPPool {}: spec.cidr: {cidr} overlaps {subnet} of rack {}; choose another",
                    pool.name(),
                    rack.name
                );
            }
        }
        for transit in [file::TRANSIT_V4, file::TRANSIT_V6] {
            ensure!(
                !overlap(transit, cidr),
                "IPPool {}: spec.cidr: {cidr} overlaps {transit}, which the lab uses between routers; choose another",
                pool.name()
            );
        }
        check_kernel(&pool, kernel_has_ipip)?;
        twill_crds::validate::pools(&pools, &pool)?;
        pools.push(pool);
    }
    Ok(())
}

/// Refuses a pool whose packets this kernel cannot carry.
pub(super) fn check_kernel(pool: &IPPool, kernel_has_ipip: bool) -> anyhow::Result<()> {
    ensure!(
        kernel_has_ipip || pool.spec.encapsulation.protocol != twill_crds::Protocol::IPIP,
        "IPPool {}: spec.encapsulation.protocol: this kernel has no IP-in-IP; use VXLAN",
        pool.name()
    );
    Ok(())
}

fn build(
    plan: &Plan,
    file: &LabFile,
    store: &Store,
    mut desired: Desired,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Cluster, Vec<String>)> {
    let dir = names::lab_dir(&plan.lab);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let state = State::of(plan, file.topology == Topology::Fabric, store);
    labs::save(&state)?;
    server::start(file.datastore, &state)?;
    let mut cluster = Cluster::create(state)?;
    if file.datastore == Datastore::Kubernetes {
        tenancy::enter(&cluster)?;
    }
    netns::prepare()?;
    underlay::build(plan)?;
    for (machine, speaker) in plan.routers() {
        if let Some(speaker) = speaker {
            routers::start(&mut cluster.state, &machine.name, &machine.netns, speaker)?;
        }
    }
    // What every daemon shall see first is there before it starts: configuration and pools, then the nodes.
    let pods = std::mem::take(&mut desired.pods);
    let deployments_have_no_pods_yet = Desired { pods: Vec::new(), ..desired.clone() };
    cluster.put_namespaces(["default".to_owned()])?;
    cluster.put_nodes()?;
    notes.extend(cluster.apply(deployments_have_no_pods_yet)?);
    for (machine, speaker) in plan.routers() {
        if speaker.is_some() {
            routers::ready(&cluster.state, &machine.name, SETTLE)?;
        }
    }
    for node in cluster.state.nodes.clone() {
        relay::start(&cluster.state, &node.name)?;
        daemons::start(&mut cluster.state, &node.name, Daemon::Bgpd)?;
        daemons::start(&mut cluster.state, &node.name, Daemon::Felix)?;
    }
    labs::save(&cluster.state)?;
    for node in &cluster.state.nodes {
        for daemon in [Daemon::Bgpd, Daemon::Felix] {
            daemons::in_sync(&cluster.state, &node.name, daemon, SETTLE)?;
        }
    }
    cluster.decided(SETTLE)?;
    cluster.settled(SETTLE)?;
    notes.extend(cluster.apply(Desired { pods, ..Desired::default() })?);
    cluster.followed()?;
    let routes = cluster.routed(SETTLE)?;
    let problems = health::lasting(&cluster, routes);
    Ok((cluster, problems))
}
