//! Table `inet twill` in a real kernel, each test in namespaces of its own.

mod structure;
mod world;
