//! Pools, blocks and the addresses inside a block.
//!
//! In flow pools, blocks, labels, the time and what the kernel still has; out flow claims to make and addresses to hand
//! out. Everything outside [`io`] is pure.

pub mod claim;
pub mod error;
pub mod full;
pub mod holder;
pub mod idle;
pub mod io;
pub mod kept;
pub mod known;
pub mod ledger;
pub mod origin;
pub mod owner;
pub mod pool;
pub mod quarantine;
pub mod range;
pub mod reservation;
pub mod routed;
pub mod warm;

pub use claim::{Claim, Seen, Step};
pub use error::StoreError;
pub use full::PoolFull;
pub use kept::Here;
pub use known::Known;
pub use ledger::{Attachment, Ledger, Sandbox, Use};
pub use origin::{Kind, Origin};
pub use owner::{Fate, Owner};
pub use pool::{Family, Labels, Pool};
pub use quarantine::Quarantine;
pub use reservation::Reserved;
