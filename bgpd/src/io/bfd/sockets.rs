//! BFD's UDP sockets: two that receive per family, and one that sends per session.

use crate::bfd::{LENGTH, MULTIHOP_PORT, SINGLE_HOP_PORT, SOURCE_PORTS, TTL};
use crate::io::interfaces;
use anyhow::{Context, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use twill_crds::control::{BfdEnds, BfdHops};

/// Internetwork Control (RFC 4594): what keeps the network together goes first.
const TRAFFIC_CLASS: u32 = 0xc0;
/// Octets that a receiving socket may hold: a thousand peers in step, and a scheduler that is late.
const BUFFER: usize = 4 << 20;
/// Datagrams that are read at once.
pub(super) const BATCH: usize = 64;
/// Longest datagram that is looked at; one with authentication is longer, and discarded for that.
const LONGEST: usize = 64;

/// A socket that receives.
#[derive(Debug)]
pub(super) struct Receiver {
    socket: Socket,
    multihop: bool,
}

/// A datagram that has come.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) from: IpAddr,
    pub(super) to: Option<IpAddr>,
    /// Index of the interface that it came in on.
    pub(super) interface: Option<u32>,
    pub(super) ttl: Option<u8>,
    /// By which port it came.
    pub(super) multihop: bool,
    octets: [u8; LONGEST],
    length: usize,
}

impl Arrival {
    pub(super) fn payload(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

impl Receiver {
    /// All of them, of the families that the kernel has.
    ///
    /// # Errors
    /// A port is taken, or the kernel refuses an option.
    pub(super) fn all() -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for (port, multihop) in [(SINGLE_HOP_PORT, false), (MULTIHOP_PORT, true)] {
            for address in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
                match Self::bind(SocketAddr::new(address, port), multihop) {
                    Ok(receiver) => all.push(receiver),
                    Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(
                        "UDP port {port} is taken: another BFD process runs in this network namespace; stop it first (FRR's is bfdd, BIRD \
                         has one inside while its file names protocol bfd)"
                    ),
                    Err(error) => return Err(error).with_context(|| format!("cannot receive on UDP port {port}")),
                }
            }
        }
        Ok(all)
    }

    fn bind(address: SocketAddr, multihop: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
            setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            // Without CAP_NET_ADMIN, as much as everybody may have.
            socket.set_recv_buffer_size(BUFFER)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket, multihop })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What has come, at most [`BATCH`] datagrams.
    pub(super) fn receive(&self) -> Vec<Arrival> {
        let mut buffers = [[0; LONGEST]; BATCH];
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        // Made anew each time: the kernel writes into them how much there was, and would take that for how much may be.
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH, Some(control()));
        let fd = self.socket.as_raw_fd();
        // An error of a socket that only receives is that nothing is there.
        let received = recvmmsg(fd, &mut headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        received.into_iter().flatten().filter_map(|message| self.arrival(&message)).collect()
    }

    fn arrival(&self, message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Arrival> {
        let from = message.address.as_ref().and_then(ip)?;
        let (mut to, mut interface, mut ttl) = (None, None, None);
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                    ttl = u8::try_from(value).ok();
                }
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    to = Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())));
                    interface = u32::try_from(info.ipi_ifindex).ok();
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    to = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                    interface = Some(info.ipi6_ifindex);
                }
                _ => {}
            }
        }
        let payload = message.iovs().next()?;
        let mut octets = [0; LONGEST];
        octets[..payload.len()].copy_from_slice(payload);
        Some(Arrival { from, to, interface, ttl, multihop: self.multihop, octets, length: payload.len() })
    }
}

