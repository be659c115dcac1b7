//! What others change in the kernel, as one bit: whether it must be read again, and for what reason.

use super::decode::{self, Settings};
use super::socket::{enlarge, messages, retry};
use crate::fib::Config;
use crate::fib::hosts::{HostRoute, is_outside};
use crate::fib::tunnel;
use crate::fib::uplinks::uplinks;
use crate::fib::world::World;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use socket2::{SockFilter, SockRef};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use twill_crds::names::{RTPROT_FELIX, WORKLOAD_PREFIX};

/// Multicast groups (`linux/rtnetlink.h`, RTNLGRP_*): link, neigh, IPv4 address and route, IPv6 address and route, IPv4 settings of links.
const GROUPS: [u32; 7] = [1, 3, 5, 7, 9, 11, 24];

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const NEW_NEIGHBOUR: u16 = 28;
const DEL_NEIGHBOUR: u16 = 29;
const NEW_SETTINGS: u16 = 80;

/// The local table, which the kernel fills by itself.
const LOCAL_TABLE: u8 = 255;

/// A socket that hears of every change.
pub(crate) struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What is known when an event is judged.
pub(crate) struct Judge<'a> {
    pub(crate) config: &'a Config,
    /// Index of the VXLAN device, whose neighbours are ours.
    pub(crate) vxlan: Option<u32>,
    /// The kernel as last seen.
    pub(crate) world: &'a World,
}

impl Monitor {
    /// Hears of what everybody does but the author `port`: the kernel drops that before it costs us anything.
    pub(crate) fn open(port: u32) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        SockRef::from(&socket).attach_filter(&all_but(port))?;
        socket.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        enlarge(&socket);
        Ok(Self { socket, buffer: Vec::with_capacity(64 * 1024) })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads all that waits. The reason of the first event that calls for a look at the kernel, if there was one.
    pub(crate) fn drain(&mut self, judge: &Judge<'_>) -> io::Result<Option<&'static str>> {
        let mut reason = None;
        loop {
            self.buffer.clear();
            self.buffer.reserve(64 * 1024);
            match retry(|| self.socket.recv(&mut self.buffer, 0)) {
                Ok(_) => {
                    let found = messages(&self.buffer).find_map(|(kind, _, _, body)| judge.event(kind, body));
                    reason = reason.or(found);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(reason),
                // Events were lost: what they said can only be found by looking.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    reason = reason.or(Some("notifications lost"))
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// A socket filter that refuses messages whose `nlmsg_pid` is `port`.
fn all_but(port: u32) -> [SockFilter; 4] {
    let instruction = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    [
        // Words are loaded in network byte order; `nlmsg_pid` is in the host's.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 12),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from_be_bytes(port.to_ne_bytes())),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ]
}

impl Judge<'_> {
    fn event(&self, kind: u16, body: &[u8]) -> Option<&'static str> {
        match kind {
            NEW_LINK | DEL_LINK => {
                // Pods come and go all the time, and no route of ours leads over their links. But IPv4 routes go with them without a word.
                let link = decode::link(body)?;
                let is_told = |route: &HostRoute| route.link == link.index && is_outside(self.config, route.net);
                let matters = !link.name.starts_with(WORKLOAD_PREFIX) || self.world.hosts.iter().any(is_told);
                matters.then_some("a link changed")
            }
            NEW_ADDRESS | DEL_ADDRESS => {
                let (_, net) = decode::address(body)?;
                let link_local = matches!(net.addr(), std::net::IpAddr::V6(a) if a.is_unicast_link_local());
                (!link_local).then_some("an address changed")
            }
            NEW_ROUTE | DEL_ROUTE => self.route(kind, body),
            NEW_NEIGHBOUR | DEL_NEIGHBOUR => {
                let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
                (Some(index) == self.vxlan).then_some("a tunnel neighbour changed")
            }
            NEW_SETTINGS => {
                let loose = || tunnel::loose(self.config, self.world, uplinks(self.config, self.world));
                let matters = match decode::reverse_path_of(body)? {
                    Settings::OfAll => loose().next().is_some(),
                    // felix sets those of pods, one after the other, and uplinks are found by looking at every node.
                    Settings::Of(index) => self.may_be_uplink(index) && loose().any(|link| link.index == index),
                };
                matters.then_some("rp_filter was changed")
            }
            _ => None,
        }
    }

    fn may_be_uplink(&self, index: u32) -> bool {
        self.world.links.get(&index).is_some_and(|link| !link.name.starts_with(WORKLOAD_PREFIX))
    }

    /// From `struct rtmsg` alone: a flushed table of 100,000 routes is 100,000 events.
    fn route(&self, kind: u16, body: &[u8]) -> Option<&'static str> {
        let &[_, _, _, _, table, protocol, ..] = body.first_chunk::<8>()?;
        if table == LOCAL_TABLE {
            return None;
        }
        if protocol == RTPROT_FELIX && protocol != self.config.protocol {
            let Some(decode::Route::Host(route)) = decode::route(body, self.config) else { return None };
            return is_outside(self.config, route.net).then_some("a workload outside of our blocks came or went");
        }
        match (protocol == self.config.protocol, kind) {
            (true, DEL_ROUTE) => Some("a route of ours was removed"),
            (true, _) => Some("a route of ours was changed"),
            (false, _) => Some("a route changed"),
        }
    }
}
