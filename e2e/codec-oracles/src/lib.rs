//! What the tests share that hold the codec against others, and the fuzzing that runs for as long as one likes
//! (`src/bin/fuzz_messages`). Never shipped.

#![allow(clippy::unwrap_used)]

pub mod fuzz;
pub mod model;
pub mod ours;
