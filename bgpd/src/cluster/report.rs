//! This node's part of NodeNetwork, from what is desired and what is observed.

use super::Desired;
use crate::fib;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::collections::BTreeSet;
use std::net::IpAddr;
use twill_crds::node_network::{
    BgpState, PEERS_DOWN, PROTOCOL_FILTERED, SETTING_REFUSED, TUNNEL_HEALTHY, TUNNEL_UNUSABLE,
};

/// Characters of a condition's message; the API server refuses a status with a longer one as a whole.
const MESSAGE: usize = 32_768;
/// What stands at the end of one that is cut.
const CUT: &str = " ...";

/// What the running parts say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Sessions configured.
    pub peers: u32,
    /// Of those, in Established.
    pub established: u32,
    /// The names of those.
    pub up: BTreeSet<String>,
    /// Who may have routes of this node although there is no session.
    pub untold: Vec<String>,
    /// Number of the decision about sessions that the speaker follows.
    pub step: Option<u32>,
    /// Why the node still needs sessions that this does away with.
    pub needs: Option<String>,
    /// The FIB.
    pub fib: fib::Status,
    /// Nodes that protocol 4 does not reach, in one sentence.
    pub filtered: Option<String>,
    /// Whether that is known; while it is not, what an earlier process has found out stands.
    pub probed: bool,
    /// What else is wrong, one sentence each: a port that cannot be listened on, say.
    pub problems: Vec<String>,
}

/// Why tunnels do not work, and the reason for it: a device that cannot be used goes before what that leads to, and settings without which most packets arrive come last.
fn tunnels(
    observed: &Observed,
    unusable: Vec<String>,
    refused: Vec<String>,
    old: &BgpState,
) -> (&'static str, Vec<String>) {
    let filtered = observed.filtered.clone().or_else(|| still_filtered(old, &refused).filter(|_| !observed.probed));
    let reason = match (unusable.is_empty(), filtered.is_none()) {
        (false, _) => TUNNEL_UNUSABLE,
        (true, false) => PROTOCOL_FILTERED,
        (true, true) => SETTING_REFUSED,
    };
    (reason, unusable.into_iter().chain(filtered).chain(refused).collect())
}

/// What stands there of nodes that protocol 4 does not reach, without what is said beside it anyway.
fn still_filtered(old: &BgpState, beside: &[String]) -> Option<String> {
    let found = |one: &&Condition| one.type_ == TUNNEL_HEALTHY && one.reason == PROTOCOL_FILTERED;
    let message = old.conditions.iter().find(found).map(|one| one.message.clone())?;
    Some(beside.iter().fold(message, |message, text| message.replace(&format!("; {text}"), "")))
}

/// The new state; equal to `old` if nothing changed. A condition keeps its transition time while its status is the same.
#[must_use]
pub fn report(desired: &Desired, observed: &Observed, old: &BgpState, now: Timestamp) -> BgpState {
    let of = |condition| -> Vec<String> {
        observed.fib.problems.iter().filter(|p| p.condition == condition).map(|p| p.text.clone()).collect()
    };
    let mut address = desired.node_problems.clone();
    address.extend(of(fib::Condition::Address));
    let mut ready = desired.problems.clone();
    ready.extend(observed.problems.iter().cloned());
    let (broken, tunnel) = tunnels(observed, of(fib::Condition::Tunnel), of(fib::Condition::Setting), old);
    let judged = [
        ("BGPReady", "Configured", "Misconfigured", ready),
        ("AddressValid", "Found", "NoUsableAddress", address),
        (TUNNEL_HEALTHY, "Usable", broken, tunnel),
        ("RoutesResolved", "Resolved", "NextHopUnresolved", of(fib::Condition::Resolved)),
        ("RoutesInstalled", "Installed", "KernelRefused", of(fib::Condition::Installed)),
    ];
    let mut conditions: Vec<Condition> = judged
        .into_iter()
        .map(|(kind, good, bad, problems)| condition(kind, good, bad, &problems, &old.conditions, now))
        .collect();
    if desired.speaker.shutdown.is_none() {
        // What was observed may be older than what is desired: a session that is to be and that nobody has seen yet is missing, too.
        let peers = observed.peers.max(u32::try_from(desired.speaker.count()).unwrap_or(u32::MAX));
        let missing = peers.saturating_sub(observed.established);
        let text =
            (missing > 0).then(|| format!("{missing} of {peers} sessions {} not established", is_or_are(missing)));
        let text: Vec<String> = text.into_iter().collect();
        conditions.push(condition("SessionsEstablished", "Established", "SessionsDown", &text, &old.conditions, now));
    } else {
        let closing = (observed.peers > 0).then(|| {
            let noun = if observed.peers == 1 { "session" } else { "sessions" };
            format!("{} {noun} {} still being closed", observed.peers, is_or_are(observed.peers))
        });
        let untold = (!observed.untold.is_empty()).then(|| {
            let names = observed.untold.join(", ");
            format!(
                "{names}: it could not be said there, since the session or its link is lost, and routes of this node are kept until the hold \
                 time and the restart time, 120 s, are over"
            )
        });
        let open: Vec<String> = closing.into_iter().chain(untold).collect();
        conditions.push(condition("Drained", "Drained", "Draining", &open, &old.conditions, now));
    }
    BgpState {
        addresses: addresses(desired, observed),
        asn: Some(desired.speaker.asn),
        tunnel_addresses: desired.fib.tunnel_sources.clone(),
        peers_down: Some(desired.configured.difference(&observed.up).take(PEERS_DOWN).cloned().collect()),
        step: observed.step.filter(|_| observed.needs.is_none()),
        reflects: desired.reflects,
        conditions,
    }
}

/// By what the node is known, or wants to be known because that does not do ([`super::Choice`] says when).
fn addresses(desired: &Desired, observed: &Observed) -> Vec<IpAddr> {
    if observed.fib.better.is_empty() { desired.fib.local.all().collect() } else { observed.fib.better.clone() }
}

fn is_or_are(count: u32) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn condition(kind: &str, good: &str, bad: &str, problems: &[String], old: &[Condition], now: Timestamp) -> Condition {
    let status = if problems.is_empty() { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (if problems.is_empty() { good } else { bad }).to_owned(),
        message: cut(problems.join("; ")),
        last_transition_time: before.map_or(Time(now), |condition| condition.last_transition_time.clone()),
        observed_generation: None,
    }
}

/// At most [`MESSAGE`] characters of a text.
fn cut(mut text: String) -> String {
    if text.char_indices().nth(MESSAGE).is_some()
        && let Some((end, _)) = text.char_indices().nth(MESSAGE - CUT.len())
    {
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}
