//! HostPolicies beside everything else: whatever the sequence of plans and states, the ruleset is what a new compiler makes of the last of
//! each, and no plan changes what becomes of pods.

use crate::sequences::{Agent, perform, states};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use twill_felix::host::failsafe::{Facts, failsafes};
use twill_felix::host::{Plan, Program, Trial, sort};
use twill_felix::model::host_policy;

/// Peers from the alphabet of [`crate::universe`], so that sets are shared with policies of pods.
fn peers() -> impl Strategy<Value = Vec<Value>> {
    let one = prop_oneof![
        Just(json!({"nodes": {}})),
        Just(json!({"pods": {}})),
        Just(json!({"pods": {"podSelector": {"matchLabels": {"a": "x"}}}})),
        Just(json!({"cidrs": ["10.0.0.0/30", "10.0.0.8/30", "fd00::/126"]})),
    ];
    vec(one, 0..3)
}

fn rules(side: &'static str) -> impl Strategy<Value = Vec<Value>> {
    let ports = prop_oneof![
        Just(json!([])),
        Just(json!([{"port": 80}])),
        Just(json!([{"protocol": "ICMP"}, {"port": 1, "endPort": 9}]))
    ];
    let rule = (prop_oneof![Just("Accept"), Just("Deny")], peers(), ports);
    vec(rule.prop_map(move |(action, peers, ports)| json!({"action": action, side: peers, "ports": ports})), 0..3)
}

fn spec() -> impl Strategy<Value = Value> {
    let interfaces = prop_oneof![Just(json!([])), Just(json!(["eth0"])), Just(json!(["eth*", "bond0"]))];
    (interfaces, 0..3, rules("from"), rules("to"), 0..3_u8).prop_map(|(interfaces, priority, ingress, egress, closed)| {
        let (directions, ingress, egress) = match closed {
            0 => (json!(["Ingress"]), ingress, Vec::new()),
            1 => (json!(["Egress"]), Vec::new(), egress),
            _ => (json!(["Ingress", "Egress"]), ingress, egress),
        };
        json!({"interfaces": interfaces, "priority": priority, "directions": directions, "ingress": ingress, "egress": egress})
    })
}

fn program() -> impl Strategy<Value = Program> {
    vec(spec(), 0..3).prop_map(|specs| {
        let one = |(n, spec): (usize, Value)| {
            let raw = json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": format!("h{n}")}, "spec": spec});
            Arc::new(host_policy(&serde_json::from_value(raw).expect("a test's own policy")))
        };
        let mut program: Program = specs.into_iter().enumerate().map(one).collect();
        sort(&mut program);
        program
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    (program(), prop::option::of((0..3_u8, program())), any::<bool>()).prop_map(|(confirmed, trial, ssh)| Plan {
        confirmed,
        trial: trial.map(|(n, program)| Trial {
            gate: format!("host_trial_{n}"),
            program,
            within: Duration::from_secs(5),
        }),
        failsafes: failsafes(&Facts { listening: ssh.then_some(22).into_iter().collect(), ..Facts::default() }),
    })
}

#[test]
fn plans_for_the_host_leave_no_trace_of_the_road_that_led_to_them() {
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    let test = |(states, plans): (Vec<_>, Vec<Plan>)| {
        let mut agent = Agent::start(crate::cluster::SHARED);
        for (next, plan) in states.iter().zip(plans.iter().cycle()) {
            agent.steps(next, false).into_iter().for_each(|event| agent.compiler.apply(event));
            agent.compiler.plan_host(plan.clone());
            let delta = agent.compiler.commit();
            perform(&mut agent.kernel, &delta)?;
            agent.plan = plan.clone();
            agent.commit()?;
        }
        agent.compiler.plan_host(Plan::default());
        agent.plan = Plan::default();
        agent.commit()
    };
    TestRunner::new(config).run(&(states(), vec(plan(), 1..4)), test).unwrap_or_else(|error| panic!("{error}"));
}
