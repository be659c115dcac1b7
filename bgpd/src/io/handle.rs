//! The speaker as the rest of the process sees it: a handle to its threads.

use super::bmp::Stations;
use super::planner::{self, Planner};
use super::recorder::Recorder;
use super::{bfd, netlink, rib, session};
use crate::fib::{self, Feedback, Fib, RouteState};
use crate::fsm::{State, Stop};
use crate::rib::PeerId;
use crate::speaker::{Absent, Config};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use twill_crds::control::{PeerStatus, RouteQuery, RouteStatus, RouteView};

/// How long peers know that we are about to go before we do: time to choose other ways, and to tell them on.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running speaker; cheap to clone. Its threads end when the last handle is gone, or after [`SpeakerHandle::leave`].
#[derive(Clone)]
pub struct SpeakerHandle {
    planner: Arc<Planner>,
    rib: mpsc::Sender<rib::Command>,
    io: mpsc::UnboundedSender<session::Command>,
    fib: Option<Fib>,
    status: watch::Receiver<fib::Status>,
    stations: Stations,
}

/// What works beside a speaker.
#[derive(Default)]
pub struct Beside {
    /// Who speaks BFD with peers that are to have it.
    pub responder: Option<bfd::Responder>,
    /// Who writes down what happens on sessions.
    pub(crate) recorder: Option<Recorder>,
}

impl SpeakerHandle {
    /// Starts the I/O thread, the RIB thread and, with a configuration for it, the FIB's thread, all in the caller's
    /// network namespace. `seed` is for jitter.
    ///
    /// # Errors
    /// If the kernel refuses a thread or a netlink socket.
    pub fn start(install: Option<fib::Config>, seed: u64) -> io::Result<Self> {
        Self::start_with(install, Beside::default(), seed)
    }

    /// The same, with what works beside it.
    ///
    /// # Errors
    /// As [`SpeakerHandle::start`].
    pub fn start_with(install: Option<fib::Config>, beside: Beside, seed: u64) -> io::Result<Self> {
        let (hops, feedback) = mpsc::unbounded_channel();
        let (status_sender, status) = watch::channel(fib::Status::default());
        let tell = move |feedback| match feedback {
            Feedback::Status(status) => drop(status_sender.send_replace(status)),
            of_routes => drop(hops.send(of_routes)),
        };
        let (fib, kernel, adopted) = match install.map(|config| netlink::start(config, tell)).transpose()? {
            Some((fib, Some(learned))) => (Some(fib), session::Forwarding::Adopted, Some(learned)),
            Some((fib, None)) => (Some(fib), session::Forwarding::Fresh, None),
            None => (None, session::Forwarding::Elsewhere, None),
        };
        let (outputs, from_rib) = mpsc::unbounded_channel();
        let rib = rib::start(fib.clone(), adopted, feedback, outputs)?;
        let (io, commands) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let to_rib = rib.clone();
        let (planner, queue) = planner::channel_pair();
        queue.start(rib.clone(), io.clone(), seed)?;
        let to_planner = Arc::downgrade(&planner);
        std::thread::Builder::new().name("io".to_owned()).spawn(move || {
            let _guard = super::EndOnPanic;
            runtime.block_on(async move {
                session::Io::new(to_rib, seed, kernel, beside, to_planner).run(commands, from_rib).await
            });
        })?;
        let stations = Stations::new(rib.clone());
        Ok(Self { planner, rib, io, fib, status, stations })
    }

    /// From now on this configuration. Sessions that it does not change do not notice.
    pub async fn reconfigure(&self, config: Config) {
        self.stations.configure(&config.bmp);
        let (done, planned) = oneshot::channel();
        // Fails only at the end.
        drop(self.planner.send(planner::Command::Configure(Box::new(config), done)));
        drop(planned.await);
    }

    /// The kernel's side, if routes are installed.
    #[must_use]
    pub fn fib(&self) -> Option<&Fib> {
        self.fib.as_ref()
    }

    /// What the FIB last said of itself.
    #[must_use]
    pub fn fib_status(&self) -> watch::Receiver<fib::Status> {
        self.status.clone()
    }

    /// All peers by name, and what is wrong with our own sockets and prefixes.
    pub async fn peers(&self) -> (Vec<PeerStatus>, Vec<String>) {
        let (reply, sessions) = oneshot::channel();
        drop(self.io.send(session::Command::Sessions(reply)));
        let sessions = sessions.await.unwrap_or_default();
        let ids: Vec<PeerId> = sessions.peers.iter().map(|peer| peer.peer).collect();
        let (reply, counts) = oneshot::channel();
        drop(self.rib.send(rib::Command::Counts(ids, reply)).await);
        let (counts, mut problems) = counts.await.unwrap_or_default();
        let mut peers: Vec<PeerStatus> = sessions
            .peers
            .into_iter()
            .zip(counts)
            .map(|(peer, counts)| PeerStatus {
                name: peer.name,
                address: Some(peer.address.address),
                interface: peer.interface,
                missing: None,
                asn: peer.asn,
                role: peer.role.to_owned(),
                state: peer.state.to_string(),
                since: peer.since.as_secs(),
                received: counts.received,
                advertised: counts.advertised,
                rejected: counts.rejected,
                too_long: counts.too_long,
                last_error: peer.last_error.filter(|_| peer.state != State::Established),
                bfd: peer.bfd,
                sessions: peer.sessions,
            })
            .collect();
        let (reply, absent) = oneshot::channel();
        drop(self.planner.send(planner::Command::Absent(reply)));
        let (absent, odd) = absent.await.unwrap_or_default();
        peers.extend(absent.into_iter().map(missing));
        peers.sort_by(|one, other| one.name.cmp(&other.name));
        problems.extend(sessions.problems);
        problems.extend(self.stations.problems());
        problems.extend(odd);
        (peers, problems)
    }

