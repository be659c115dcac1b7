//! Who has which address, as the runtime knows it: from the moment that ADD has succeeded to the moment before DEL is called. Nothing of
//! felix is asked. The true time is longer at both ends, so what overlaps here was given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How far the clock that felix reads and ours may differ.
const CLOCKS: Duration = Duration::from_millis(50);

pub(crate) struct Referee {
    began: Instant,
    /// How long an address rests.
    cool_down: Duration,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    held: BTreeMap<IpAddr, Vec<Held>>,
    /// What a container was attached with.
    of: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Whose DEL has begun: what an ADD that is still under way comes to means nothing.
    ended: BTreeSet<String>,
    wrong: Vec<String>,
}

struct Held {
    node: String,
    container: String,
    from: Instant,
    to: Option<Instant>,
}

impl Referee {
    pub(crate) fn new(cool_down: Duration) -> Self {
        Self { began: Instant::now(), cool_down, book: Mutex::default() }
    }

    /// ADD of a container has succeeded; once more is no other attachment.
    pub(crate) fn attached(&self, node: &str, container: &str, addresses: &[IpAddr]) {
        let now = Instant::now();
        let mut book = self.book.lock().unwrap();
        let Book { held: all, of, ended, wrong } = &mut *book;
        for address in addresses.iter().filter(|_| !ended.contains(container)) {
            let held = all.entry(*address).or_default();
            if held.last().is_some_and(|last| last.container == container && last.to.is_none()) {
                continue;
            }
            let rested = held.iter().all(|one| one.to.is_some_and(|to| to + self.cool_down <= now + CLOCKS));
            of.entry(container.to_owned()).or_default().insert(*address);
            held.push(Held { node: node.to_owned(), container: container.to_owned(), from: now, to: None });
            if !rested {
                wrong.push(format!("{address} was given before it was free and had rested:\n{}", self.history(held)));
            }
        }
    }

    /// DEL of a container is about to be called, its namespace is about to vanish, or nobody means it any more.
    pub(crate) fn released(&self, container: &str) {
        let now = Instant::now();
        let mut book = self.book.lock().unwrap();
        let Book { held: all, of, ended, .. } = &mut *book;
        ended.insert(container.to_owned());
        for address in of.get(container).into_iter().flatten() {
            let held = all.get_mut(address).into_iter().flatten();
            held.filter(|one| one.container == container && one.to.is_none()).for_each(|one| one.to = Some(now));
        }
    }

    /// Something else that must not be.
    pub(crate) fn wrong(&self, container: &str, what: &str) {
        let mut book = self.book.lock().unwrap();
        let its = book.held.values().filter(|held| held.iter().any(|one| one.container == container));
        let histories: String = its.map(|held| self.history(held)).collect();
        book.wrong.push(format!("{container}: {what}\n{histories}"));
    }

    /// How many addresses were given, and how often all together.
    pub(crate) fn given(&self) -> (usize, usize) {
        let book = self.book.lock().unwrap();
        (book.held.len(), book.held.values().map(Vec::len).sum())
    }

    /// What was found.
    pub(crate) fn verdict(&self) -> Vec<String> {
        self.book.lock().unwrap().wrong.clone()
    }

    fn history(&self, held: &[Held]) -> String {
        let mut text = String::new();
        for one in held {
            let at = |moment: Instant| format!("{:.3} s", (moment - self.began).as_secs_f64());
            let to = one.to.map_or_else(|| "now".to_owned(), at);
            let _ = writeln!(text, "  {} of {}: {} to {to}", one.container, one.node, at(one.from));
        }
        text
    }
}

#[test]
fn the_referee_sees_what_overlaps_and_what_has_not_rested() {
    let address: IpAddr = "10.42.0.1".parse().unwrap();
    let referee = Referee::new(Duration::from_secs(60));
    referee.attached("n1", "a", &[address]);
    referee.attached("n1", "a", &[address]);
    assert!(referee.verdict().is_empty() && referee.given() == (1, 1));
    referee.attached("n2", "b", &[address]);
    assert_eq!(referee.verdict().len(), 1, "two at once");
    let referee = Referee::new(Duration::from_secs(60));
    referee.attached("n1", "a", &[address]);
    referee.released("a");
    referee.attached("n1", "b", &[address]);
    assert!(referee.verdict()[0].contains("a of n1") && referee.verdict()[0].contains("b of n1"), "too early");
    let referee = Referee::new(Duration::ZERO);
    referee.attached("n1", "a", &[address]);
    referee.released("a");
    referee.attached("n2", "b", &[address]);
    referee.attached("n1", "a", &[address]);
    assert!(referee.verdict().is_empty(), "an ADD that a DEL has overtaken");
}
