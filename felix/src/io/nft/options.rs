//! How the table is held.

use super::LONGEST_TRANSACTION;

/// Whether a table that is created gets an owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// Where the kernel has `owner, persist` (6.9).
    #[default]
    WherePossible,
    /// As on a kernel that has not: for tests, and for those who want to edit the table by hand.
    Never,
}

/// How the table is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether it gets an owner.
    pub ownership: Ownership,
    /// Bytes of the longest transaction: it lies in the kernel's memory as a whole. A longer one is refused.
    pub longest_transaction: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { ownership: Ownership::default(), longest_transaction: LONGEST_TRANSACTION }
    }
}
