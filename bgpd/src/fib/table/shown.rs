//! What of single prefixes is in the kernel, and why the rest is not: for people who ask.

use super::super::resolve::{Refusal, Resolver};
use super::super::route::Transport;
use super::super::{HopState, RouteState};
use super::{Memo, Table, judge};
use crate::scoped::ScopedAddr;
use ipnet::IpNet;

impl Table {
    /// State of some prefixes.
    #[must_use]
    pub fn show(&mut self, prefixes: &[IpNet]) -> Vec<RouteState> {
        let mut memo = std::mem::take(&mut self.memo);
        let resolver = Resolver::new(&self.config, &self.world);
        let states = prefixes.iter().map(|prefix| self.show_one(&resolver, &mut memo, *prefix)).collect();
        self.memo = memo;
        states
    }

    fn show_one(&self, resolver: &Resolver<'_>, memo: &mut Memo, prefix: IpNet) -> RouteState {
        let unreachable = self.config.own.contains(&prefix) && self.unreachable.contains(&prefix);
        let entry = self.learned.get(&prefix);
        let Some((entry, next_hops)) = entry.and_then(|e| e.next_hops.as_ref().map(|set| (e, set))) else {
            return RouteState { prefix, unreachable, hops: Vec::new() };
        };
        let not = |reason: String| {
            let hop = |address: &ScopedAddr| HopState {
                address: *address,
                installed: false,
                encapsulation: "",
                reason: reason.clone(),
            };
            next_hops.iter().map(hop).collect()
        };
        let hops = if !self.config.install {
            not("routes are not installed (installRoutes is false)".to_owned())
        } else if let Some(reason) = self.refused.get(&(prefix, self.config.metric)) {
            not(format!("the kernel refused it: {reason}"))
        } else {
            match judge(resolver, memo, prefix, next_hops) {
                Err(refusal) => not(refusal.to_string()),
                Ok(outcome) => {
                    outcome.hops.iter().map(|(address, way)| hop_state(*address, way, entry.kernel.is_some())).collect()
                }
            }
        };
        RouteState { prefix, unreachable, hops }
    }
}

fn hop_state(address: ScopedAddr, way: &Result<Transport, Refusal>, in_kernel: bool) -> HopState {
    match way {
        Ok(transport) if in_kernel => {
            HopState { address, installed: true, encapsulation: transport.name(), reason: String::new() }
        }
        Ok(_) => HopState { address, installed: false, encapsulation: "", reason: "not yet in the kernel".to_owned() },
        Err(refusal) => HopState { address, installed: false, encapsulation: "", reason: refusal.to_string() },
    }
}
