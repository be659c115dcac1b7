//! Who peers with whom: what is asked for, nodes and what they say in; decisions out.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use support::{applied, cluster_wide, deleted, now, object, synced};
use twill_controller::{Action, Controller, Fact, Written};
use twill_crds::topology::{Retiring, Sessions};
use twill_crds::{BGPConfiguration, Node, NodeNetwork};

/// A node as tests change it.
#[derive(Clone, Default)]
struct Machine {
    labels: Value,
    spec: Value,
    ready: Option<&'static str>,
    drained: bool,
    /// It says that it has all its routes as soon as it hears of a decision.
    prompt: bool,
    step: Option<u32>,
    reflects: bool,
    uninstall: bool,
}

struct World {
    controller: Controller,
    at: u64,
    configuration: Option<BGPConfiguration>,
    machines: BTreeMap<String, Machine>,
    /// Every decision that was written.
    decisions: Vec<Sessions>,
}

fn name(n: usize) -> String {
    format!("n{n:03}")
}

impl World {
    /// So many nodes, one after the other in zones a, b and c.
    fn new(spec: Option<Value>, nodes: usize) -> Self {
        let mut controller = Controller::new(Duration::from_secs(900));
        synced(&mut controller);
        let (machines, decisions) = (BTreeMap::new(), Vec::new());
        let mut world = Self { controller, at: 0, configuration: None, machines, decisions };
        if let Some(spec) = spec {
            world.ask(spec);
        }
        (0..nodes).for_each(|n| world.add(n));
        world
    }

    fn add(&mut self, n: usize) {
        let zone = ["a", "b", "c"][n % 3];
        let labels =
            json!({"topology.kubernetes.io/zone": zone, "topology.kubernetes.io/rack": format!("{zone}{}", n / 3 % 2)});
        let machine = Machine { labels, spec: json!({}), prompt: true, ..Machine::default() };
        self.machines.insert(name(n), machine);
        self.tell(n);
    }

    fn change(&mut self, n: usize, change: impl Fn(&mut Machine)) {
        change(self.machines.get_mut(&name(n)).unwrap());
        self.tell(n);
    }

    fn remove(&mut self, n: usize) {
        self.machines.remove(&name(n));
        self.controller.hear(Fact::node(deleted(object::<Node>(json!({"metadata": {"name": name(n)}})))));
    }

    fn ask(&mut self, spec: Value) {
        let mut asked: BGPConfiguration = cluster_wide("default", 1, spec);
        asked.status = self.configuration.take().and_then(|before| before.status);
        self.configuration = Some(asked.clone());
        self.controller.hear(Fact::Configuration(applied(asked)));
    }

    fn tell(&mut self, n: usize) {
        let (name, machine) = (name(n), &self.machines[&name(n)]);
        let conditions = machine.ready.map(|status| json!([{"type": "Ready", "status": status}]));
        let node: Node = object(json!({
            "metadata": {"name": name, "uid": name, "labels": machine.labels}, "spec": machine.spec, "status": {"conditions": conditions},
        }));
        let network: NodeNetwork = object(json!({
            "metadata": {"name": name, "uid": name}, "spec": {"drain": machine.drained, "uninstall": machine.uninstall},
            "status": {"bgp": {"addresses": [format!("172.31.{}.{}", n / 200, n % 200 + 1)], "asn": 64512, "step": machine.step,
                "reflects": machine.reflects}},
        }));
        self.controller.hear(Fact::node(applied(node)));
        self.controller.hear(Fact::Network(applied(network)));
    }

