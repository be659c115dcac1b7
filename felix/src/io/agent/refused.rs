//! Policy that the kernel does not take: said of it what, whose, and whom it costs.

use super::Agent;
use crate::refused::Cost;
use crate::ruleset::{Key, Part, Rule, Ruleset};
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::{ClusterNetworkPolicy, NamespaceIsolation, NetworkPolicy, Object};
use twill_datastore::event::{Occurrence, Severity};

/// Pods that a sentence names.
const NAMED: usize = 8;

impl Agent {
    /// The ruleset as it is meant: what policy says, as far as it may be acted upon.
    pub(super) fn wanted(&self) -> &Ruleset {
        let held = self.recall.as_ref().and_then(super::recall::Recall::held);
        held.unwrap_or_else(|| self.compiler.ruleset())
    }

    /// The same without what the kernel refuses: what it holds.
    pub(super) fn meant(&self) -> &Ruleset {
        self.enforced.held(self.wanted())
    }

    /// One sentence for each part that the kernel refuses.
    pub(super) fn refused_problems(&self) -> Vec<String> {
        let refused = self.enforced.refused();
        let mut problems: Vec<String> = refused.proven().iter().map(|(part, why)| self.sentence(part, why)).collect();
        if refused.is_in_doubt() {
            let all = refused.aside().len() - refused.proven().len();
            problems.push(format!(
                "{all} parts of the ruleset are left out, and their pods closed, until it is found which of them the kernel refuses"
            ));
        }
        problems
    }

    fn sentence(&self, part: &Part, why: &str) -> String {
        let policies = policies(self.wanted(), part, why);
        let whose = if policies.is_empty() { String::new() } else { format!(" of {}", policies.join(" and ")) };
        format!(
            "the kernel refuses {part}{whose} ({why}); until it takes it nothing passes from and to its pods of this node but what the node \
             itself opens: {}; change or delete the policy, it is tried again within a minute",
            self.pods_closed_for(part)
        )
    }

    fn pods_closed_for(&self, part: &Part) -> String {
        let cost = Cost::of(self.wanted(), &BTreeSet::from([part.clone()]));
        let closed = |live: &super::Live| cost.interfaces.contains(&Key::interface(&live.host_name));
        let held = self.endpoints.iter().filter(|(_, live)| closed(live)).filter_map(|(sandbox, _)| {
            let held = self.store.ledger().attachment(sandbox)?;
            Some(format!("{}/{}", held.namespace, held.pod))
        });
        let mut names: Vec<String> = held.collect();
        names.sort();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        if names.is_empty() { "none at present".to_owned() } else { names.join(", ") }
    }

    /// Tells people what has been found refused since `before`.
    pub(super) fn tell_refused(&self, before: &BTreeMap<Part, String>) {
        for (part, why) in self.enforced.refused().proven().iter().filter(|(part, _)| !before.contains_key(*part)) {
            let note = self.sentence(part, why);
            tracing::error!(%note, "policy refused by the kernel");
            for regarding in policies(self.wanted(), part, why).iter().filter_map(|policy| reference(policy)) {
                let (reason, action) = ("PolicyRefused".to_owned(), "Close".to_owned());
                let told = Occurrence { regarding, severity: Severity::Warning, reason, action, note: note.clone() };
                // Nobody listens only while felix stops.
                let _ = self.events.send(told);
            }
        }
        for part in before.keys().filter(|part| !self.enforced.refused().proven().contains_key(*part)) {
            tracing::info!(%part, "the kernel takes it now, or it is not wanted any more");
        }
    }
}

/// The policies that a part came from, by what stands beside rules; the one alone that the kernel's word is about, if it names one.
fn policies(ruleset: &Ruleset, part: &Part, why: &str) -> Vec<String> {
    let rules: Vec<&Rule> = match part {
        Part::Chain(name) => ruleset.chains.get(name).into_iter().flat_map(|chain| &chain.rules).collect(),
        Part::Set(name) => {
            let all = ruleset.chains.values().flat_map(|chain| &chain.rules);
            all.filter(|rule| rule.sets().any(|set| set == name)).collect()
        }
    };
    // `NetworkPolicy shop/web ingress[0]`
    let comments = rules.iter().filter_map(|rule| rule.comment.rsplit_once(' '));
    let all: BTreeSet<&str> = comments.filter(|(_, rule)| rule.ends_with(']')).map(|(policy, _)| policy).collect();
    let named: Vec<&str> = all.iter().copied().filter(|policy| why.contains(&format!("({policy} "))).collect();
    let all = if named.is_empty() { all.into_iter().collect() } else { named };
    all.into_iter().map(str::to_owned).collect()
}

/// The object that a policy's name in a comment stands for.
fn reference(policy: &str) -> Option<k8s_openapi::api::core::v1::ObjectReference> {
    fn to<K: Object>(namespace: Option<&str>, name: &str) -> k8s_openapi::api::core::v1::ObjectReference {
        k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some(K::kind().api_version()),
            kind: Some(K::kind().kind.into_owned()),
            namespace: namespace.map(str::to_owned),
            name: Some(name.to_owned()),
            ..Default::default()
        }
    }
    let (kind, name) = policy.split_once(' ')?;
    match (kind, name.split_once('/')) {
        ("NetworkPolicy", Some((namespace, name))) => Some(to::<NetworkPolicy>(Some(namespace), name)),
        // Its policies stand in many namespaces; it does not.
        ("NamespaceIsolation", Some((_, name))) => Some(to::<NamespaceIsolation>(None, name)),
        ("ClusterNetworkPolicy", None) => Some(to::<ClusterNetworkPolicy>(None, name)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ruleset::{Chain, Field, Match};

    #[test]
    fn a_part_is_of_the_policies_that_stand_beside_its_rules() {
        let mut ruleset = Ruleset::default();
        let on = Match::Set { key: vec![Field::SourceV4], set: "sel4_a".into(), negated: false };
        let rules = vec![
            Rule::allow(vec![on]).comment("NetworkPolicy shop/web ingress[0]"),
            Rule::allow(vec![]).comment("ClusterNetworkPolicy base egress[1]"),
            Rule::deny(vec![]).comment("no rule allows it"),
        ];
        ruleset.chains.insert("list_a".into(), Chain { base: None, rules });
        let list = Part::Chain("list_a".into());
        assert_eq!(policies(&ruleset, &list, ""), ["ClusterNetworkPolicy base", "NetworkPolicy shop/web"]);
        let why = "EINVAL: in rule 1 of chain list_a (NetworkPolicy shop/web ingress[0])";
        assert_eq!(policies(&ruleset, &list, why), ["NetworkPolicy shop/web"]);
        assert_eq!(policies(&ruleset, &Part::Set("sel4_a".into()), "ENFILE"), ["NetworkPolicy shop/web"]);
        let of = |policy| reference(policy).map(|r| (r.kind.unwrap(), r.namespace, r.name.unwrap()));
        assert_eq!(of("NetworkPolicy shop/web"), Some(("NetworkPolicy".into(), Some("shop".into()), "web".into())));
        assert_eq!(of("NamespaceIsolation shop/all"), Some(("NamespaceIsolation".into(), None, "all".into())));
        assert_eq!(of("no rule"), None);
    }
}
