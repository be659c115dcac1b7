//! Table `inet twill` in a real kernel, each test in namespaces of its own.

#![allow(clippy::unwrap_used)]

mod figures;
mod hostports;
mod mss;
mod packets;
mod refusals;
mod repair;
mod shared;
mod structure;
mod traps;
mod verify;
mod world;