    /// Peers by their address: whether the session with one is Established, and how long ago something was heard of it, at most.
    pub async fn heard(&self) -> Vec<(IpAddr, bool, Option<Duration>)> {
        let (reply, sessions) = oneshot::channel();
        drop(self.io.send(session::Command::Sessions(reply)));
        let sessions = sessions.await.unwrap_or_default();
        let of = |peer: session::SessionState| (peer.address.address, peer.state == State::Established, peer.heard);
        sessions.peers.into_iter().map(of).collect()
    }

    /// Who may have routes of ours, and has no session in which he could be told that they are gone.
    pub async fn untold(&self) -> Vec<String> {
        let (reply, sessions) = oneshot::channel();
        drop(self.io.send(session::Command::Sessions(reply)));
        sessions.await.unwrap_or_default().untold
    }

    /// Number of the decision about sessions that is in force, and why the node still needs what that does away with, if it does.
    pub async fn retiring(&self) -> (Option<u32>, Option<String>) {
        let (reply, retiring) = oneshot::channel();
        drop(self.rib.send(rib::Command::Retiring(reply)).await);
        retiring.await.unwrap_or_default()
    }

    /// Routes; those that were taken with what the kernel has of them.
    pub async fn routes(&self, query: RouteQuery) -> Vec<RouteStatus> {
        let taken = query.view == RouteView::Taken;
        let (reply, routes) = oneshot::channel();
        drop(self.rib.send(rib::Command::Routes(query, reply)).await);
        let mut routes = routes.await.unwrap_or_default();
        let Some(fib) = self.fib.as_ref().filter(|_| taken) else { return routes };
        let mut prefixes: Vec<IpNet> = routes.iter().map(|route| route.prefix).collect();
        prefixes.dedup();
        let (reply, states) = oneshot::channel();
        // Asking may wait for the FIB's queue, which must not hold up the caller's other tasks.
        let fib = fib.clone();
        let asked = tokio::task::spawn_blocking(move || fib.show(prefixes, move |states| drop(reply.send(states))));
        drop(asked.await);
        let states: BTreeMap<IpNet, RouteState> =
            states.await.unwrap_or_default().into_iter().map(|state| (state.prefix, state)).collect();
        for route in &mut routes {
            if let Some(state) = states.get(&route.prefix) {
                fill_in(route, state);
            }
        }
        routes
    }

    /// Peers hear that this speaker is about to go (RFC 8326), and have the time to find other ways, if there is a peer.
    pub async fn announce_leaving(&self) {
        let (reply, config) = oneshot::channel();
        drop(self.planner.send(planner::Command::Configuration(reply)));
        let config = config.await.unwrap_or_default();
        let Some(config) = config.filter(|config| !config.leaving && config.shutdown.is_none()) else { return };
        self.reconfigure(Config { leaving: true, ..config }).await;
        if self.peers().await.0.iter().any(|peer| peer.state == "Established") {
            tracing::info!("peers hear that this speaker is about to go");
            tokio::time::sleep(FAREWELL).await;
        }
    }

    /// Ends all sessions in this way and returns when the last words have left. Kernel routes stay.
    pub async fn leave(&self, stop: Stop) {
        let (done, left) = oneshot::channel();
        if self.io.send(session::Command::Leave(stop, done)).is_ok() {
            // An error means that the thread has ended already.
            drop(left.await);
        }
        self.stations.leave().await;
    }
}

/// A peer whose address is not known.
fn missing(absent: Absent) -> PeerStatus {
    PeerStatus {
        name: absent.name,
        address: None,
        interface: Some(absent.interface),
        asn: absent.asn.unwrap_or(0),
        state: State::Idle.to_string(),
        since: 0,
        received: 0,
        advertised: 0,
        rejected: 0,
        too_long: 0,
        last_error: None,
        missing: Some(absent.reason),
        bfd: None,
        sessions: 0,
        role: String::new(),
    }
}

/// What the kernel has of a path.
fn fill_in(route: &mut RouteStatus, state: &RouteState) {
    let Some(next_hop) = route.next_hop else {
        if state.unreachable {
            (route.installed, route.encapsulation) = (true, "unreachable".to_owned());
        }
        return;
    };
    let Some(hop) = state.hops.iter().find(|hop| hop.address.address == next_hop).filter(|_| route.best) else {
        return;
    };
    route.installed = hop.installed;
    hop.encapsulation.clone_into(&mut route.encapsulation);
    if !hop.reason.is_empty() {
        route.reason = format!("{}; {}", route.reason, hop.reason);
    }
}
