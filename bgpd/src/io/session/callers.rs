//! Peers that are there because they call from a range: they come with their first connection, and go some time after the last one.

use super::Io;
use crate::fsm;
use crate::io::planner::Command;
use crate::rib::PeerId;
use crate::scoped::ScopedAddr;
use crate::wire::{Family, Negotiated};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tracing::info;

/// How long a caller waits at most until it is a peer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a peer is remembered after a session that ended for good, so that it can be seen why.
const MEMORY: Duration = Duration::from_secs(10);

impl Io {
    /// Somebody calls who is no peer. Gives the connection back if he is not to be one.
    pub(super) fn call(&mut self, stream: TcpStream, remote: ScopedAddr) -> Option<TcpStream> {
        let templates = self.plan.as_ref().map(|plan| &plan.config.templates)?;
        let Some((name, range)) = templates.range_of(remote.address) else { return Some(stream) };
        let is_of = |(id, peer): &(&PeerId, &super::Neighbour)| {
            peer.config.range.as_deref() == Some(name) && !self.going.contains(id)
        };
        let others = self.callers.keys().filter(|caller| **caller != remote);
        let waiting = others.filter(|caller| range.prefix.contains(&caller.address)).count();
        if self.peers.iter().filter(is_of).count() + waiting >= usize::from(range.most) {
            if let Some(left_out) = self.strangers.admit(Instant::now()) {
                info!(%remote, range = name, most = range.most, left_out, "connection closed: the range has maxPeers already");
            }
            return None;
        }
        let planner = self.planner.upgrade()?;
        if planner.send(Command::Caller(remote, name.to_owned())).is_ok() {
            // A second call takes the place of the first.
            self.callers.insert(remote, (stream, Instant::now()));
        }
        None
    }

    /// A caller has become a peer.
    pub(super) fn take_caller(&mut self, id: PeerId, remote: ScopedAddr) {
        if let Some((stream, _)) = self.callers.remove(&remote) {
            self.welcome(id, stream);
        }
    }

    /// One that called is a peer by its address now: it does not go any more, and who waits there is welcome.
    pub(super) fn stays(&mut self, id: PeerId, remote: ScopedAddr) {
        self.expiries.retain(|(_, of)| *of != id);
        self.going.remove(&id);
        self.take_caller(id, remote);
    }

    /// Who has not become a peer meanwhile is not going to.
    pub(super) fn forget_callers(&mut self) {
        self.callers.retain(|_, (_, since)| since.elapsed() < PATIENCE);
    }

    /// Notes since when a peer that called has no connection any more.
    pub(super) fn note_idle(&mut self, id: PeerId) {
        let now = self.now();
        let Some(peer) = self.peers.get(&id).filter(|peer| peer.config.range.is_some()) else { return };
        let idle = peer.connections.is_empty();
        let noted = self.expiries.iter().any(|(_, of)| *of == id);
        if idle && !noted {
            // Who is left alone for what he did is remembered for that time, or his next call would begin afresh.
            let at = (now + peer.kept.max(MEMORY)).max(peer.fsm.refuses_until().unwrap_or(now));
            self.expiries.insert((at, id));
        } else if !idle && noted {
            self.expiries.retain(|(_, of)| *of != id);
        }
    }

    /// Peers that called and are not back: nothing is kept of them any more.
    pub(super) fn expire_callers(&mut self) {
        let now = self.now();
        while let Some((at, id)) = self.expiries.first().copied().filter(|(at, _)| *at <= now) {
            self.expiries.remove(&(at, id));
            let caller = self.peers.get(&id).filter(|peer| peer.config.range.is_some());
            if let (Some(peer), Some(planner)) = (caller, self.planner.upgrade()) {
                info!(peer = peer.name, "the caller is gone");
                // Until the plan without it is here it is a peer that nobody can be any more.
                if planner.send(Command::Gone(peer.config.remote())).is_ok() {
                    self.going.insert(id);
                }
            }
        }
    }
}

