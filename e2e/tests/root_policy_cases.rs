//! The cases of three public policy suites on real kernels: kernel, oracle and suite say the same of every connection.
//!
//! ```text
//!    router          Every pod is on n1 or n2, in both families: half of the connections stay on a node.
//!    n1  n2
//! ```
//! 1. The 48 cases of Kubernetes' own suite. 2. The 92 of ClusterNetworkPolicy's. 3. The 230 shapes of cyclonus, in two labs.
//! 4. Those of them that are about SCTP, on a kernel that has it.
#![allow(clippy::unwrap_used)]

mod support;

use support::cases::run;
use twill_policy_cases::{Protocol, cluster_network_policy, cyclonus, kubernetes};

const HERE: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The other three are about SCTP alone: see below.
#[test]
#[ignore = "needs root: make test"]
fn the_kernel_agrees_with_kubernetes_own_suite() {
    run("kubernetes", &kubernetes(), &HERE).hold(45, 150);
}

/// The other twenty are about SCTP alone.
#[test]
#[ignore = "needs root: make test"]
fn the_kernel_agrees_with_the_conformance_suite_of_cluster_network_policy() {
    run("conformance", &cluster_network_policy(), &HERE).hold(72, 100);
}

#[test]
#[ignore = "needs root: make test"]
fn the_kernel_agrees_with_the_oracle_on_the_first_shapes_of_cyclonus() {
    run("cyclonus-1", &cyclonus()[..115], &HERE).hold(115, 10_000);
}

#[test]
#[ignore = "needs root: make test"]
fn the_kernel_agrees_with_the_oracle_on_the_other_shapes_of_cyclonus() {
    run("cyclonus-2", &cyclonus()[115..], &HERE).hold(115, 10_000);
}

/// Whatever the two suites with a word of their own ask about SCTP, and of the shapes of cyclonus that speak of it every fifth
/// connection, five being prime to the numbers of pods and ports. One lab for all: there everything takes its time.
#[test]
#[ignore = "needs a kernel with SCTP: make test-sctp"]
fn a_kernel_with_sctp_agrees_with_all_suites_about_it() {
    let mut cases = cyclonus();
    cases.retain(|case| serde_json::to_string(&case.steps[0].changes).unwrap().contains("SCTP"));
    assert_eq!(cases.len(), 14);
    for step in cases.iter_mut().flat_map(|case| &mut case.steps) {
        step.probes.retain(|probe| probe.protocol == Protocol::Sctp);
        step.probes = step.probes.iter().step_by(5).cloned().collect();
    }
    cases.extend(kubernetes());
    cases.extend(cluster_network_policy());
    run("sctp", &cases, &[Protocol::Sctp]).hold(14 + 3 + 36, 100);
}
