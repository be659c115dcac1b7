//! What happened, in numbers.

use crate::libcni::Outcome;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Said = BTreeMap<String, (u64, String)>;

/// Of so many messages with one code an example is shown.
const SAID: usize = 6;

#[derive(Default)]
pub(crate) struct Tally {
    begun: AtomicU64,
    running: AtomicU64,
    highest: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    /// What was said with each code: by its words without names and numbers, how often, and the first in full.
    messages: Mutex<BTreeMap<String, Said>>,
    longest: Mutex<BTreeMap<String, Duration>>,
}

impl Tally {
    /// How many operations have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Performs an operation; none: it was killed.
    pub(crate) fn operation(&self, verb: &str, perform: impl FnOnce() -> Option<Outcome>) -> Option<Outcome> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.highest.fetch_max(self.running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let began = Instant::now();
        let outcome = perform();
        let took = began.elapsed();
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.longest.lock().unwrap().entry(verb.to_owned()).and_modify(|most| *most = took.max(*most)).or_insert(took);
        match &outcome {
            None => self.count(&format!("{verb}, plugin killed")),
            Some(Ok(_)) => self.count(&format!("{verb}, done")),
            Some(Err(error)) => {
                let what = format!("{verb}, code {}", error["code"]);
                self.count(&what);
                let message = error["msg"].to_string();
                let mut messages = self.messages.lock().unwrap();
                let of_code = messages.entry(what).or_default();
                of_code.entry(words(&message)).or_insert((0, message)).0 += 1;
            }
        }
        outcome
    }

    pub(crate) fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    /// One line each.
    pub(crate) fn report(&self) -> String {
        let (counts, messages) = (self.counts.lock().unwrap(), self.messages.lock().unwrap());
        let line = |(what, count): (&String, &u64)| {
            let mut said: Vec<&(u64, String)> = messages.get(what).into_iter().flat_map(Said::values).collect();
            said.sort_by_key(|(often, _)| std::cmp::Reverse(*often));
            let said = said.into_iter().take(SAID);
            let said: String = said.map(|(often, first)| format!("           {often:>6} as {first}\n")).collect();
            format!("  {count:>6} {what}\n{said}")
        };
        let lines: String = counts.iter().map(line).collect();
        let longest: Vec<String> = self
            .longest
            .lock()
            .unwrap()
            .iter()
            .map(|(verb, took)| format!("{verb} {:.1} s", took.as_secs_f64()))
            .collect();
        let highest = self.highest.load(Ordering::Relaxed);
        format!("{} operations, at most {highest} at once; longest {}\n{lines}", self.begun(), longest.join(", "))
    }
}

fn words(message: &str) -> String {
    let is_word = |word: &&str| word.chars().all(|c| c.is_alphabetic() || ",;:.()\"'".contains(c));
    message.split(' ').filter(is_word).collect::<Vec<_>>().join(" ")
}
