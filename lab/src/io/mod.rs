//! What touches the kernel, the file system and other processes.

pub mod cni;
pub mod daemons;
pub mod down;
pub mod holder;
pub mod labs;
pub mod netns;
pub mod prober;
pub mod process;
pub mod underlay;
