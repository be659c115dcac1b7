//! Cases of the public policy suites on real kernels: in flow cases, out flow the differences between what the oracle says and what
//! the kernel does.
//!
//! One lab of two nodes serves a whole suite: each case begins by taking back what the one before has changed.

use super::cluster;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use twill_crds::{Object, Pod, manifest};
use twill_e2e::Lab;
use twill_lab::io::cluster::Cluster;
use twill_lab::io::kubelet::{host_network, node_name};
use twill_lab::io::labs;
use twill_lab::io::probe::addresses;
use twill_lab::io::prober::{self, Attempt, Outcome};
use twill_lab::names::pod_netns;
use twill_lab::ports::declared;
use twill_lab::resources;
use twill_policy_cases::{Case, Change, Probe, Protocol, Universe, World, resolve};
use twill_policy_oracle::{self as oracle, Endpoint, allowed};

/// How long silence is listened to where whatever may come has come.
const PATIENCE: Duration = Duration::from_millis(250);
/// The same where something that may come has not: the machine is busy, and then silence proves nothing.
const SECOND_PATIENCE: Duration = Duration::from_secs(15);

/// What a suite was like.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Connections that were to be opened and were.
    pub(crate) reached: usize,
    /// Connections that were not to be opened and were not.
    pub(crate) denied: usize,
    /// Cases in which something was tried.
    pub(crate) cases: usize,
    /// One sentence each.
    pub(crate) differences: Vec<String>,
}

/// A lab in which cases of one suite run.
pub(crate) struct Stage {
    lab: Lab,
    cluster: Cluster,
    /// What each case begins with.
    begin: World,
    /// What there is.
    world: World,
}

/// A connection to be tried.
struct Asked {
    probe: Probe,
    attempt: Attempt,
    /// Whether the oracle lets it be opened.
    may: bool,
    /// Whether others may answer in the place of the one that is asked: it is in its node's network.
    shared: bool,
}

/// Runs cases, as far as they are about these protocols, and tells how it went.
pub(crate) fn run(name: &str, cases: &[Case], protocols: &[Protocol]) -> Outcomes {
    let began = Instant::now();
    let mut stage = Stage::up(name, &Universe::of_all(cases));
    eprintln!("{name}: up in {:.1} s", began.elapsed().as_secs_f64());
    let mut outcomes = Outcomes::default();
    for case in cases {
        stage.play(case, protocols, &mut outcomes);
    }
    let Outcomes { reached, denied, cases, differences } = &outcomes;
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{name}: {cases} cases, {reached} reached, {denied} denied, {} differ, {seconds:.1} s",
        differences.len()
    );
    outcomes
}

impl Outcomes {
    /// Nothing differs, and so many cases have tried something, of which enough was to be reached and to be denied.
    pub(crate) fn hold(&self, cases: usize, each: usize) {
        let shown: Vec<&str> = self.differences.iter().take(40).map(String::as_str).collect();
        assert!(shown.is_empty(), "{} differ; the first:\n{}", self.differences.len(), shown.join("\n"));
        assert_eq!(self.cases, cases, "cases in which something was tried");
        assert!(self.reached > each && self.denied > each, "{} reached, {} denied", self.reached, self.denied);
    }
}

