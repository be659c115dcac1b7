//! Table `inet twill` in a real kernel, each test in namespaces of its own.

mod figures;
mod packets;
mod repair;
mod structure;
mod world;
