//! Unnumbered peers: the thread that listens for router advertisements and sends ours.
//!
//! In flow the names of interfaces, ICMPv6 messages and the kernel's notifications; out flow ICMPv6 messages, and what is known of each
//! interface. It decides nothing: [`crate::nd::Link`] does. No setting of the kernel is changed.

mod kernel;
mod socket;

use crate::nd::{Link, Send, Sight, message};
use kernel::Kernel;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket::Icmp;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tracing::warn;

/// Sights of all interfaces that are watched, by name.
pub(super) type Sights = BTreeMap<String, Sight>;

/// How soon what could not be read of the kernel is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The thread, to those who ask it. It ends when this is dropped.
pub(super) struct Watch {
    wanted: mpsc::Sender<BTreeSet<String>>,
    wake: UnixStream,
}

impl Watch {
    /// Starts the thread in the caller's network namespace. `tell` is called on it whenever a sight is another.
    ///
    /// # Errors
    /// If the kernel refuses a socket: without CAP_NET_RAW, say.
    pub(super) fn start(seed: u64, tell: impl Fn(Sights) + std::marker::Send + 'static) -> io::Result<Self> {
        let (icmp, kernel) = (Icmp::open()?, Kernel::open()?);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (wanted, names) = mpsc::channel();
        let mut thread = Thread {
            started: Instant::now(),
            seed,
            icmp,
            kernel,
            links: BTreeMap::new(),
            told: Sights::new(),
            tell: Box::new(tell),
            look_at: None,
        };
        std::thread::Builder::new().name("nd".to_owned()).spawn(move || {
            let _guard = super::EndOnPanic;
            thread.run(&names, woken);
        })?;
        Ok(Self { wanted, wake })
    }

    /// From now on these interfaces.
    pub(super) fn want(&self, names: BTreeSet<String>) {
        // Both fail only when the thread has ended, or is awake already.
        drop(self.wanted.send(names));
        let _ = (&self.wake).write(&[1]);
    }
}

struct Watched {
    link: Link,
    mac: Option<[u8; 6]>,
}

struct Thread {
    started: Instant,
    seed: u64,
    icmp: Icmp,
    kernel: Kernel,
    links: BTreeMap<String, Watched>,
    told: Sights,
    tell: Box<dyn Fn(Sights) + std::marker::Send>,
    /// When the kernel has to be looked at.
    look_at: Option<Instant>,
}

impl Thread {
    fn run(&mut self, names: &mpsc::Receiver<BTreeSet<String>>, mut woken: UnixStream) {
        loop {
            self.wait(&woken);
            // What woke us is only that something is there; an error that nothing is.
            let _ = woken.read(&mut [0; 64]);
            loop {
                match names.try_recv() {
                    Ok(names) => self.want(names),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let links = &self.links;
            if self.kernel.changed(|name| links.contains_key(name)) {
                self.look_at = Some(Instant::now());
            }
            if self.look_at.is_some_and(|at| at <= Instant::now()) {
                self.look();
            }
            self.listen();
            self.speak();
            self.say();
        }
    }

    fn wait(&self, woken: &UnixStream) {
        let timers = self.links.values().filter_map(|watched| watched.link.poll_timeout());
        let timers = timers.map(|at| self.started + at);
        let wake = timers.chain(self.look_at).min();
        let timeout = wake.map_or(PollTimeout::NONE, |wake| {
            // Rounded up, so that it is due then.
            let left = wake.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = [
            PollFd::new(self.icmp.fd(), PollFlags::POLLIN),
            PollFd::new(self.kernel.fd(), PollFlags::POLLIN),
            PollFd::new(woken.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted wait is one that ended early.
        let _ = poll(&mut fds, timeout);
    }

    fn want(&mut self, names: BTreeSet<String>) {
        self.links.retain(|name, _| names.contains(name));
        for name in names {
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let seed = self.seed;
            self.links.entry(name).or_insert_with(|| Watched { link: Link::new(seed), mac: None });
        }
        self.look_at = Some(Instant::now());
    }

    fn look(&mut self) {
        self.look_at = None;
        let names: BTreeSet<&str> = self.links.keys().map(String::as_str).collect();
        let interfaces = match self.kernel.read(&names) {
            Ok(interfaces) => interfaces,
            Err(error) => {
                warn!(%error, "the interfaces of unnumbered peers cannot be read; tried again");
                self.look_at = Some(Instant::now() + RETRY);
                return;
            }
        };
        let now = self.started.elapsed();
        let mut usable = BTreeSet::new();
        for (name, watched) in &mut self.links {
            let found = interfaces.get(name.as_str()).cloned().unwrap_or_default();
            watched.mac = found.mac;
            usable.extend(found.index());
            watched.link.observe(now, found.condition(), found.neighbours);
        }
        self.icmp.join(&usable);
    }

    fn listen(&mut self) {
        while let Some((index, source, heard)) = self.icmp.receive() {
            let now = self.started.elapsed();
            let of = |watched: &&mut Watched| matches!(watched.link.sight(), Sight::Up { index: i, .. } if i == index);
            let Some(watched) = self.links.values_mut().find(of) else { continue };
            match message::decode(&heard.octets, source, heard.hop_limit) {
                Some(message::Message::Advertisement(router)) => watched.link.heard(now, router),
                Some(message::Message::Solicitation(asker)) => watched.link.asked(now, asker),
                None => {}
            }
        }
    }

    fn speak(&mut self) {
        let now = self.started.elapsed();
        for (name, watched) in &mut self.links {
            let mut out = Vec::new();
            watched.link.handle_timeout(now, &mut out);
            let Sight::Up { index, own, .. } = watched.link.sight() else { continue };
            for send in out {
                let (octets, to) = match send {
                    Send::Solicitation => (message::solicitation(watched.mac), ALL_ROUTERS),
                    Send::Advertisement(to) => (message::advertisement(watched.mac), to.unwrap_or(ALL_NODES)),
                };
                if let Err(error) = self.icmp.send(&octets, own, to, index) {
                    // It is said again soon; a link that has just gone is no news.
                    tracing::debug!(interface = name, %error, "cannot send a router advertisement or solicitation");
                }
            }
        }
    }

    fn say(&mut self) {
        let sights: Sights = self.links.iter().map(|(name, watched)| (name.clone(), watched.link.sight())).collect();
        if self.told != sights {
            self.told.clone_from(&sights);
            (self.tell)(sights);
        }
    }
}

/// All nodes on the link (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All routers on the link.
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
