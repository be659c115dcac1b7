//! The engines.
pub mod sqlite;
