//! Asks other nodes by raw sockets whether protocol 4 reaches them. [`Prober`] decides whom and what follows; this sends, hears, and looks at the
//! clock. Nothing is open while no route leads through IP-in-IP.

use super::SpeakerHandle;
use crate::fib::{Ends, Fib};
use crate::probe::{News, Prober, Report, Session, Signs, Words};
use sockets::Sockets;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};
use twill_crds::names::IPIP_DEVICE;

mod sockets;

/// How often it is asked where IP-in-IP leads. It costs a walk over the learned routes where a pool asks for it, and nothing else.
const LOOK: Duration = Duration::from_secs(10);
/// Counters of links in this thread's network namespace.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// Asks for ever, and tells what is known.
pub(super) async fn run(speaker: SpeakerHandle, fib: Fib, told: watch::Sender<Report>, seed: u64) {
    let mut probing = Probing {
        speaker,
        prober: Prober::new(seed),
        started: Instant::now(),
        sockets: None,
        words: Words::default(),
        told,
        refused: false,
    };
    let mut look = tokio::time::interval(LOOK);
    loop {
        let due = probing.prober.poll_timeout().map(|at| probing.started + at);
        let sockets = probing.sockets.as_ref();
        tokio::select! {
            _ = look.tick() => {
                if let Some(ends) = ends(&fib).await {
                    probing.want(ends);
                }
            }
            () = readable(sockets) => probing.listen(),
            () = super::sleep_until(due), if due.is_some() => probing.act().await,
        }
        probing.tell();
    }
}

struct Probing {
    speaker: SpeakerHandle,
    prober: Prober,
    started: Instant,
    sockets: Option<Sockets>,
    words: Words,
    told: watch::Sender<Report>,
    /// That there are no sockets was said.
    refused: bool,
}

impl Probing {
    fn want(&mut self, ends: Ends) {
        if ends.others.is_empty() {
            self.sockets = None;
        } else if self.sockets.is_none() {
            match Sockets::open(self.prober.id()) {
                Ok(sockets) => self.sockets = Some(sockets),
                Err(error) if self.refused => debug!(%error, "nobody is asked whether protocol 4 passes"),
                Err(error) => {
                    self.refused = true;
                    warn!(%error, "nobody is asked whether protocol 4 passes between nodes; that needs CAP_NET_RAW");
                }
            }
        }
        let ends = if self.sockets.is_some() { ends } else { Ends::default() };
        self.prober.want(self.started.elapsed(), ends);
    }

    /// Hears what has come.
    fn listen(&mut self) {
        if let Some(sockets) = &self.sockets {
            sockets.read(|heard| self.prober.hear(heard));
        }
    }

    /// Sends what is due, and judges rounds that are over. What waits in the socket goes first: who is busy takes no answer for a loss.
    async fn act(&mut self) {
        self.listen();
        let now = self.started.elapsed();
        let signs = if self.prober.needs_signs(now) { self.signs(now).await } else { Signs::default() };
        let mut out = Vec::new();
        self.prober.handle_timeout(now, &signs, &mut out);
        let Some(sockets) = &self.sockets else { return };
        for ask in out {
            if let Err(error) = sockets.send(&ask) {
                // Sent again soon; that a route has just gone, or an address, is no news.
                debug!(way = ?ask.way, to = %ask.to, %error, "a request to another node was not sent");
            }
        }
    }

    async fn signs(&self, now: Duration) -> Signs {
        let session = |(address, is_up, ago): (IpAddr, bool, Option<Duration>)| match address {
            IpAddr::V4(address) if is_up => {
                Some((address, Session::Up { heard: ago.and_then(|ago| now.checked_sub(ago)) }))
            }
            IpAddr::V4(address) => Some((address, Session::Down)),
            IpAddr::V6(_) => None,
        };
        let sessions = self.speaker.heard().await.into_iter().filter_map(session).collect();
        Signs { sessions, received: std::fs::read_to_string(COUNTERS).ok().and_then(|text| received(&text)) }
    }

    /// Says what is new.
    fn tell(&mut self) {
        let mut now = self.prober.report();
        match self.words.hear(self.started.elapsed(), &now) {
            Some(News::Filtered(problem)) => warn!(problem, "a tunnel does not work"),
            Some(News::Passes) => info!("IP protocol 4 gets through to all nodes that are asked"),
            Some(News::Unknown) => {
                info!("the nodes that IP protocol 4 does not get through to are asked no more, or are gone")
            }
            None => {}
        }
        now.said = self.words.said().map(str::to_owned);
        self.told.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }
}

/// Where IP-in-IP leads; none if that cannot be known now.
async fn ends(fib: &Fib) -> Option<Ends> {
    let (reply, ends) = oneshot::channel();
    // That fails only if nobody waits any more.
    let asked = fib.try_ends(move |ends| drop(reply.send(ends)));
    if asked { ends.await.ok() } else { None }
}

async fn readable(sockets: Option<&Sockets>) {
    match sockets {
        Some(sockets) => sockets.readable().await,
        None => std::future::pending().await,
    }
}

/// Packets that have come out of the IP-in-IP device, from `/proc/net/dev`.
fn received(counters: &str) -> Option<u64> {
    let of = |line: &str| line.trim_start().strip_prefix(IPIP_DEVICE)?.strip_prefix(':').map(str::to_owned);
    counters.lines().find_map(of)?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
