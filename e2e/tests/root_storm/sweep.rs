//! felix killed before each of its writes in turn: of an ADD, of a DEL, and of a start after which it has a DEL to perform. One node, one call at a
//! time, nothing left to chance but what felix does every second.
//!
//! After each the runtime goes on in one of two ways: it tries the same call again once felix is back, or it gives up while felix is away.

use crate::libcni::Container;
use crate::points::Doomed;
use crate::world::{Netns, Node, World, addresses};
use crate::{SOON, leftovers};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use twill_e2e::within;

/// More than any of them has.
const MOST: usize = 500;
/// A start has many writes, and takes long.
const STARTS: usize = 4;

/// What a runtime does after a call during which felix died.
#[derive(Clone, Copy, Debug)]
enum Then {
    TriesAgain,
    GivesUp,
}

const BOTH: [Then; 2] = [Then::TriesAgain, Then::GivesUp];

/// During what felix is killed.
#[derive(Clone, Copy, Debug)]
enum During {
    Add,
    Del,
    Start,
}

/// Kills felix before every `every`th write; which, and how often, is printed.
pub(crate) fn sweep(world: &World, every: usize) {
    let sweep = Sweep { world, node: &world.nodes[0], before: leftovers::of(&world.lab, &world.nodes[0]).unwrap() };
    for (during, every) in [(During::Add, every), (During::Del, every), (During::Start, every * STARTS)] {
        let mut points = BTreeMap::<String, usize>::new();
        let went_through = (1..MOST).step_by(every).find(|n| {
            // Where some points alone are tried, they get one way each.
            let ways = match during {
                During::Start => &BOTH[..1],
                _ if every == 1 => &BOTH[..],
                _ => &BOTH[n / every % 2..][..1],
            };
            // All of them, and it went through if in none it was killed.
            let killed = ways.iter().filter_map(|then| sweep.one(during, *n, *then)).collect::<Vec<_>>();
            let went_through = killed.is_empty();
            killed.into_iter().for_each(|point| *points.entry(point).or_default() += 1);
            went_through
        });
        let killed: usize = points.values().sum();
        println!(
            "{during:?}: felix was killed {killed} times before {points:?}, and not before write {went_through:?}"
        );
        assert!(went_through.is_some() && killed * every > 10, "{during:?}: {points:?}");
    }
    assert_eq!(world.referee.verdict(), Vec::<String>::new());
}

struct Sweep<'a> {
    world: &'a World,
    node: &'a Node,
    before: BTreeSet<String>,
}

impl Sweep<'_> {
    /// felix killed before its `n`th write. Before what; none: it wrote less often.
    fn one(&self, during: During, n: usize, then: Then) -> Option<String> {
        let name = format!("{during:?}-{n}-{then:?}").to_lowercase();
        let netns = Netns::new(format!("{}-pod", self.world.lab.name));
        let container = self.node.container(&name, &netns.0);
        let killed = match during {
            During::Add => self.add(&container, n, then),
            During::Del => self.del(&container, n, then),
            During::Start => self.start(&container, n),
        };
        self.node.delete_pod(&name);
        self.nothing_is_left(&format!("{name}, killed before {killed:?}"));
        killed
    }

    fn add(&self, container: &Container, n: usize, then: Then) -> Option<String> {
        let doomed = self.doom(n);
        let outcome = self.world.call(self.node, "ADD", container, None).unwrap();
        let killed = doomed.end();
        assert!(killed.is_some() || outcome.is_ok(), "nothing happened to felix: {outcome:?}");
        if killed.is_some() && matches!(then, Then::GivesUp) {
            self.detach_without_felix(container);
            return killed;
        }
        self.restart();
        if let Ok(result) = &outcome {
            // The runtime has its result: so it stands.
            self.check(container);
            assert_eq!(addresses(result), self.attach(container), "{}", container.id);
        }
        self.attach(container);
        self.check(container);
        assert!(self.world.detach(self.node, container), "{}, {killed:?}", container.id);
        killed
    }

    fn del(&self, container: &Container, n: usize, then: Then) -> Option<String> {
        self.attach(container);
        let doomed = self.doom(n);
        self.world.referee.released(&container.id);
        let outcome = self.world.call(self.node, "DEL", container, None).unwrap();
        let killed = doomed.end();
        assert!(killed.is_some() || outcome.is_ok(), "nothing happened to felix: {outcome:?}");
        if killed.is_some() && matches!(then, Then::GivesUp) {
            self.detach_without_felix(container);
        } else {
            self.restart();
            assert!(self.world.detach(self.node, container), "{}, {killed:?}", container.id);
        }
        killed
    }

    /// A start that finds one attachment whose DEL was left, and one that stays.
    fn start(&self, container: &Container, n: usize) -> Option<String> {
        let name = container.id.replacen("c-", "stays-", 1);
        let netns = Netns::new(format!("{}-stays", self.world.lab.name));
        let stays = self.node.container(&name, &netns.0);
        let had = self.attach(&stays);
        self.attach(container);
        self.node.felix.lock().unwrap().kill();
        assert!(self.world.detach(self.node, container), "DEL succeeds while felix is away");
        self.node.felix.lock().unwrap().start();
        let doomed = self.doom(n);
        within(SOON, "felix is killed or ready", || doomed.is_over() || crate::is_ready(self.node)).unwrap();
        let killed = doomed.end();
        self.restart();
        self.check(&stays);
        assert_eq!(self.attach(&stays), had, "{name}, {killed:?}");
        assert!(self.world.detach(self.node, &stays), "{name}, {killed:?}");
        self.node.delete_pod(&name);
        killed
    }

    fn doom(&self, n: usize) -> Doomed {
        Doomed::at(self.node.felix.lock().unwrap().pid(), n)
    }

    fn detach_without_felix(&self, container: &Container) {
        assert!(self.world.detach(self.node, container), "{}: DEL succeeds while felix is away", container.id);
        self.restart();
    }

    fn attach(&self, container: &Container) -> Vec<IpAddr> {
        let result = self.world.call(self.node, "ADD", container, None).unwrap();
        addresses(&result.unwrap_or_else(|error| panic!("{}: {error}", container.id)))
    }

    fn check(&self, container: &Container) {
        let outcome = self.world.call(self.node, "CHECK", container, None).unwrap();
        outcome.unwrap_or_else(|error| panic!("{}: {error}", container.id));
    }

    /// A felix that runs and is ready.
    fn restart(&self) {
        self.node.felix.lock().unwrap().start();
        within(SOON, "felix is ready", || crate::is_ready(self.node)).unwrap();
    }

    fn nothing_is_left(&self, after: &str) {
        let mut left = Vec::new();
        let clean = within(SOON, "nothing is left", || {
            let now = leftovers::of(&self.world.lab, self.node);
            left = now.map_or_else(|e| vec![format!("{e:#}")], |now| leftovers::differences(&self.before, &now));
            left.is_empty()
        });
        assert!(clean.is_ok(), "{after}: {left:#?}");
    }
}