    /// Time passes, and everything is done that follows.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.at += 1_000;
            for action in self.controller.plan(now(self.at)) {
                match action {
                    Action::Configure => self.ask(json!({})),
                    Action::Write(Written::Configuration(written), _) => self.stored(*written),
                    Action::Look { node } => self.controller.looked(&node, Some(Vec::new()), self.at),
                    _ => {}
                }
            }
        }
    }

    fn stored(&mut self, written: BGPConfiguration) {
        self.controller.hear(Fact::Configuration(applied(written.clone())));
        let sessions = written.status.clone().unwrap().sessions.unwrap();
        self.configuration = Some(written);
        if self.decisions.last() != Some(&sessions) {
            self.decisions.push(sessions.clone());
        }
        let prompt: Vec<usize> =
            self.machines.iter().filter(|(_, m)| m.prompt).map(|(name, _)| name[1..].parse().unwrap()).collect();
        for n in prompt {
            let reflects = sessions.reflects(&name(n));
            self.change(n, |machine| (machine.step, machine.reflects) = (Some(sessions.step), reflects));
        }
    }

    /// Somebody deletes the configuration.
    fn forget(&mut self) {
        let configuration = self.configuration.take().unwrap();
        self.controller.hear(Fact::Configuration(deleted(configuration)));
    }

    fn sessions(&self) -> Sessions {
        self.configuration.as_ref().unwrap().status.clone().unwrap().sessions.unwrap()
    }

    /// `topology: reflectors`, and what retires.
    fn shown(&self) -> String {
        let Sessions { topology, route_reflectors, retiring, .. } = self.sessions();
        let retiring = retiring.map(|Retiring { mesh, route_reflectors }| {
            format!("; retiring {}{}", if mesh { "mesh" } else { "" }, route_reflectors.join(" "))
        });
        format!("{topology:?} {}{}", route_reflectors.join(" "), retiring.unwrap_or_default())
    }

    /// Reason and message of `Converged`.
    fn converged(&self) -> (String, String) {
        let conditions = self.configuration.clone().unwrap().status.unwrap().conditions;
        let found = conditions.into_iter().find(|condition| condition.type_ == "Converged").unwrap();
        (found.reason, found.message)
    }
}

#[test]
fn reflectors_are_spread_over_zones_and_stay() {
    let mut world = World::new(Some(json!({"topology": "RouteReflector"})), 9);
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002");
    for n in 9..40 {
        world.add(n);
    }
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002", "who reflects goes on");
    // Whatever says that a node is about to go.
    let going: [fn(&mut Machine); 4] = [
        |machine| machine.spec = json!({"unschedulable": true}),
        |machine| machine.ready = Some("False"),
        |machine| machine.drained = true,
        |machine| machine.spec = json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}),
    ];
    for (n, goes) in going.into_iter().enumerate() {
        world.change(1 + n * 3, goes);
        world.pass(20);
        assert_eq!(world.shown(), format!("RouteReflector n000 n002 {}", name(4 + n * 3)), "another one of zone b");
    }
    world.change(1, |machine| machine.spec = json!({}));
    world.pass(20);
    assert!(!world.sessions().reflects("n001"), "nobody gives way to one that is back");
    world.remove(0);
    world.pass(20);
    assert!(world.shown().starts_with("RouteReflector n002 n003 "), "{}", world.shown());
}

#[test]
fn all_in_one_zone_is_mended_as_soon_as_there_is_another() {
    let mut world = World::new(Some(json!({"topology": "RouteReflector"})), 0);
    for n in [0, 3, 6, 9] {
        world.add(n);
    }
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n003 n006", "two racks, one zone");
    world.add(1);
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n003");
}

#[test]
fn workers_go_before_the_control_plane_and_a_selector_before_all() {
    let control_plane = |machine: &mut Machine| machine.labels["node-role.kubernetes.io/control-plane"] = json!("");
    let mut world = World::new(Some(json!({"topology": "RouteReflector", "routeReflectors": {"count": 2}})), 4);
    for n in [0, 1, 2] {
        world.change(n, control_plane);
    }
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n001 n003", "zones count more");
    let selector = json!({"matchLabels": {"role": "reflector"}});
    let spec = json!({"topology": "RouteReflector", "routeReflectors": {"nodeSelector": selector}});
    world.ask(spec);
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n001 n003", "with nobody selected all stays");
    let (reason, message) = world.converged();
    assert!(reason == "NoReflector" && message.starts_with("spec.routeReflectors.nodeSelector: "), "{message}");
    world.change(2, |machine| machine.labels["role"] = json!("reflector"));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n002");
}

