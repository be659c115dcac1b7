//! An exhaustive search of what nodes, faults and the controller can do to blocks and addresses.
//!
//! A state is the datastore's objects, what each machine's disk, kernel and memory have, and what the controller knows; an action is one
//! call of one actor. What they decide is decided by the code of `twill-ipam` and `twill-controller`; here is only what performs it:
//! which call follows which, and what is lost when it fails.
#![allow(missing_docs, clippy::unwrap_used)]

pub mod cluster;
pub mod machine;
pub mod mutants;
pub mod reservation;
pub mod scene;
pub mod search;
pub mod state;
