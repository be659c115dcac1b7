//! A compiler of the same state, made elsewhere: to see what a change would do while the first goes on.

use super::rules::Form;
use super::{Compiler, Limits};
use crate::host::Plan;
use crate::index::{self, Index};
use crate::ruleset::Ruleset;
use std::sync::Arc;

/// All that a compiler's ruleset follows from, but for the skeleton.
#[derive(Debug)]
pub struct Snapshot {
    index: index::Snapshot,
    form: Form,
    limits: Limits,
    host: Arc<Plan>,
}

impl Compiler {
    /// What the ruleset follows from now. Costs a pointer per pod and policy.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { index: self.index.snapshot(), form: self.form, limits: self.limits, host: self.host.wanted() }
    }
}

impl Snapshot {
    /// A compiler of that state. It compiles from scratch, which at 100,000 pods takes a moment: do it beside what must not wait.
    #[must_use]
    pub fn compile(self, skeleton: Ruleset) -> Compiler {
        let Snapshot { index, form, limits, host } = self;
        let mut compiler = Compiler { index: Index::from(index), form, limits, ..Compiler::new(skeleton) };
        compiler.plan_host(Plan::clone(&host));
        compiler.commit();
        compiler
    }
}