#[test]
fn a_mesh_is_there_until_every_node_can_do_without() {
    let mut world = World::new(Some(json!({"topology": "Mesh"})), 6);
    world.pass(20);
    assert_eq!(world.shown(), "Mesh ");
    for n in [3, 4, 5] {
        world.change(n, |machine| machine.prompt = false);
    }
    world.ask(json!({"topology": "RouteReflector"}));
    world.pass(60);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002; retiring mesh");
    let (reason, message) = world.converged();
    let expected = "sessions of before are kept, since n003, n004, n005 still need them; twill status says why there, and twill drain NODE that \
                    it is not to be waited for";
    assert_eq!((reason.as_str(), message.as_str()), ("Retiring", expected));
    let step = world.sessions().step;
    // One does not answer, one is drained: nobody waits for them. One says so of an older decision.
    world.change(3, |machine| machine.ready = Some("Unknown"));
    world.change(4, |machine| machine.drained = true);
    world.change(5, |machine| machine.step = Some(step - 1));
    world.pass(60);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002; retiring mesh");
    world.change(5, |machine| machine.step = Some(step));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002");

    // And back, with a change of mind on the way.
    world.change(5, |machine| machine.prompt = false);
    world.ask(json!({"topology": "Mesh"}));
    world.pass(20);
    assert_eq!(world.shown(), "Mesh ; retiring n000 n001 n002");
    world.ask(json!({"topology": "RouteReflector"}));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002; retiring mesh", "who has both needs one of them");
    world.change(5, |machine| machine.step = Some(step + 2));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002");
}

#[test]
fn auto_is_a_mesh_up_to_110_nodes_and_again_at_80() {
    let mut world = World::new(None, 110);
    world.pass(20);
    assert!(world.configuration.is_none(), "a small cluster needs no object");
    world.add(110);
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002");
    assert_eq!(world.decisions[0].retiring, Some(Retiring { mesh: true, route_reflectors: Vec::new() }));
    for n in (81..111).rev() {
        world.remove(n);
    }
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002", "81 nodes");
    world.remove(80);
    world.pass(20);
    assert_eq!(world.shown(), "Mesh ");
    for n in 80..110 {
        world.add(n);
    }
    world.pass(20);
    assert_eq!(world.shown(), "Mesh ", "110 nodes");
}

#[test]
fn a_deleted_configuration_takes_no_session_away() {
    let mut world = World::new(Some(json!({"topology": "RouteReflector"})), 6);
    world.pass(20);
    // Others than would be chosen now: what is followed counts, not what would be.
    world.change(0, |machine| machine.spec = json!({"unschedulable": true}));
    world.pass(20);
    world.change(0, |machine| machine.spec = json!({}));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n001 n002 n003");
    let step = world.sessions().step;
    (0..6).for_each(|n| world.change(n, |machine| machine.prompt = false));

    // Another object without its status, as a person has it in a file.
    world.forget();
    world.ask(json!({"topology": "RouteReflector"}));
    world.pass(3);
    assert_eq!(world.shown(), "RouteReflector n001 n002 n003");
    assert!(world.sessions().step > step, "what was confirmed is no answer to it");

    // None: a small cluster is a mesh, and who reflects goes on until every node can do without.
    world.forget();
    world.pass(3);
    assert_eq!(world.shown(), "Mesh ; retiring n001 n002 n003");
}

#[test]
fn what_twill_uninstall_deletes_stays_deleted() {
    for nodes in [6, 120] {
        let mut world = World::new(Some(json!({"topology": "RouteReflector"})), nodes);
        world.pass(20);
        world.forget();
        world.pass(1);
        assert!(world.configuration.is_some(), "a decision stands: it is made again within a second");
        (0..nodes).for_each(|n| world.change(n, |machine| machine.uninstall = true));
        world.forget();
        world.pass(3);
        assert!(world.configuration.is_none(), "{nodes} nodes that uninstall");
        for n in 0..nodes {
            let network: NodeNetwork = object(json!({"metadata": {"name": name(n)}, "spec": {}}));
            world.controller.hear(Fact::Network(deleted(network)));
        }
        world.pass(3);
        assert!(world.configuration.is_none(), "{nodes} nodes that have uninstalled");
    }
}

