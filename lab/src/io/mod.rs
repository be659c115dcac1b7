//! What touches the kernel, the file system and other processes.

mod checks;
pub mod cluster;
pub mod cni;
pub mod controller;
pub mod daemons;
pub mod down;
pub mod health;
pub mod holder;
pub mod interrupt;
pub mod kubelet;
pub mod labs;
pub mod manifests;
pub mod netns;
pub mod outage;
pub mod probe;
pub mod prober;
pub mod process;
pub mod relay;
pub mod routers;
pub mod server;
pub mod tenancy;
pub mod underlay;
pub mod up;
