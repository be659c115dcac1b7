//! What happened, in numbers.

use crate::libcni::Outcome;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(Default)]
pub(crate) struct Tally {
    begun: AtomicU64,
    running: AtomicU64,
    highest: AtomicU64,
    counts: Mutex<BTreeMap<String, u64>>,
    /// The first message of each code.
    messages: Mutex<BTreeMap<String, String>>,
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
                self.messages.lock().unwrap().entry(what).or_insert_with(|| error["msg"].to_string());
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
            let message = messages.get(what).map(|message| format!(", the first: {message}")).unwrap_or_default();
            format!("  {count:>6} {what}{message}\n")
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
