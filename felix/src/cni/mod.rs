//! The runtime's calls: what is asked, judged before anything is touched, and what is answered.

mod error;
mod request;
mod result;
mod runtime_config;

pub use error::{Failure, Reason};
pub use request::{Add, Del, add, del};
pub use result::result;
pub use runtime_config::{RuntimeConfig, runtime_config};