/// Room for what the kernel says about a datagram.
fn control() -> Vec<u8> {
    cmsg_space!(libc::c_int, libc::in6_pktinfo, libc::in_pktinfo)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

/// Source ports, each of one session (RFC 5881 section 4).
#[derive(Debug)]
pub(super) struct Ports {
    used: BTreeSet<u16>,
    next: u16,
}

impl Ports {
    /// The first port is chosen by `seed`: a restart is not to be taken for what was before.
    pub(super) fn new(seed: u64) -> Self {
        let first = *SOURCE_PORTS.start();
        let count = u64::from(*SOURCE_PORTS.end() - first) + 1;
        Self { used: BTreeSet::new(), next: first + u16::try_from(seed % count).unwrap_or(0) }
    }

    /// A port that no session has; none if all are taken.
    pub(super) fn take(&mut self) -> Option<u16> {
        for _ in SOURCE_PORTS {
            let port = self.next;
            self.next = if port == *SOURCE_PORTS.end() { *SOURCE_PORTS.start() } else { port + 1 };
            if self.used.insert(port) {
                return Some(port);
            }
        }
        None
    }

    /// This port is in use already.
    pub(super) fn claim(&mut self, port: u16) {
        self.used.insert(port);
    }

    pub(super) fn give_back(&mut self, port: u16) {
        self.used.remove(&port);
    }
}

/// A socket that sends a session's packets.
#[derive(Debug)]
pub(super) struct Transmitter {
    socket: UdpSocket,
    /// Whether it sends to the port of several hops.
    pub(super) multihop: bool,
    /// Index of the interface that it is bound to.
    pub(super) interface: Option<u32>,
}

impl Transmitter {
    /// A socket towards the other side from `port`.
    ///
    /// # Errors
    /// Those of the system calls: an address or an interface that is not there, no route, a port that another program has.
    pub(super) fn open(ends: &BfdEnds, port: u16) -> io::Result<Self> {
        let mut multihop = ends.hops == BfdHops::Multiple;
        let (socket, interface) = Self::prepare(ends, port)?;
        let scope = interface.unwrap_or(0);
        socket.connect(remote(ends.peer, SINGLE_HOP_PORT, scope))?;
        if ends.hops == BfdHops::Auto && interface.is_none() {
            let local = socket.local_addr()?.ip();
            multihop = interfaces::link(local.into(), ends.peer).shared.is_empty();
        }
        if multihop {
            socket.connect(remote(ends.peer, MULTIHOP_PORT, scope))?;
        }
        Ok(Self { socket, multihop, interface })
    }

    fn prepare(ends: &BfdEnds, port: u16) -> io::Result<(UdpSocket, Option<u32>)> {
        let any = match ends.peer {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = Socket::new(Domain::for_address(SocketAddr::new(any, 0)), Type::DGRAM, Some(Protocol::UDP))?;
        if any.is_ipv6() {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL.into())?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        } else {
            socket.set_ttl_v4(TTL.into())?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        }
        // Nobody answers to this port.
        socket.set_recv_buffer_size(0)?;
        socket.set_nonblocking(true)?;
        let interface = match &ends.interface {
            Some(name) => {
                let index = if_nametoindex(name.as_str())?;
                socket.bind_device(Some(name.as_bytes()))?;
                Some(index)
            }
            None => None,
        };
        let local = remote(ends.local.unwrap_or(any), port, interface.unwrap_or(0));
        socket.bind(&local.into())?;
        Ok((socket.into(), interface))
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// Those of send(2) that say that this socket leads nowhere any more.
    pub(super) fn send(&self, octets: &[u8; LENGTH]) -> io::Result<()> {
        for _ in 0..2 {
            match self.socket.send(octets) {
                Ok(_) => return Ok(()),
                // What ICMP said to an earlier packet; this one has not been sent.
                Err(error) if error.raw_os_error() == Some(Errno::ECONNREFUSED as i32) => {}
                // A packet that is lost on the way out is a packet that is lost.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::EPERM)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The address with a port and, if it is link-local, its interface.
fn remote(address: IpAddr, port: u16, interface: u32) -> SocketAddr {
    match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => SocketAddrV6::new(address, port, 0, interface).into(),
        address => SocketAddr::new(address, port),
    }
}
