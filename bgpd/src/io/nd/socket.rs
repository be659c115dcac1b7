//! The ICMPv6 socket for router solicitations and advertisements.

use crate::nd::message::{ADVERTISEMENT, HOP_LIMIT, SOLICITATION};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Longest message that is looked at; with all of its options an advertisement has a few hundred octets.
const LONGEST: usize = 1500;
/// `linux/icmpv6.h`, ICMPV6_FILTER: a bit per type, set for those that are not wanted.
const FILTER: libc::c_int = 1;

/// The socket.
pub(super) struct Icmp {
    socket: Socket,
    /// Interfaces on which it is a member of the routers' group.
    joined: BTreeSet<u32>,
}

/// What has come.
pub(super) struct Heard {
    pub(super) octets: Vec<u8>,
    pub(super) hop_limit: u8,
}

impl Icmp {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        set_filter(&socket)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, joined: BTreeSet::new() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hears solicitations on these interfaces: they go to all routers, and the kernel may not be one.
    pub(super) fn join(&mut self, usable: &BTreeSet<u32>) {
        for index in usable.difference(&self.joined) {
            if let Err(error) = self.socket.join_multicast_v6(&super::ALL_ROUTERS, *index)
                && error.raw_os_error() != Some(libc::EADDRINUSE)
            {
                tracing::warn!(index, %error, "cannot hear router solicitations; peers find us a little later");
            }
        }
        for index in self.joined.difference(usable) {
            // The membership has gone with the interface, mostly.
            drop(self.socket.leave_multicast_v6(&super::ALL_ROUTERS, *index));
        }
        self.joined.clone_from(usable);
    }

    /// The next message that waits: index of the interface, source, octets.
    pub(super) fn receive(&self) -> Option<(u32, Ipv6Addr, Heard)> {
        let mut buffer = [0; LONGEST];
        loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            let mut control = cmsg_space!(libc::c_int, libc::in6_pktinfo);
            let fd = self.socket.as_raw_fd();
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = match recvmsg::<SockaddrIn6>(fd, &mut slices, Some(&mut control), flags) {
                Ok(message) => message,
                Err(nix::errno::Errno::EINTR) => continue,
                // Nothing is there.
                Err(_) => return None,
            };
            let (mut index, mut hop_limit) = (None, None);
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = u8::try_from(limit).ok(),
                    ControlMessageOwned::Ipv6PacketInfo(info) => index = Some(info.ipi6_ifindex),
                    _ => {}
                }
            }
            let (source, length) = (message.address.map(|address| address.ip()), message.bytes);
            if let (Some(index), Some(source), Some(hop_limit)) = (index, source, hop_limit) {
                return Some((index, source, Heard { octets: buffer[..length].to_vec(), hop_limit }));
            }
        }
    }

    /// Sends from our address `own` on the interface.
    pub(super) fn send(&self, octets: &[u8], own: Ipv6Addr, to: Ipv6Addr, index: u32) -> io::Result<()> {
        let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: own.octets() }, ipi6_ifindex: index };
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, index));
        let control = [ControlMessage::Ipv6PacketInfo(&info)];
        sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(octets)], &control, MsgFlags::MSG_DONTWAIT, Some(&to))?;
        Ok(())
    }
}

#[allow(unsafe_code)]
fn set_filter(socket: &Socket) -> io::Result<()> {
    let mut blocked = [u32::MAX; 8];
    for kind in [SOLICITATION, ADVERTISEMENT] {
        blocked[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    }
    let length = size_of_val(&blocked) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `blocked`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_ICMPV6, FILTER, blocked.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
