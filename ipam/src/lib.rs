//! Pools, blocks and the addresses inside a block.
//!
//! In flow pools, blocks, labels, the time and what the kernel still has; out flow claims to make and addresses to hand
//! out. Everything outside [`io`] is pure.

pub mod claim;
pub mod range;

pub use claim::{Claim, PoolFull, Seen, Step};
