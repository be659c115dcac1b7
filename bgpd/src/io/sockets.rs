//! Sockets as BGP wants them: TTL, MD5 keys, source addresses, and no delay.

use super::md5;
use crate::scoped::ScopedAddr;
use crate::speaker::Peer;
use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that may wait to be accepted: all nodes of a mesh may come at once.
const BACKLOG: i32 = 1024;

/// A listening socket; `secure` sees it before anybody can call. IPv6 ones take IPv6 only, so that both families can listen on one port.
pub(super) fn listen(address: SocketAddr, secure: impl FnOnce(&Socket)) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    secure(&socket);
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets or removes the key of all peers with this prefix on a listening socket of its family.
pub(super) fn listener_key(listener: &Socket, peers: IpNet, key: Option<&str>) -> io::Result<()> {
    match listener.local_addr()?.as_socket() {
        Some(local) if local.is_ipv4() == peers.addr().is_ipv4() => md5::set(listener.as_fd(), peers, key),
        _ => Ok(()),
    }
}

/// What the kernel begins with unless told otherwise (`net/ip.h`, IPDEFTTL).
const USUAL_TTL: u32 = 64;

/// The TTL of a listening socket's answers: 255, which a peer with `ttlSecurity` asks for (RFC 5082 section 3), or the usual one.
pub(super) fn listener_ttl(listener: &Socket, far: bool) -> io::Result<()> {
    let ttl = if far { u32::from(u8::MAX) } else { USUAL_TTL };
    write_ttl(listener, listener.local_addr()?.is_ipv4(), ttl)
}

/// A socket that can connect to `peer`; nothing has been sent yet.
pub(super) fn dial(peer: &Peer, external: bool) -> io::Result<TcpSocket> {
    let socket = if peer.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    set_ttl(&SockRef::from(&socket), peer, external)?;
    if let Some(key) = &peer.password {
        md5::set(socket.as_fd(), peer.address.into(), Some(key))?;
    }
    if let Some(source) = peer.source {
        socket.set_reuseaddr(true)?;
        socket.bind(ScopedAddr::new(source, peer.remote().zone).socket(0))?;
    }
    Ok(socket)
}

/// What an established connection needs, whichever side opened it.
pub(super) fn prepare(stream: &TcpStream, peer: &Peer, external: bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_ttl(&SockRef::from(stream), peer, external)
}

/// Whether the other side has not acknowledged all that was written (tcp(7), SIOCOUTQ). A socket that cannot say so has lost its peer.
#[allow(unsafe_code)]
pub(super) fn is_unheard(stream: &TcpStream) -> bool {
    let mut octets: libc::c_int = 0;
    // SAFETY: the request writes one int, and the pointer is to one that lives through the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    result != 0 || octets > 0
}

/// RFC 4271 has no word on it, but everybody does it: what an eBGP peer sends must come from the link.
fn set_ttl(socket: &SockRef<'_>, peer: &Peer, external: bool) -> io::Result<()> {
    let sent = peer.ttl_security.map(|_| u8::MAX).or(peer.ttl).or(external.then_some(1));
    if let Some(sent) = sent {
        write_ttl(socket, peer.address.is_ipv4(), sent.into())?;
    }
    set_least_ttl(socket, peer.address.is_ipv4(), peer.ttl_security.map_or(0, |hops| 256 - i32::from(hops)))
}

fn write_ttl(socket: &Socket, is_v4: bool, ttl: u32) -> io::Result<()> {
    if is_v4 { socket.set_ttl_v4(ttl) } else { socket.set_unicast_hops_v6(ttl) }
}

/// Segments with a smaller TTL are dropped by the kernel; 0: none is (ip(7), IP_MINTTL; `linux/in6.h`, IPV6_MINHOPCOUNT).
#[allow(unsafe_code)]
fn set_least_ttl(socket: &SockRef<'_>, is_v4: bool, least: libc::c_int) -> io::Result<()> {
    let (level, option) =
        if is_v4 { (libc::IPPROTO_IP, libc::IP_MINTTL) } else { (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT) };
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `least`, which lives through the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const least).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
