//! What a change opens and closes is exactly where two stories differ.

use crate::cluster::Cluster;
use crate::differential::{QUESTIONS, stories};
use crate::universe::{State, state};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::net::IpAddr;
use twill_felix::evaluate::{Diff, Explanation, Party, Side, Universe, diff};
use twill_felix::model::Protocol;

/// Whether policy has no say between these, at any moment.
fn is_beyond_policy(story: &Explanation) -> bool {
    match (&story.src, &story.dst) {
        (Side::Pod { pod: a, .. }, Side::Pod { pod: b, .. }) => a.key == b.key,
        (Side::Node { node, .. }, Side::Pod { pod, .. }) => *node == pod.node,
        _ => false,
    }
}

fn told(universe: &Universe, src: IpAddr, dst: IpAddr, port: u16, protocol: Protocol) -> Explanation {
    universe.explain(&Party::Address(src), &Party::Address(dst), port, protocol).expect("addresses are never unknown")
}

fn exact(before: &State, after: &State) -> Result<Diff, TestCaseError> {
    let pairs = Cluster::of(before).pairs();
    let (before, after) = (stories(before), stories(after));
    let found = diff(&before, &after);
    let more = [1, 79, 82, 9001, 65535].map(|port| (Protocol::TCP, port));
    let questions: Vec<_> = QUESTIONS.iter().map(|(protocol, _, port)| (*protocol, *port)).chain(more).collect();
    for (src, dst) in pairs {
        for (protocol, port) in &questions {
            let (old, new) = (told(&before, src, dst, *port, *protocol), told(&after, src, dst, *port, *protocol));
            if is_beyond_policy(&old) {
                prop_assert_eq!(old.allowed, new.allowed);
                continue;
            }
            let opens = found.of(src, dst, *port, *protocol).map(|change| change.opens);
            let expected = (old.allowed != new.allowed).then_some(new.allowed);
            prop_assert_eq!(opens, expected, "before {}\nafter {}\n{:#?}", old, new, found.changes);
        }
    }
    Ok(found)
}

#[test]
fn a_diff_is_exactly_where_the_verdicts_of_two_random_clusters_differ() {
    let config = Config { cases: 900, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let (found, both) = (std::cell::Cell::new(0), (state(true), state(true), any::<bool>()));
    let test = |(one, other, relabelled): (State, State, bool)| {
        let after = State {
            policies: other.policies,
            cluster_policies: other.cluster_policies,
            namespaces: if relabelled { other.namespaces } else { one.namespaces.clone() },
            ..one.clone()
        };
        found.set(found.get() + usize::from(!exact(&one, &after)?.changes.is_empty()));
        Ok(())
    };
    TestRunner::new(config).run(&both, test).unwrap_or_else(|error| panic!("{error}"));
    assert!(found.get() > 300, "only {} pairs of clusters differ", found.get());
}

#[test]
fn nothing_changes_between_a_cluster_and_itself() {
    let config = Config { cases: 100, failure_persistence: None, ..Config::default() };
    let same = |state: State| {
        prop_assert_eq!(diff(&stories(&state), &stories(&state)).changes, []);
        Ok(())
    };
    TestRunner::new(config).run(&state(true), same).unwrap_or_else(|error| panic!("{error}"));
}
