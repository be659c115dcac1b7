//! Whether a program forbids nothing that another one lets pass: then it needs no trial.

use super::Program;
use crate::model::{Action, Direction, InterfaceName, Rule, Way};

/// Something that decides, at its place in a program.
#[derive(PartialEq)]
struct Item<'a> {
    interfaces: &'a [InterfaceName],
    /// None: the end, which denies what came so far.
    rule: Option<&'a Rule>,
}

impl Item<'_> {
    fn denies(&self) -> bool {
        self.rule.is_none_or(|rule| rule.action == Action::Deny)
    }
}

/// Whether it is certain that `new` forbids nothing that `old` lets pass: it is what is left of `old` without some denials and with some
/// more allowances, and as many failsafes.
#[must_use]
pub fn is_looser(new: &Program, old: &Program) -> bool {
    let keeps_failsafes = |program: &Program| program.iter().any(|policy| policy.failsafes);
    Way::ALL.into_iter().all(|way| {
        let of =
            |program: &Program| -> Program { program.iter().filter(|policy| policy.closes(way)).cloned().collect() };
        let kept = keeps_failsafes(new) || !keeps_failsafes(old);
        let (new, old) = (of(new), of(old));
        new.is_empty() || kept && loosens(&items(&new, way.direction()), &items(&old, way.direction()))
    })
}

fn items(program: &Program, direction: Direction) -> Vec<Item<'_>> {
    let rules = program.iter().flat_map(|policy| {
        let rules = policy.rules.rules(direction).unwrap_or_default();
        rules.iter().map(|rule| Item { interfaces: &policy.interfaces, rule: Some(rule) })
    });
    rules.chain(program.iter().map(|policy| Item { interfaces: &policy.interfaces, rule: None })).collect()
}

fn loosens(new: &[Item<'_>], old: &[Item<'_>]) -> bool {
    let (mut new, mut old) = (new, old);
    loop {
        match (new, old) {
            ([a, rest_new @ ..], [b, rest_old @ ..]) if a == b => (new, old) = (rest_new, rest_old),
            // Of several ways to get from one to the other, any will do; what stands in both is best kept.
            ([a, rest @ ..], _) if !a.denies() && !old.contains(a) => new = rest,
            (_, [b, rest @ ..]) if b.denies() => old = rest,
            ([a, rest @ ..], _) if !a.denies() => new = rest,
            (new, old) => return new.is_empty() && old.is_empty(),
        }
    }
}
