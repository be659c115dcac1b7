//! The policies that govern a pod in one direction into a chain per tier.
//!
//! Allow is `return`, which leads back to the base chain; deny is `drop`; Pass and a tier's end without denial are `goto` the
//! next tier. A chain is named by its rules, so pods with the same list share it.

use super::rules::Draft;
use super::sets::{SetSpec, digest};
use crate::base;
use crate::model::{Action, Tier};
use crate::ruleset::{self, Chain, Name, Rule, Verdict};
use rustc_hash::FxHashSet;

/// What the last rule of a list says that denies because none before it allowed.
const NOTHING_ALLOWS: &str = "no rule allows it";

/// A chain to be.
#[derive(Clone, Debug)]
pub(super) struct ChainPlan {
    /// Its name.
    pub(super) name: Name,
    /// What it is.
    pub(super) chain: Chain,
    /// The sets that it looks into.
    pub(super) sets: Vec<SetSpec>,
    /// The chain of the next tier, if it leads there.
    pub(super) next: Option<Name>,
}

/// The rules of one tier in order.
pub(super) struct TierList<'a> {
    /// The tier.
    pub(super) tier: Tier,
    /// Its rules.
    pub(super) rules: Vec<&'a Draft>,
}

/// Chains for a list of tiers, the last tier first; what a packet enters is the last one. Empty: everything is allowed. `told`: what they
/// deny is told of.
pub(super) fn chains(tiers: &[TierList<'_>], told: bool) -> Vec<ChainPlan> {
    let mut plans: Vec<ChainPlan> = Vec::new();
    for list in tiers.iter().rev() {
        let next = plans.last().map(|p| p.name.clone());
        plans.extend(chain(list, next, told));
    }
    // A tier that became superfluous leads nowhere: only what the first chain leads to stays.
    let mut wanted = plans.last().map(|p| p.name.clone());
    let mut used = Vec::new();
    for plan in plans.into_iter().rev() {
        if wanted.as_ref() == Some(&plan.name) {
            wanted = plan.next.clone();
            used.push(plan);
        }
    }
    used.reverse();
    used
}

/// One tier's chain; none if it would do nothing but go on.
fn chain(list: &TierList<'_>, next: Option<Name>, told: bool) -> Option<ChainPlan> {
    let onward = || next.clone().map_or(Verdict::Return, Verdict::Goto);
    let mut kept: Vec<&Draft> = Vec::new();
    let mut said = FxHashSet::default();
    let (mut end, mut why) = (list.tier.end(), NOTHING_ALLOWS);
    for draft in &list.rules {
        if draft.matches.is_empty() {
            (end, why) = (draft.action, draft.comment.as_str());
            break;
        }
        if said.insert(&draft.condition) {
            kept.push(draft);
        }
    }
    // What stands before an end of the same kind decides nothing.
    let same_as_end =
        |action: Action| action == end || (next.is_none() && action != Action::Deny && end != Action::Deny);
    while kept.last().is_some_and(|draft| same_as_end(draft.action)) {
        kept.pop();
    }
    if kept.is_empty() && (end == Action::Pass || end == Action::Allow && next.is_none()) {
        return None;
    }
    let mut rules: Vec<Rule> = Vec::new();
    let mut sets = Vec::new();
    for draft in kept {
        let rule = match draft.action {
            Action::Allow => Rule::allow(draft.matches.clone()),
            Action::Deny => Rule::deny(draft.matches.clone()),
            Action::Pass => Rule::new(draft.matches.clone(), ruleset::Action::Verdict(onward())),
        };
        rules.push(rule.comment(draft.comment.clone()));
        sets.extend(draft.sets.iter().cloned());
    }
    match end {
        Action::Allow => rules.push(Rule::allow(Vec::new())),
        Action::Deny => rules.push(Rule::deny(Vec::new()).comment(why)),
        Action::Pass if next.is_some() => rules.push(Rule::new(Vec::new(), ruleset::Action::Verdict(onward()))),
        Action::Pass => {}
    }
    let leads_on = rules.iter().any(|r| matches!(&r.action, ruleset::Action::Verdict(Verdict::Goto(_))));
    let name = Name::from(format!("{}{}", base::LIST, digest(&rules)));
    let rules = with_logs(rules, &name, told);
    Some(ChainPlan { name, chain: Chain { base: None, rules }, sets, next: next.filter(|_| leads_on) })
}

/// Each rule that denies with one before it that tells of what it denies, by the chain's name and the rule's comment.
pub(super) fn with_logs(rules: Vec<Rule>, name: &Name, told: bool) -> Vec<Rule> {
    let denies = |rule: &Rule| told && rule.action == ruleset::Action::Verdict(Verdict::Drop);
    let log = |rule: &Rule| base::log(rule.matches.clone(), &format!("{name} {}", rule.comment));
    rules.into_iter().flat_map(|rule| denies(&rule).then(|| log(&rule)).into_iter().chain([rule])).collect()
}
