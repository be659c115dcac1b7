//! The runtime's calls: what is asked, judged before anything is touched, and what is answered.

mod asked;
mod error;
mod previous;
mod request;
mod result;
mod runtime_config;

pub use error::{Failure, Reason};
pub use previous::Previous;
pub use request::{Add, Check, Del, Gc, add, check, del, foreign_ipam, gc};
pub use result::{lent, result};
pub use runtime_config::{RuntimeConfig, runtime_config};
