//! What a runtime does with one pod after the other, in all the ways that runtimes do it: in order, twice, too early, at once, or not at all.

use crate::is_ready;
use crate::libcni::{Container, Outcome};
use crate::random::Random;
use crate::world::{Netns, Node, World};
use std::time::Duration;
use twill_lab::io::netns;

/// The longest that a pod lives, that an ADD goes on before it is disturbed, and that a CHECK is tried again for, in milliseconds.
const LIFE: u64 = 300;
const EARLY: u64 = 250;
const PATIENCE: u32 = 20;
/// A kubelet that was refused does not come again at once, in milliseconds: twice as long each time that it is refused again.
const REST: u64 = 1000;
const REFUSALS: u32 = 4;
/// How often a kubelet looks whether the network is ready before it tries all the same.
const LOOKS: u32 = 30;

/// What happens to a pod, and how often of a hundred.
const COURSES: [(u64, Course); 10] = [
    (35, Course::Plain),
    (12, Course::DelDuringAdd),
    (10, Course::AddKilled),
    (10, Course::DelKilled),
    (8, Course::DelTwice),
    (4, Course::DelAlone),
    (8, Course::NetnsGone),
    (4, Course::NetnsGoneDuringAdd),
    (6, Course::Forgotten),
    (3, Course::Collected),
];

#[derive(Clone, Copy)]
enum Course {
    Plain,
    DelDuringAdd,
    AddKilled,
    DelKilled,
    DelTwice,
    DelAlone,
    NetnsGone,
    NetnsGoneDuringAdd,
    Forgotten,
    Collected,
}

/// One of the runtime's many hands.
pub(crate) struct Hand<'a> {
    world: &'a World,
    node: &'a Node,
    number: u64,
    random: Random,
    pods: u64,
    netns: Option<Netns>,
    /// ADDs that were refused since the last one that was not.
    refused: u32,
}

impl<'a> Hand<'a> {
    pub(crate) fn new(world: &'a World, node: &'a Node, number: u64) -> Self {
        let random = Random::new(world.size.seed, number);
        Self { world, node, number, random, pods: 0, netns: None, refused: 0 }
    }

    /// Goes on until enough operations have begun.
    pub(crate) fn work(mut self) {
        while self.world.tally.begun() < self.world.size.operations {
            self.one_pod();
        }
    }

    fn one_pod(&mut self) {
        if self.refused > 0 {
            self.rest();
        }
        self.pods += 1;
        let name = format!("s{}-{}", self.number, self.pods);
        let netns = self.netns();
        let container = self.node.container(&name, &netns);
        let course = self.course();
        self.go(course, &name, &container, &netns);
        if matches!(course, Course::Forgotten) {
            return self.forget(&name, &container);
        }
        // Deleted by force: the runtime hears of it later than everybody else.
        let forced = self.random.percent(20);
        if forced {
            self.node.delete_pod(&name);
        }
        self.world.detach(self.node, &container);
        if !forced {
            self.node.delete_pod(&name);
        }
    }

    /// The same path as before: of the same namespace, or of another one.
    fn netns(&mut self) -> String {
        if self.random.percent(50) {
            self.netns = None;
        }
        let name = format!("{}-pod{}", self.world.lab.name, self.number);
        // It may have vanished.
        if self.netns.as_ref().is_none_or(|netns| netns::inode(&netns.0).is_none()) {
            self.netns = None;
            self.netns = Some(Netns::new(name.clone()));
        }
        name
    }

    fn course(&mut self) -> Course {
        let mut at = self.random.below(100);
        for (share, course) in COURSES {
            if at < share {
                return course;
            }
            at -= share;
        }
        Course::Plain
    }

    /// Everything but the last DEL.
    fn go(&mut self, course: Course, name: &str, container: &Container, netns: &str) {
        let (world, node) = (self.world, self.node);
        let mut added = None;
        let early = Duration::from_millis(self.random.below(EARLY));
        match course {
            Course::Plain | Course::Forgotten => self.live(name, container),
            Course::DelDuringAdd => std::thread::scope(|scope| {
                let add = scope.spawn(|| world.call(node, "ADD", container, None));
                std::thread::sleep(early);
                world.referee.released(&container.id);
                world.call(node, "DEL", container, None);
                added = add.join().unwrap();
            }),
            Course::AddKilled => added = world.call(node, "ADD", container, Some(early)),
            Course::DelKilled => {
                self.live(name, container);
                world.referee.released(&container.id);
                world.call(node, "DEL", container, Some(early / 4));
            }
            Course::DelTwice => {
                self.live(name, container);
                world.referee.released(&container.id);
                world.call(node, "DEL", container, None);
            }
            Course::DelAlone => {}
            Course::NetnsGone => {
                self.live(name, container);
                world.referee.released(&container.id);
                netns::remove(netns).unwrap();
            }
            Course::NetnsGoneDuringAdd => std::thread::scope(|scope| {
                let add = scope.spawn(|| world.call(node, "ADD", container, None));
                std::thread::sleep(early);
                world.referee.released(&container.id);
                netns::remove(netns).unwrap();
                added = add.join().unwrap();
            }),
            Course::Collected => {
                self.live(name, container);
                let _ = world.collect(node);
            }
        }
        self.heard(added.as_ref());
    }

    /// ADD, and what a pod lives for.
    fn live(&mut self, name: &str, container: &Container) {
        let added = self.world.call(self.node, "ADD", container, None);
        self.heard(added.as_ref());
        let Some(Ok(result)) = added else { return };
        if self.random.percent(30) {
            self.node.report(name, &result);
        }
        std::thread::sleep(Duration::from_millis(self.random.below(LIFE)));
        if self.random.percent(30) {
            self.check(container);
        }
    }

    /// What an ADD that was not killed has answered.
    fn heard(&mut self, added: Option<&Outcome>) {
        match added {
            Some(Ok(_)) => self.refused = 0,
            Some(Err(_)) => self.refused += 1,
            None => {}
        }
    }

    /// As a kubelet that was refused: it waits longer each time, and begins nothing while the runtime says that the network is not ready, which
    /// it has from STATUS.
    fn rest(&mut self) {
        let most = REST << (self.refused - 1).min(REFUSALS);
        for _ in 0..LOOKS {
            std::thread::sleep(Duration::from_millis(self.random.below(most)));
            if is_ready(self.node) || self.world.tally.begun() >= self.world.size.operations {
                break;
            }
        }
    }

    /// What is attached is whole: at once, or when a felix that was killed is back.
    fn check(&self, container: &Container) {
        for _ in 0..PATIENCE {
            match self.world.call(self.node, "CHECK", container, None) {
                // Nothing is attached.
                Some(Err(error)) if error["code"] == 3 => {
                    return self.world.referee.wrong(&container.id, &format!("it was attached, and is not: {error}"));
                }
                Some(Err(error)) if error["code"] != 11 => {
                    self.world.tally.count("CHECK, tried again");
                    std::thread::sleep(Duration::from_millis(500));
                }
                _ => return,
            }
        }
        self.world.referee.wrong(&container.id, "CHECK finds it not as it was attached, for ten seconds");
    }

    /// A pod that its runtime does not remember: GC's to find, with its namespace or without.
    fn forget(&mut self, name: &str, container: &Container) {
        self.world.referee.released(&container.id);
        self.node.containers.lock().unwrap().remove(&container.id);
        if self.random.percent(50) {
            self.netns = None;
        }
        self.node.delete_pod(name);
        self.world.tally.count("forgotten by the runtime");
    }
}
