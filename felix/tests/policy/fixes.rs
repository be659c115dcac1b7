//! The fix that a story tells is one.

use crate::cluster::{Cluster, all_policies, isolations};
use crate::differential::{QUESTIONS, raw};
use crate::universe::{State, nodes_of, state};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use twill_felix::evaluate::{Explanation, Fix, Judgement, Party, RuleRef, Universe};
use twill_felix::model::{
    Action, Direction, NamespaceScope, Peer, Peers, Pod, PodSelector, Policy, PolicyKey, Port, Ports, Rule, Tier,
    namespace_labels,
};

fn universe(state: &State, policies: Vec<Policy>) -> Universe {
    let objects = raw(state);
    let namespaces =
        objects.namespaces.iter().map(|n| (n.metadata.name.clone().unwrap_or_default(), namespace_labels(n))).collect();
    Universe::of(objects.pods.iter().map(Pod::read), namespaces, policies, nodes_of(state))
}

/// All policies, those of NamespaceIsolations in known namespaces among them.
fn policies(state: &State) -> Vec<Policy> {
    let isolations = isolations(state);
    let of = |(name, raw): (&String, &_)| {
        let labels = namespace_labels(raw);
        let here = isolations.iter().filter(|one| one.selects(name, Some(&*labels)));
        here.map(|one| one.policy(name)).collect::<Vec<_>>()
    };
    all_policies(state).into_iter().chain(state.namespaces.iter().flat_map(of)).collect()
}

/// The policies after it; none if a person has to decide.
fn fixed(mut policies: Vec<Policy>, fix: &Fix) -> Option<Vec<Policy>> {
    let list = |policies: &mut Vec<Policy>, key: &PolicyKey, direction| {
        let policy =
            policies.iter().position(|policy| policy.key == *key).expect("the fix names a policy that is there");
        match direction {
            Direction::Ingress => std::mem::take(&mut policies[policy].ingress).map(|rules| (policy, rules)),
            Direction::Egress => std::mem::take(&mut policies[policy].egress).map(|rules| (policy, rules)),
        }
        .expect("the policy governs the direction")
    };
    let (direction, (policy, rules)) = match fix {
        Fix::AddPeer { rule: RuleRef { policy, direction, index, .. }, peer } => {
            let (at, mut rules) = list(&mut policies, policy, *direction);
            let Peers::Of(peers) = &mut rules[*index].peers else { panic!("the rule has everybody already") };
            peers.push(peer.clone());
            (direction, (at, rules))
        }
        Fix::AddPort { rule: RuleRef { policy, direction, index, .. }, port } => {
            let (at, mut rules) = list(&mut policies, policy, *direction);
            let Ports::Of(ports) = &mut rules[*index].ports else { panic!("the rule has all ports already") };
            ports.push(port.clone());
            (direction, (at, rules))
        }
        Fix::AddRule { policy, direction, peer, port } => {
            let (at, mut rules) = list(&mut policies, policy, *direction);
            rules.push(allowing(peer.clone(), port.clone()));
            (direction, (at, rules))
        }
        Fix::AddPolicy { namespace, subject, direction, peer, port } => {
            let key = PolicyKey { kind: "NetworkPolicy", namespace: namespace.clone(), name: "the fix".to_owned() };
            let subject = PodSelector { namespaces: NamespaceScope::Named(namespace.clone()), pods: subject.clone() };
            let [ingress, egress] =
                [Direction::Ingress, Direction::Egress].map(|own| (own == *direction).then(Vec::new));
            let tier = Tier::NetworkPolicy;
            policies.push(Policy { key, tier, priority: 0, subject, ingress, egress, problems: Vec::new() });
            (direction, (policies.len() - 1, vec![allowing(peer.clone(), port.clone())]))
        }
        Fix::ChangeRule(_) | Fix::Mend(_) => return None,
    };
    match direction {
        Direction::Ingress => policies[policy].ingress = Some(rules),
        Direction::Egress => policies[policy].egress = Some(rules),
    }
    Some(policies)
}

fn allowing(peer: Peer, port: Option<Port>) -> Rule {
    let ports = port.map_or(Ports::All, |port| Ports::Of(vec![port]));
    Rule { action: Action::Allow, peers: Peers::Of(vec![peer]), ports }
}

/// How many fixes were tried, and of these how many were policies more.
fn true_fixes(state: &State) -> Result<[usize; 2], TestCaseError> {
    let before = universe(state, policies(state));
    let mut tried = [0, 0];
    for (src, dst) in Cluster::of(state).pairs() {
        for (protocol, _, port) in QUESTIONS.into_iter().step_by(2) {
            let ask = |universe: &Universe| -> Explanation {
                universe
                    .explain(&Party::Address(src), &Party::Address(dst), port, protocol)
                    .expect("addresses are known")
            };
            let story = ask(&before);
            for (of, judgement) in [("egress", &story.egress), ("ingress", &story.ingress)] {
                let Judgement::Denied { fix, .. } = judgement else { continue };
                let fix = fix.as_ref().ok_or_else(|| TestCaseError::fail(format!("no fix for {of} of {story}")))?;
                let Some(policies) = fixed(policies(state), fix) else { continue };
                let after = ask(&universe(state, policies));
                let after_it = if of == "egress" { &after.egress } else { &after.ingress };
                prop_assert!(after_it.allows(), "{}: {} does not help: {}", of, fix, after);
                tried = [tried[0] + 1, tried[1] + usize::from(matches!(**fix, Fix::AddPolicy { .. }))];
            }
        }
    }
    Ok(tried)
}

#[test]
fn every_fix_that_is_told_lets_the_packet_go() {
    let config = Config { cases: 450, failure_persistence: None, ..Config::default() };
    let tried = std::cell::Cell::new([0, 0]);
    let test = |state: State| {
        let (new, all) = (true_fixes(&state)?, tried.get());
        tried.set([all[0] + new[0], all[1] + new[1]]);
        Ok(())
    };
    TestRunner::new(config).run(&state(true), test).unwrap_or_else(|error| panic!("{error}"));
    let [all, policies] = tried.get();
    assert!(all > 1000 && policies > 100, "only {all} fixes were tried, {policies} of them policies");
}