/// For how long its routes are kept when such a session breaks (RFC 4724, RFC 9494).
pub(super) fn kept_for(negotiated: &Negotiated) -> fsm::Time {
    // One that names no family keeps our routes, and nobody keeps its own (BIRD's `graceful restart aware`).
    let restart = negotiated.graceful_restart.as_ref().filter(|restart| !restart.families.is_empty());
    let restart = restart.map_or(0, |restart| u32::from(restart.restart_time));
    let long =
        |family: Family| negotiated.long_lived.as_ref().and_then(|long| long.of(family)).map(|(_, seconds)| seconds);
    let long = Family::ALL.into_iter().filter_map(long).max().unwrap_or(0);
    Duration::from_secs(u64::from(restart) + u64::from(long))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::handle::Beside;
    use crate::io::planner;
    use crate::io::session::Forwarding;
    use crate::speaker::{Plan, Range, Seen, sample_config, sample_peer};
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;
    use std::sync::{Arc, mpsc};
    use tokio::net::TcpListener;

    /// The I/O thread's state, and the planner's end of it.
    struct Desk {
        io: Io,
        commands: mpsc::Receiver<Command>,
        _planner: Arc<planner::Planner>,
        seen: Seen,
        /// Peers by address.
        fixed: BTreeMap<String, crate::speaker::Peer>,
        plan: Plan,
        _rib: tokio::sync::mpsc::Receiver<crate::io::rib::Command>,
    }

    impl Desk {
        /// With one open range.
        fn new() -> Self {
            let (to_rib, _rib) = tokio::sync::mpsc::channel(1024);
            let (sender, commands) = mpsc::channel();
            let planner = Arc::new(sender);
            let io = Io::new(to_rib, 1, Forwarding::Fresh, Beside::default(), Arc::downgrade(&planner));
            let mut config = sample_config(&[]);
            let prefix = "127.0.0.0/8".parse().unwrap();
            let range = Range { prefix, most: 2, peer: sample_peer("0.0.0.0", 65001) };
            config.templates.ranges = [("leafs".to_owned(), range)].into();
            let plan = Plan::first(config);
            let mut desk =
                Self { io, commands, _planner: planner, seen: Seen::default(), fixed: BTreeMap::new(), plan, _rib };
            desk.io.follow(Arc::new(desk.plan.clone()));
            desk
        }

        /// Somebody calls.
        async fn call(&mut self, listener: &TcpListener) -> TcpStream {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (accepted, remote) = listener.accept().await.unwrap();
            self.io.accepted(accepted, ScopedAddr::from(remote.ip()));
            stream
        }

        /// The planner does what it was asked; each command is a plan. Returns what it was asked.
        fn plan(&mut self) -> Vec<&'static str> {
            let mut asked = Vec::new();
            while let Ok(command) = self.commands.try_recv() {
                asked.push(match command {
                    Command::Caller(address, range) => {
                        self.seen.callers.insert(address, range);
                        "come"
                    }
                    Command::Gone(address) => {
                        self.seen.callers.remove(&address);
                        "gone"
                    }
                    _ => "other",
                });
                self.follow();
            }
            asked
        }

        /// What is configured now, with who calls, is what is in force.
        fn follow(&mut self) {
            let base = crate::speaker::Config { peers: self.fixed.clone(), ..(*self.plan.config).clone() };
            self.seen.forget_strangers(&base);
            self.plan = self.plan.next(self.seen.expand(&base));
            self.io.follow(Arc::new(self.plan.clone()));
        }

        /// Who calls is configured by his address.
        fn fix(&mut self) {
            self.fixed.insert("fixed".to_owned(), sample_peer("127.0.0.1", 65001));
            self.follow();
        }

        /// Connections of each peer.
        fn connections(&self) -> Vec<usize> {
            self.io.peers.values().map(|peer| peer.connections.len()).collect()
        }

        /// The only peer's time is over.
        fn expire(&mut self) {
            let id = *self.io.peers.keys().next().unwrap();
            self.io.expiries.insert((Duration::ZERO, id));
            self.io.expire_callers();
        }
    }

    #[tokio::test]
    async fn a_caller_that_is_back_in_the_moment_it_is_forgotten_is_a_peer_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut desk = Desk::new();
        let _first = desk.call(&listener).await;
        assert_eq!((desk.plan(), desk.connections()), (vec!["come"], vec![1]));
        desk.expire();
        // The planner has not heard of either yet.
        let _second = desk.call(&listener).await;
        let _third = desk.call(&listener).await;
        assert_eq!(desk.plan(), ["gone", "come", "come"]);
        assert_eq!(desk.connections(), [1], "of the last call");
        assert_eq!((desk.seen.callers.len(), desk.io.callers.len(), desk.io.going.len()), (1, 0, 0));
        desk.expire();
        assert_eq!((desk.plan(), desk.connections().len(), desk.seen.callers.len()), (vec!["gone"], 0, 0));
    }

    #[tokio::test]
    async fn a_caller_that_is_configured_by_its_address_hears_who_calls() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut desk = Desk::new();
        let _first = desk.call(&listener).await;
        assert_eq!((desk.plan(), desk.connections()), (vec!["come"], vec![1]));
        let id = *desk.io.peers.keys().next().unwrap();
        desk.io.expiries.insert((Duration::MAX, id));
        desk.fix();
        assert_eq!(
            (desk.io.peers.keys().next(), desk.io.expiries.len()),
            (Some(&id), 0),
            "the same, and it does not go"
        );
        desk.expire();
        let _second = desk.call(&listener).await;
        assert_eq!((desk.plan(), desk.io.callers.len(), desk.io.going.len()), (vec![], 0, 0), "nobody is asked");
    }

    #[tokio::test]
    async fn a_caller_that_is_configured_while_it_is_being_forgotten_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut desk = Desk::new();
        let first = desk.call(&listener).await;
        desk.plan();
        drop(first);
        desk.expire();
        let _second = desk.call(&listener).await;
        assert_eq!((desk.io.going.len(), desk.io.callers.len()), (1, 1));
        // The configuration comes to the planner before both.
        desk.fix();
        assert_eq!((desk.io.going.len(), desk.io.callers.len()), (0, 0), "it is in");
        let connections = desk.connections();
        assert_eq!(desk.plan(), ["gone", "come"]);
        assert_eq!((desk.connections(), desk.seen.callers.len()), (connections, 0));
    }

    #[tokio::test]
    async fn nothing_is_kept_of_callers_that_are_gone_for_long() {
        let mut desk = Desk::new();
        desk.io.started = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        let mut remember = BTreeSet::new();
        for number in 1..=200u8 {
            let remote = ScopedAddr::from(IpAddr::from([127, 0, 1, number]));
            desk.seen.callers.insert(remote, "leafs".to_owned());
            let base = crate::speaker::Config { peers: Default::default(), ..(*desk.plan.config).clone() };
            desk.plan = desk.plan.next(desk.seen.expand(&base));
            desk.io.follow(Arc::new(desk.plan.clone()));
            // It has had a session.
            desk.io.met.insert(remote);
            desk.io.lost.insert(remote, (String::new(), desk.io.started));
            desk.seen.callers.clear();
            desk.plan = desk.plan.next(base);
            desk.io.follow(Arc::new(desk.plan.clone()));
            remember
                .insert(desk.io.met.len() + desk.io.lost.len() + desk.io.spoken_to.len() + desk.io.strangers_met.len());
        }
        assert!(remember.iter().all(|kept| *kept <= 2), "{remember:?}");
        // One that is written down is known for as long as we run.
        let fixed = ScopedAddr::from(IpAddr::from([10, 0, 0, 2]));
        desk.io.met.insert(fixed);
        desk.io.forget_past();
        assert!(desk.io.met.contains(&fixed));
    }
}