impl Stage {
    fn up(name: &str, universe: &Universe) -> Self {
        let objects = universe.nodes.iter().chain(&universe.namespaces).chain(&universe.pods);
        let resources: Vec<String> = objects.map(ToString::to_string).collect();
        let lab = "apiVersion: twill.network/v1
kind: Lab
metadata: {name: test}
spec:
  racks: [{name: r1, subnets: [172.31.1.0/24, 'fd31:1::/64'], nodes: [n1, n2]}]
  resources: [pools.yaml, universe.yaml]
";
        let pools = "
{apiVersion: twill.network/v1, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.42.0.0/16}}
---
{apiVersion: twill.network/v1, kind: IPPool, metadata: {name: v6}, spec: {cidr: 'fd42::/48'}}
";
        let files = [("pools.yaml", pools), ("universe.yaml", &resources.join("\n---\n"))];
        let lab = Lab::up(name, lab, &files).unwrap();
        let cluster = Cluster::open(labs::load(&lab.name).unwrap()).unwrap();
        let begin = World::new(universe);
        Self { lab, cluster, world: begin.clone(), begin }
    }

    /// Once for both families, or once for each where CIDRs depend on it.
    fn play(&mut self, case: &Case, protocols: &[Protocol], outcomes: &mut Outcomes) {
        let asked = |probe: &Probe| protocols.contains(&probe.protocol);
        if !case.steps.iter().flat_map(|step| &step.probes).any(asked) {
            return;
        }
        outcomes.cases += 1;
        let changes = case.steps.iter().flat_map(|step| &step.changes);
        let by_address = changes.into_iter().any(|c| matches!(c, Change::Apply(o) if resolve(o, &|_| None).is_err()));
        let passes: &[&[bool]] = if by_address { &[&[true], &[false]] } else { &[&[true, false]] };
        for families in passes {
            let back = self.world.changes_to(&self.begin);
            back.iter().for_each(|change| self.change(change, families[0]));
            for (i, step) in case.steps.iter().enumerate() {
                step.changes.iter().for_each(|change| self.change(change, families[0]));
                let probes: Vec<&Probe> = step.probes.iter().filter(|probe| asked(probe)).collect();
                let absent = self.cluster.followed().unwrap();
                assert!(absent.is_empty(), "{absent:?}");
                for difference in self.ask(&probes, families, outcomes) {
                    outcomes.differences.push(format!("{}, step {}: {difference}", case.name, i + 1));
                }
            }
        }
    }

    /// Pods come and go by `twill lab`, whose process their listeners are; the rest by the same functions in this one.
    fn change(&mut self, change: &Change, v4: bool) {
        let before = self.world.clone();
        self.world.apply(change);
        let object = match change {
            Change::Apply(object) => object,
            Change::Delete(reference) => before.object(reference).unwrap(),
            Change::Label(reference, _) => self.world.object(reference).unwrap(),
        };
        let object = self.resolved(object, v4).to_string();
        let manifests = manifest::parse(&object, "case").unwrap();
        match change {
            Change::Delete(reference) if reference.kind == "Pod" => drop(self.lab.delete(&object).unwrap()),
            Change::Delete(_) => assert_eq!(self.cluster.remove(manifests).unwrap(), Vec::<String>::new()),
            Change::Apply(pod) if pod["kind"] == "Pod" => drop(self.lab.apply(&object).unwrap()),
            _ => drop(self.cluster.apply(resources::desired(manifests).unwrap()).unwrap()),
        }
    }

    fn resolved(&self, object: &serde_json::Value, v4: bool) -> serde_json::Value {
        let pods: Vec<Pod> = self.cluster.list().unwrap();
        let address = |name: &str| {
            let pod = pods.iter().find(|pod| key(pod) == name)?;
            addresses(pod).into_iter().find(|a| a.is_ipv4() == v4)
        };
        resolve(object, &address).unwrap()
    }

    /// Tries every probe at once, by every family; says what differs.
    fn ask(&self, probes: &[&Probe], families: &[bool], outcomes: &mut Outcomes) -> Vec<String> {
        let objects = cluster(&self.cluster.state.datastore);
        let mut asked = Vec::new();
        for &v4 in families {
            let mut of_family: Vec<Asked> = probes.iter().map(|probe| self.asked(&objects, probe, v4)).collect();
            if !of_family.is_empty() && of_family.iter().all(|one| !one.may) {
                of_family.push(self.sound(&objects, v4));
            }
            asked.extend(of_family);
        }
        let mut differences = Vec::new();
        for (one, outcome) in asked.iter().zip(tried(&asked)) {
            let Asked { probe, may, .. } = one;
            if probe.reached.is_some_and(|said| said != *may) {
                differences.push(format!("{probe}: the oracle differs from the suite, and says {may}"));
            }
            match &outcome {
                Outcome::Answered(line) if *may && (one.shared || *line == Some(probe.to.clone())) => {
                    outcomes.reached += 1;
                }
                Outcome::Silence if !may => outcomes.denied += 1,
                other => {
                    let should = if *may { "reach" } else { "not reach" };
                    differences.push(format!("{probe} at {} should {should} it: {other:?}", one.attempt.to));
                }
            }
        }
        differences
    }

    fn asked(&self, objects: &oracle::Cluster, probe: &Probe, v4: bool) -> Asked {
        let pod = |name: &str| objects.pods.iter().find(|pod| key(pod) == name).unwrap();
        let address = |pod: &Pod| addresses(pod).into_iter().find(|a| a.is_ipv4() == v4).unwrap();
        let (from, to) = (pod(&probe.from), pod(&probe.to));
        Asked {
            may: word(objects, probe, address(from), address(to)),
            attempt: Attempt {
                netns: self.netns(from),
                to: SocketAddr::new(address(to), probe.port),
                protocol: probe.protocol.to_string().parse().unwrap(),
            },
            shared: host_network(to),
            probe: probe.clone(),
        }
    }

    /// Something that may arrive, for what may not to be silent beside.
    fn sound(&self, objects: &oracle::Cluster, v4: bool) -> Asked {
        let pairs = objects.pods.iter().flat_map(|from| objects.pods.iter().map(move |to| (from, to)));
        let probes = pairs.filter(|(from, to)| key(from) != key(to)).flat_map(|(from, to)| {
            let tcp = declared(to).into_iter().filter(|port| port.protocol == twill_lab::ports::Protocol::Tcp);
            let probe =
                move |port| Probe { from: key(from), to: key(to), protocol: Protocol::Tcp, port, reached: None };
            tcp.map(move |port| probe(port.port))
        });
        probes.map(|probe| self.asked(objects, &probe, v4)).find(|one| one.may).unwrap()
    }

    fn netns(&self, pod: &Pod) -> String {
        if host_network(pod) {
            return self.cluster.state.node(node_name(pod)).unwrap().netns.clone();
        }
        pod_netns(&self.lab.name, pod.namespace(), pod.name())
    }
}

