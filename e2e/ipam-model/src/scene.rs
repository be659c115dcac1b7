//! Beginnings of a search.

use crate::mutants::Mutant;
use crate::search::search;
use crate::state::{Action, Bounds, Rules, State};

/// States of each beginning, if nothing else is said; and of each mutant, whose fault must lie nearer.
const STATES: usize = 20_000;

/// A beginning: who there is, what has happened, and what may.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Machines by the number of their name.
    pub names: Vec<usize>,
    pub block_len: u8,
    /// From a settled cluster; else from nothing.
    pub way: Option<Vec<Action>>,
    pub faults: Vec<Action>,
    /// Ticks, pods, faults.
    pub left: (u8, u8, u8),
    pub hosts: Vec<usize>,
    pub fine: bool,
    pub strict: bool,
    /// Reservations that are there from the first: number, address, number of the pod's name.
    pub kept: Vec<(u8, &'static str, u8)>,
    /// Nodes that get pods of such a name.
    pub named: Vec<(usize, u8)>,
}

impl Scene {
    fn rules(&self, mutant: Option<Mutant>) -> Rules {
        Rules {
            faults: self.faults.clone(),
            mutant,
            fine: self.fine,
            hosts: self.hosts.clone(),
            strict: self.strict,
            named: self.named.clone(),
        }
    }

    fn first(&self, mutant: Option<Mutant>) -> State {
        let (ticks, pods, faults) = self.left;
        let mut first = State::new(&self.names, self.block_len, Bounds { ticks, pods, faults }, mutant);
        for (name, address, pod) in &self.kept {
            first.keep(*name, address.parse().unwrap(), *pod);
        }
        let Some(way) = &self.way else { return first };
        first.settled().at_the_end_of(way, &Rules { hosts: vec![0, 1, 2], ..self.rules(mutant) })
    }

    /// Up to so many states, or to as many as `TWILL_MODEL_STATES` says, nothing is wrong.
    ///
    /// # Panics
    /// Something is.
    pub fn holds(&self) {
        let most = std::env::var("TWILL_MODEL_STATES").map_or(STATES, |text| text.parse().unwrap());
        let found = search(&self.first(None), &self.rules(None), most).unwrap();
        println!("{found:?}");
        assert!(found.complete || found.states >= most);
    }

    /// What is left out is found to be missing after `more` has happened, too, which brings it nearer.
    ///
    /// # Panics
    /// It is not.
    pub fn misses(&self, mutant: Mutant, more: &[Action]) {
        let rules = Rules { hosts: vec![0, 1, 2], ..self.rules(Some(mutant)) };
        let first = self.first(Some(mutant)).at_the_end_of(more, &rules);
        let found = search(&first, &self.rules(Some(mutant)), STATES * 2);
        println!("{mutant:?}: {}", found.expect_err("what was left out is not missed"));
    }
}
