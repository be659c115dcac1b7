//! Who reaches whom, as a suite says it: everybody everybody, except …

use crate::{Probe, Protocol};

/// Rules about pairs, of which the last that fits a pair holds; without any, everybody is reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matrix {
    rules: Vec<(String, String, bool)>,
}

impl Matrix {
    /// Everybody reaches everybody.
    pub(crate) fn open() -> Self {
        Self::default()
    }

    /// From here to there nothing goes; `*` in place of a namespace or a name means any.
    pub(crate) fn deny(self, from: &str, to: &str) -> Self {
        self.and(from, to, false)
    }

    /// From here to there everything goes.
    pub(crate) fn allow(self, from: &str, to: &str) -> Self {
        self.and(from, to, true)
    }

    fn and(mut self, from: &str, to: &str, reached: bool) -> Self {
        self.rules.push((from.to_owned(), to.to_owned(), reached));
        self
    }

    /// Every pair of different pods on a port. What a pod sends to itself is left out, as the suites do.
    pub(crate) fn probes(&self, pods: &[String], port: u16, protocol: Protocol) -> Vec<Probe> {
        let said = |from: &str, to: &str| {
            let last = self.rules.iter().rev().find(|(f, t, _)| fits(f, from) && fits(t, to));
            last.is_none_or(|(_, _, reached)| *reached)
        };
        let mut probes = every_pair(pods, port, protocol);
        for probe in &mut probes {
            probe.reached = Some(said(&probe.from, &probe.to));
        }
        probes
    }
}

/// Every pair of different pods on a port, without a word on it.
pub(crate) fn every_pair(pods: &[String], port: u16, protocol: Protocol) -> Vec<Probe> {
    let mut probes = Vec::new();
    for from in pods {
        for to in pods.iter().filter(|to| *to != from) {
            probes.push(Probe { from: from.clone(), to: to.clone(), protocol, port, reached: None });
        }
    }
    probes
}

fn fits(pattern: &str, pod: &str) -> bool {
    let (namespace, name) = pattern.split_once('/').unwrap_or_default();
    let (of, called) = pod.split_once('/').unwrap_or_default();
    (namespace == "*" || namespace == of) && (name == "*" || name == called)
}
