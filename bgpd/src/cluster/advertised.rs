//! Which addresses of Services this node tells. In flow ranges of BGPConfiguration, Services with endpoints here, pools and nodes; out
//! flow prefixes, and ranges into which no learned route leads.
//!
//! Peers of BGPPeer objects are told, and other nodes are not: each handles all Services itself, and a route to another node's would carry what
//! it does not handle round in circles. For the same reason nothing that a ToR tells of them is installed. What no Service has is
//! dropped in the forward hook by felix, not by an unreachable route: the kernel looks for a route before it translates what the node itself sends,
//! so that such a route would keep the node from its own Services (`e2e/tests/root_services.rs` shows both).

use super::hidden::{around, ranked};
use super::nodes::Nodes;
use super::objects::Objects;
use crate::filter::{Filter, Part};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use twill_crds::bgp_filter::{FilterAction, FilterMatch, FilterRule, FilterSet, PrefixRange};
use twill_crds::services::ServiceRanges;
use twill_crds::{IPPool, Object};
use twill_datastore::Key;

/// Label of a Node that takes no traffic for Services from outside.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What is told of Services.
#[derive(Default)]
pub(super) struct Advertised {
    /// Ranges that count.
    pub(super) ranges: Vec<IpNet>,
    /// Prefixes that this node tells.
    pub(super) prefixes: BTreeSet<IpNet>,
    /// What is wrong, one sentence each.
    pub(super) problems: Vec<String>,
}

impl Advertised {
    pub(super) fn of(own: &str, objects: &Objects, wanted: &ServiceRanges, nodes: &Nodes, pools: &[&IPPool]) -> Self {
        let mut result = Self::default();
        if wanted.is_empty() {
            return result;
        }
        for (field, range) in wanted.all() {
            let pools = pools.iter().map(|pool| (pool.name(), pool.spec.cidr));
            match ServiceRanges::conflict(range, pools, addresses(nodes)) {
                Some(problem) => {
                    result.problems.push(format!("BGPConfiguration default: spec.services.{field}: {range} {problem}"));
                }
                None if result.ranges.contains(&range) => {}
                None => result.ranges.push(range),
            }
        }
        let labels = objects.nodes.get(&Key::cluster(own)).and_then(|node| node.meta().labels.as_ref());
        if labels.is_some_and(|labels| labels.contains_key(EXCLUDED)) {
            return result;
        }
        let services = &objects.services;
        if !services.is_complete() {
            // What is told is not taken back on the word of silence, and nothing is told that a Service may hide.
            let is_inside = |net: &&IpNet| result.ranges.iter().any(|range| range.contains(*net));
            result.prefixes = objects.told.iter().filter(is_inside).copied().collect();
            return result;
        }
        let (hidden, local) = (services.hidden(), services.local());
        let told = services.told(wanted, &hidden).into_iter();
        result.prefixes = told.filter(|net| result.ranges.iter().any(|range| range.contains(net))).collect();
        let is_one_service =
            |range: &IpNet| range.prefix_len() == range.max_prefix_len() && local.contains(&range.addr());
        let ranges = result.ranges.iter().copied().filter(|range| !is_one_service(range));
        let (ranges, problem) = around(ranges, &ranked(&hidden));
        result.prefixes.extend(ranges);
        result.problems.extend(problem);
        result
    }

    /// What keeps other nodes from hearing of it.
    pub(super) fn between_nodes(&self) -> Vec<FilterRule> {
        let prefix =
            |range: &IpNet| PrefixRange { cidr: *range, min_length: Some(range.prefix_len()), max_length: None };
        let prefixes: Vec<PrefixRange> = self.ranges.iter().map(prefix).collect();
        let r#match = FilterMatch { prefixes, ..FilterMatch::default() };
        let rule = FilterRule { r#match, set: FilterSet::default(), action: Some(FilterAction::Reject) };
        if self.ranges.is_empty() { Vec::new() } else { vec![rule] }
    }
}

/// Name of those rules where they decide.
pub(super) const BETWEEN_NODES: &str = "Services are not told between nodes";

/// The filter of sessions between nodes.
pub(super) fn between(rules: &[FilterRule]) -> Filter {
    Filter::new(&[Part { name: BETWEEN_NODES, rules }], true)
}

/// The addresses of all nodes, this one's too.
fn addresses(nodes: &Nodes) -> impl Iterator<Item = (&str, IpAddr)> {
    nodes.others.iter().chain(&nodes.own).flat_map(|node| {
        let v4 = node.v4.map(IpAddr::V4);
        v4.into_iter().chain(node.v6.map(IpAddr::V6)).map(|address| (node.name.as_str(), address))
    })
}
