//! Random messages and what they may not do: panic, hang, take memory without bound, decode to something that does not encode to
//! itself, or make us say something that nobody understands. In flows a number, out flows a message and what became of it: the same
//! number is the same message again.

mod mutate;
mod random;
mod speaker;
mod swallow;

pub use mutate::{full_open, header, mutated, seeds};
pub use random::Random;
pub use speaker::Victim;
pub use swallow::swallow;

use crate::ours;
use twill_bgpd::wire::{Families, Negotiated};

/// Everything that messages are thrown at.
pub struct Fuzzer {
    seeds: Vec<Vec<u8>>,
    /// What the codec alone believes to have agreed on.
    sessions: Vec<Negotiated>,
    /// Whole speakers, with a session of each kind.
    victims: Vec<Victim>,
}

impl Fuzzer {
    /// With our own messages to begin with, and these; each must have at least a header.
    #[must_use]
    pub fn new(more: Vec<Vec<u8>>) -> Self {
        let (own, more): (Vec<_>, Vec<_>) =
            (seeds(), more.into_iter().filter(|seed| seed.len() > twill_bgpd::wire::HEADER_LEN).collect());
        // As many of ours as of others, which mostly speak of families that we do not.
        let seeds: Vec<_> = own.iter().cycle().take(own.len().max(more.len())).chain(&more).cloned().collect();
        let kinds = [(true, true), (false, true), (true, false), (false, false)];
        let mut sessions = Vec::new();
        for (ebgp, four) in kinds {
            let plain = Negotiated { extended_next_hop: !ebgp, ..ours::session(ebgp, four) };
            let rich = Negotiated {
                extended_message: true,
                add_path_receive: Families::ALL,
                add_path_send: Families::ALL,
                ..plain.clone()
            };
            sessions.extend([plain, rich]);
        }
        let victims = kinds.map(|(ebgp, four)| Victim::new(ebgp, four)).into();
        Self { seeds, sessions, victims }
    }

    /// Message `number` of a run with this seed.
    #[must_use]
    pub fn message(&self, seed: u64, number: u64) -> Vec<u8> {
        mutated(&mut Random(seed.rotate_left(32) ^ number.wrapping_mul(0xd134_2543_de82_ef95)), &self.seeds)
    }

    /// Throws a message at the codec and at a speaker; says whether the codec found routes in it.
    ///
    /// # Panics
    /// If one of them has a fault.
    pub fn throw(&mut self, message: &[u8], number: u64) -> bool {
        let (sessions, victims) = (self.sessions.len() as u64, self.victims.len() as u64);
        let routes = swallow(message, &self.sessions[(number % sessions) as usize]);
        self.victims[(number / sessions % victims) as usize].hear(message);
        routes > 0
    }

    /// Paths that the speakers hold now.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.victims.iter().map(Victim::held).sum()
    }
}
