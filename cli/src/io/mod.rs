//! Sockets and the log.

pub(crate) mod control;
pub(crate) mod log;
