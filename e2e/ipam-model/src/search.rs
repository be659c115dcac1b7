//! Breadth first, so that what is found is as short as can be.

use crate::state::{Action, Rules, State};
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

/// What a search has seen.
#[derive(Debug, Default)]
pub struct Searched {
    pub states: usize,
    pub steps: usize,
    /// Depth up to which everything was seen.
    pub depth: usize,
    /// Whether there is nothing beyond.
    pub complete: bool,
    /// States without pods and faults that were seen to drain.
    pub drained: usize,
}

/// Two hashes of 64 bits, in one go.
#[derive(Clone, Copy)]
struct Twin(u64, u64);

impl Hasher for Twin {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.1 = (self.1 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// That two states of millions share both does not happen.
fn key(state: &State) -> u128 {
    let mut twin = Twin(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
    state.hash(&mut twin);
    u128::from(twin.finish()) << 64 | u128::from(twin.1 ^ twin.1 >> 31)
}

/// All states that follow from `first`, in the order of their distance, up to `most` of them.
///
/// # Errors
/// What must hold and does not, with the way there.
pub fn search(first: &State, rules: &Rules, most: usize) -> Result<Searched, String> {
    let mut seen = HashSet::from([key(first)]);
    let mut drained = HashSet::new();
    let mut way: Vec<(u32, Option<Action>)> = vec![(0, None)];
    let mut level = vec![(0u32, first.clone())];
    let mut result = Searched::default();
    let mut count = 0;
    while !level.is_empty() {
        let mut next = Vec::new();
        for (at, state) in level {
            let mut rested = state.clone();
            rested.rest();
            if drained.insert(key(&rested)) {
                count += 1;
                rested.drained(rules).map_err(|what| told(&way, at, None, &what))?;
            }
            for action in state.actions(rules) {
                result.steps += 1;
                let after = state.after(action, rules).map_err(|what| told(&way, at, Some(action), &what))?;
                if seen.insert(key(&after)) {
                    way.push((at, Some(action)));
                    next.push((u32::try_from(way.len() - 1).unwrap(), after));
                }
            }
            if seen.len() >= most {
                (result.states, result.drained) = (seen.len(), count);
                return Ok(result);
            }
        }
        result.depth += 1;
        level = next;
    }
    (result.states, result.drained) = (seen.len(), count);
    result.complete = true;
    Ok(result)
}

fn told(way: &[(u32, Option<Action>)], mut at: u32, last: Option<Action>, what: &str) -> String {
    let mut actions = vec![last];
    while at != 0 {
        let (before, action) = way[at as usize];
        actions.push(action);
        at = before;
    }
    let all: Vec<String> = actions.into_iter().rev().flatten().map(|action| format!("{action:?}")).collect();
    format!("{what}, after: {}", all.join(", "))
}