#[test]
fn of_most_nodes_nothing_is_heard_and_nothing_is_changed() {
    let mut world = World::new(Some(json!({"topology": "RouteReflector"})), 9);
    world.pass(20);
    for n in 0..5 {
        world.change(n, |machine| machine.ready = Some("Unknown"));
    }
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002");
    world.change(4, |machine| machine.ready = Some("True"));
    world.change(3, |machine| machine.ready = Some("True"));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n003 n004 n005");
}

#[test]
fn reflectors_need_one_as_and_a_fabric_none() {
    let label = json!({"nodeLabel": "example.org/asn"});
    let mut world = World::new(Some(json!({"topology": "RouteReflector", "asn": label})), 4);
    world.pass(20);
    assert_eq!((world.shown().as_str(), world.converged().0.as_str()), ("Mesh ", "SeveralASNs"));
    let mut large = World::new(Some(json!({"asn": label})), 200);
    large.pass(20);
    assert_eq!((large.shown().as_str(), large.converged().0.as_str()), ("Mesh ", "Mesh"));
    world.ask(json!({"topology": "Fabric"}));
    world.pass(20);
    assert_eq!(world.shown(), "Fabric ");
    world.ask(json!({"topology": "RouteReflector"}));
    world.pass(20);
    assert_eq!(world.shown(), "RouteReflector n000 n001 n002");
    assert_eq!(world.decisions.last().unwrap().retiring, None, "a fabric has no sessions between nodes");
}

#[derive(Clone, Debug)]
enum Op {
    Ask(&'static str),
    Cordon(usize),
    Back(usize),
    Drain(usize),
    Silence(usize),
    /// It says that it can do without what retires, as of now.
    Say(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        prop_oneof![Just("Mesh"), Just("RouteReflector"), Just("Auto")].prop_map(Op::Ask),
        (0..8usize).prop_map(Op::Cordon),
        (0..8usize).prop_map(Op::Back),
        (0..8usize).prop_map(Op::Drain),
        (0..8usize).prop_map(Op::Silence),
        (0..8usize).prop_map(Op::Say),
        (0..8usize).prop_map(Op::Say),
        (1..9u64).prop_map(Op::Pass),
    ]
}

/// Whether every pair of nodes that had a way has one: in a mesh all, else by whoever reflects.
fn ways(sessions: &Sessions) -> (bool, BTreeSet<String>) {
    (sessions.is_meshed(), sessions.reflectors().map(str::to_owned).collect())
}

proptest! {
    #[test]
    fn nothing_goes_before_every_node_that_is_there_has_said_so(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new(Some(json!({"topology": "Mesh"})), 8);
        (0..8).for_each(|n| world.change(n, |machine| machine.prompt = false));
        world.pass(2);
        for op in ops {
            match op {
                Op::Ask(topology) => world.ask(json!({"topology": topology})),
                Op::Cordon(n) => world.change(n, |machine| machine.spec = json!({"unschedulable": true})),
                Op::Back(n) => world.change(n, |machine| {
                    (machine.spec, machine.ready, machine.drained) = (json!({}), None, false);
                }),
                Op::Drain(n) => world.change(n, |machine| machine.drained = true),
                Op::Silence(n) => world.change(n, |machine| machine.ready = Some("Unknown")),
                Op::Say(n) => {
                    let step = world.sessions().step;
                    world.change(n, |machine| machine.step = Some(step));
                }
                Op::Pass(seconds) => {
                    for _ in 0..seconds {
                        let before = world.sessions();
                        world.pass(1);
                        let after = world.sessions();
                        let ((mesh, reflectors), (mesh_now, reflectors_now)) = (ways(&before), ways(&after));
                        let lost = mesh && !mesh_now || !reflectors.is_subset(&reflectors_now);
                        let awaited = world.machines.values().filter(|m| !m.drained && m.ready != Some("Unknown"));
                        let mut all = awaited.map(|machine| machine.step);
                        prop_assert!(!lost || all.all(|step| step == Some(after.step)), "{before:?} {after:?}");
                        prop_assert!(after.step >= before.step);
                        prop_assert!(mesh_now || !after.route_reflectors.is_empty());
                    }
                }
            }
        }
    }
}
