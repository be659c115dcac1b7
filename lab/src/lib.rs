//! Clusters made of network namespaces.
pub mod file;
pub mod io;
pub mod names;
pub mod plan;
pub mod ports;
pub mod resources;
pub mod state;
