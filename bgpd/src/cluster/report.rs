//! This node's part of NodeNetwork, from what is desired and what is observed.

use super::Desired;
use crate::fib;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::net::IpAddr;
use twill_crds::node_network::BgpState;

/// What the running parts say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Sessions configured.
    pub peers: u32,
    /// Of those, in Established.
    pub established: u32,
    /// Who may have routes of this node although there is no session.
    pub untold: Vec<String>,
    /// The FIB.
    pub fib: fib::Status,
    /// What else is wrong, one sentence each: a port that cannot be listened on, say.
    pub problems: Vec<String>,
}

/// The new state; equal to `old` if nothing changed. A condition keeps its transition time while its status is the same.
#[must_use]
pub fn report(desired: &Desired, observed: &Observed, old: &BgpState, now: Timestamp) -> BgpState {
    let local = &desired.fib.local;
    let of = |condition| -> Vec<String> {
        observed.fib.problems.iter().filter(|p| p.condition == condition).map(|p| p.text.clone()).collect()
    };
    let mut address = desired.node_problems.clone();
    address.extend(of(fib::Condition::Address));
    let mut ready = desired.problems.clone();
    ready.extend(observed.problems.iter().cloned());
    let judged = [
        ("BGPReady", "Configured", "Misconfigured", ready),
        ("AddressValid", "Found", "NoUsableAddress", address),
        ("TunnelHealthy", "Usable", "TunnelUnusable", of(fib::Condition::Tunnel)),
        ("RoutesResolved", "Resolved", "NextHopUnresolved", of(fib::Condition::Resolved)),
        ("RoutesInstalled", "Installed", "KernelRefused", of(fib::Condition::Installed)),
    ];
    let mut conditions: Vec<Condition> = judged
        .into_iter()
        .map(|(kind, good, bad, problems)| condition(kind, good, bad, &problems, &old.conditions, now))
        .collect();
    let missing = observed.peers.saturating_sub(observed.established);
    let text: Vec<String> = (missing > 0)
        .then(|| format!("{missing} of {} sessions are not established", observed.peers))
        .into_iter()
        .collect();
    conditions.push(condition("SessionsEstablished", "Established", "SessionsDown", &text, &old.conditions, now));
    if desired.speaker.shutdown.is_some() {
        let closing = (observed.peers > 0).then(|| format!("{} sessions are still being closed", observed.peers));
        let untold = (!observed.untold.is_empty()).then(|| {
            let names = observed.untold.join(", ");
            format!("{names}: the session was lost before it could be said there, and routes are kept for the restart time, 120 s")
        });
        let open: Vec<String> = closing.into_iter().chain(untold).collect();
        conditions.push(condition("Drained", "Drained", "Draining", &open, &old.conditions, now));
    }
    BgpState {
        addresses: local.v4.map(IpAddr::V4).into_iter().chain(local.v6.map(IpAddr::V6)).collect(),
        asn: Some(desired.speaker.asn),
        tunnel_addresses: desired.fib.tunnel_sources.clone(),
        conditions,
    }
}

fn condition(kind: &str, good: &str, bad: &str, problems: &[String], old: &[Condition], now: Timestamp) -> Condition {
    let status = if problems.is_empty() { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (if problems.is_empty() { good } else { bad }).to_owned(),
        message: problems.join("; "),
        last_transition_time: before.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        observed_generation: None,
    }
}
