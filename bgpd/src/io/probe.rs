//! Asks other nodes by raw sockets whether protocol 4 reaches them. [`Prober`] decides whom and what follows; this sends, hears, and looks at the
//! clock. Nothing is open while no route leads through IP-in-IP.

use super::SpeakerHandle;
use crate::fib::{Ends, Fib};
use crate::probe::packet::read;
use crate::probe::{Ask, Prober, Report, Session, Signs};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};
use tracing::{debug, info, warn};
use twill_crds::names::IPIP_DEVICE;

/// How often it is asked where IP-in-IP leads. It costs a walk over the learned routes where a pool asks for it, and nothing else.
const LOOK: Duration = Duration::from_secs(10);
/// Longest packet that is looked at.
const LONGEST: usize = 576;
/// Packets that are read before anything else has its turn.
const AT_ONCE: usize = 64;
/// `linux/icmp.h`, ICMP_FILTER: a bit per type, set for those that are not wanted.
const FILTER: libc::c_int = 1;
/// Echo replies, and destinations that cannot be reached.
const WANTED: u32 = 0b1001;
/// `netinet/in.h`, IPPROTO_RAW: packets with their IP header; nothing is ever received.
const RAW: i32 = 255;
/// Counters of links in this thread's network namespace.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// Asks for ever, and tells what is known.
pub(super) async fn run(speaker: SpeakerHandle, fib: Fib, told: watch::Sender<Report>, seed: u64) {
    let mut probing =
        Probing { speaker, prober: Prober::new(seed), started: Instant::now(), sockets: None, told, refused: false };
    let mut look = tokio::time::interval(LOOK);
    loop {
        let due = probing.prober.poll_timeout().map(|at| probing.started + at);
        let socket = probing.sockets.as_ref().map(|sockets| &sockets.heard);
        tokio::select! {
            _ = look.tick() => {
                if let Some(ends) = ends(&fib).await {
                    probing.want(ends);
                }
            }
            () = readable(socket) => probing.listen(),
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
    told: watch::Sender<Report>,
    /// That there are no sockets was said.
    refused: bool,
}

/// One to send whole packets by, and one that hears ICMP.
struct Sockets {
    send: Socket,
    heard: AsyncFd<Socket>,
}

impl Probing {
    fn want(&mut self, ends: Ends) {
        if ends.others.is_empty() {
            self.sockets = None;
        } else if self.sockets.is_none() {
            match Sockets::open() {
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
        let Some(sockets) = &self.sockets else { return };
        let mut buffer = [0; LONGEST];
        for _ in 0..AT_ONCE {
            match sockets.heard.try_io(Interest::READABLE, |mut socket| socket.read(&mut buffer)) {
                Ok(length) => {
                    if let Some(heard) = read(&buffer[..length]) {
                        self.prober.hear(heard);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing more is there.
                Err(_) => return,
            }
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
    fn tell(&self) {
        let (before, now) = (self.told.borrow().problem(), self.prober.report());
        match (before, now.problem()) {
            (before, Some(problem)) if before.as_ref() != Some(&problem) => warn!(problem, "a tunnel does not work"),
            (Some(_), None) => info!("IP protocol 4 gets through to all nodes that are asked"),
            _ => {}
        }
        self.told.send_if_modified(|told| {
            let changed = *told != now;
            *told = now;
            changed
        });
    }
}

impl Sockets {
    #[allow(unsafe_code)]
    fn open() -> io::Result<Self> {
        let send = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
        send.set_nonblocking(true)?;
        let heard = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        heard.set_nonblocking(true)?;
        filter(&heard)?;
        // SAFETY: a socket has one descriptor, which it closes when it is dropped, and it is dropped after it has been taken off the list.
        let heard = unsafe { AsyncFd::register_with_interest(heard, Interest::READABLE)? };
        Ok(Self { send, heard })
    }

    fn send(&self, ask: &Ask) -> io::Result<usize> {
        self.send.send_to(&ask.packet, &SockAddr::from(SocketAddr::new(IpAddr::V4(ask.to), 0)))
    }
}

/// Where IP-in-IP leads; none if that cannot be known now.
async fn ends(fib: &Fib) -> Option<Ends> {
    let (reply, ends) = oneshot::channel();
    // That fails only if nobody waits any more.
    let asked = fib.try_ends(move |ends| drop(reply.send(ends)));
    if asked { ends.await.ok() } else { None }
}

async fn readable(socket: Option<&AsyncFd<Socket>>) {
    match socket {
        // An error shows when it is read.
        Some(socket) => drop(socket.readable().await),
        None => std::future::pending().await,
    }
}

/// Packets that have come out of the IP-in-IP device, from `/proc/net/dev`.
fn received(counters: &str) -> Option<u64> {
    let of = |line: &str| line.trim_start().strip_prefix(IPIP_DEVICE)?.strip_prefix(':').map(str::to_owned);
    counters.lines().find_map(of)?.split_whitespace().nth(1)?.parse().ok()
}

#[allow(unsafe_code)]
fn filter(socket: &Socket) -> io::Result<()> {
    let blocked = !WANTED;
    let length = size_of_val(&blocked) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `blocked`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_RAW, FILTER, (&raw const blocked).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
