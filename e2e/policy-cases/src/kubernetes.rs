//! The data-path cases of Kubernetes' own end-to-end suite for NetworkPolicy (`test/e2e/network/netpol` of kubernetes/kubernetes,
//! 1.36), told anew, in the suite's order.
//!
//! A namespace is meant by the label that the API server gives it. The suite connects to Services; here the pods are meant.

mod addresses;
mod changes;
mod directions;
mod peers;
mod ports;
mod protocols;

use crate::matrix::Matrix;
use crate::{Case, Change, Protocol, Step, Universe};
use serde_json::Value;

/// All 48 cases.
#[must_use]
pub fn kubernetes() -> Vec<Case> {
    let groups =
        [peers::cases(), ports::cases(), changes::cases(), directions::cases(), addresses::cases(), protocols::cases()];
    groups.into_iter().flatten().collect()
}

const NAME: &str = "kubernetes.io/metadata.name";

/// A selector for the namespace of this name.
fn namespace(name: &str) -> Value {
    crate::manifest::label(NAME, name)
}

/// A selector for pods of this name.
fn pod(name: &str) -> Value {
    crate::manifest::label("pod", name)
}

/// A case with pods that listen on TCP.
fn case(name: &str, about: &str, pods: &[&str], ports: &[u16]) -> Case {
    case_on(&[Protocol::Tcp], name, about, pods, ports)
}

fn case_on(protocols: &[Protocol], name: &str, about: &str, pods: &[&str], ports: &[u16]) -> Case {
    let universe = Universe::of(pods, ports, protocols);
    Case { name: name.to_owned(), about: about.to_owned(), universe, steps: Vec::new() }
}

impl Case {
    /// After these changes this matrix holds for TCP.
    fn then(self, changes: Vec<Change>, port: u16, matrix: &Matrix) -> Self {
        self.then_on(Protocol::Tcp, changes, port, matrix)
    }

    fn then_on(mut self, protocol: Protocol, changes: Vec<Change>, port: u16, matrix: &Matrix) -> Self {
        let probes = matrix.probes(&self.universe.pod_names(), port, protocol);
        self.steps.push(Step { changes, probes });
        self
    }
}
