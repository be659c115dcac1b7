//! A compiler of the same state, made elsewhere: to see what a change would do while the first goes on.

use super::{Compiler, Limits};
use crate::index::{self, Index};
use crate::ruleset::Ruleset;

/// All that a compiler's ruleset follows from, but for the skeleton.
#[derive(Debug)]
pub struct Snapshot(index::Snapshot, Limits);

impl Compiler {
    /// What the ruleset follows from now. Costs a pointer per pod and policy.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.index.snapshot(), self.limits)
    }
}

impl Snapshot {
    /// A compiler of that state. It compiles from scratch, which at 100,000 pods takes a moment: do it beside what must not wait.
    #[must_use]
    pub fn compile(self, skeleton: Ruleset) -> Compiler {
        let mut compiler = Compiler { index: Index::from(self.0), ..Compiler::new(skeleton).with_limits(self.1) };
        compiler.commit();
        compiler
    }
}