/// What came of everything. Silence counts when whatever may arrive has arrived before it ended.
fn tried(asked: &[Asked]) -> Vec<Outcome> {
    let attempts: Vec<Attempt> = asked.iter().map(|one| one.attempt.clone()).collect();
    let mut outcomes = prober::probe(&attempts, PATIENCE).unwrap();
    // A connection whose answer has not come yet is late, too.
    let open = |outcome: &Outcome| matches!(outcome, Outcome::Silence | Outcome::Answered(None));
    let late: Vec<usize> = (0..asked.len()).filter(|i| open(&outcomes[*i])).collect();
    if late.iter().any(|i| asked[*i].may) {
        let again: Vec<Attempt> = late.iter().map(|i| attempts[*i].clone()).collect();
        for (i, outcome) in late.into_iter().zip(prober::probe(&again, SECOND_PATIENCE).unwrap()) {
            outcomes[i] = outcome;
        }
    }
    outcomes
}

fn word(objects: &oracle::Cluster, probe: &Probe, from: IpAddr, to: IpAddr) -> bool {
    let protocol = match probe.protocol {
        Protocol::Tcp => oracle::Protocol::Tcp,
        Protocol::Udp => oracle::Protocol::Udp,
        Protocol::Sctp => oracle::Protocol::Sctp,
    };
    allowed(objects, &Endpoint::Address(from), &Endpoint::Address(to), protocol, probe.port)
}

fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}
