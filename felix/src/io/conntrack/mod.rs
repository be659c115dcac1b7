//! The kernel's connections: looked at, and forgotten one by one. What the kernel still remembers of a connection lets its packets through
//! as established, whatever policy says.
//!
//! ctnetlink by hand: a dump, and deletes in batches, each connection named by the kernel's own bytes.

mod wire;

pub use wire::Connection;

use crate::io::link::{KernelError, Trying};
use crate::io::netfilter::{errno, message, messages};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;
use std::net::IpAddr;

/// `NFNL_SUBSYS_CTNETLINK << 8`, with `IPCTNL_MSG_CT_NEW`, `_GET`, `_DELETE`.
const NEW: u16 = 0x100;
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const UDP: u8 = 17;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// Deletes in one datagram; their answers must fit into the socket's buffer.
const BATCH: usize = 64;

/// All connections that `wanted` says yes to.
///
/// # Errors
/// What the kernel said.
pub fn find(wanted: impl Fn(&Connection) -> bool) -> Result<Vec<Connection>, KernelError> {
    let mut socket = open().trying(|| "opening a netlink socket for connections".to_owned())?;
    let mut found = Vec::new();
    dump(&mut socket, &wanted, &mut found).trying(|| "listing connections".to_owned())?;
    Ok(found)
}

/// Forgets these. Returns how many there still were.
///
/// # Errors
/// What the kernel said.
pub fn forget(connections: &[Connection]) -> Result<usize, KernelError> {
    if connections.is_empty() {
        return Ok(0);
    }
    let mut socket = open().trying(|| "opening a netlink socket for connections".to_owned())?;
    let mut forgotten = 0;
    for batch in connections.chunks(BATCH) {
        forgotten += delete(&mut socket, batch).trying(|| "forgetting connections".to_owned())?;
    }
    Ok(forgotten)
}

/// Forgets every connection that has one of these addresses at an end. Returns how many.
///
/// # Errors
/// What the kernel said.
pub fn forget_addresses(addresses: &[IpAddr]) -> Result<usize, KernelError> {
    if addresses.is_empty() {
        return Ok(0);
    }
    forget(&find(|connection| connection.addresses.iter().any(|end| addresses.contains(end)))?)
}

/// Forgets what the kernel remembers of datagrams to ports of this host that lead to workloads from now on: a flow that began before has no
/// translation, and would get none as long as its sender goes on. `at`: ports, each of one of this host's addresses, or of any of them.
/// Returns how many.
///
/// # Errors
/// What the kernel said.
pub fn forget_untranslated(at: &[(Option<IpAddr>, u16)], host: &[IpAddr]) -> Result<usize, KernelError> {
    if at.is_empty() {
        return Ok(0);
    }
    forget(&find(|connection| {
        let (came_to, went_to) = (connection.addresses[1], connection.flow.destination);
        let of_port = |(address, port): &(Option<IpAddr>, u16)| {
            *port == went_to.port() && address.map_or(host.contains(&came_to), |address| address == came_to)
        };
        connection.flow.protocol == UDP && came_to == went_to.ip() && at.iter().any(of_port)
    })?)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn dump(socket: &mut Socket, wanted: &impl Fn(&Connection) -> bool, found: &mut Vec<Connection>) -> io::Result<()> {
    // Both families at once: the kernel walks its whole table for each dump, however little is in it.
    socket.send(&message(GET, REQUEST | DUMP, (libc::AF_UNSPEC as u8, 0), &[]), 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return errno(body),
                NEW => found.extend(body.get(4..).and_then(Connection::read).filter(|one| wanted(one))),
                _ => {}
            }
        }
    }
}

fn delete(socket: &mut Socket, batch: &[Connection]) -> io::Result<usize> {
    let mut datagram = Vec::new();
    for connection in batch {
        let family = if connection.flow.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        datagram.extend(message(DELETE, REQUEST | ACK, (family as u8, 0), &connection.name));
    }
    socket.send(&datagram, 0)?;
    let (mut answers, mut forgotten) = (0, 0);
    while answers < batch.len() {
        let (datagram, _) = socket.recv_from_full()?;
        for (_, body) in messages(&datagram).filter(|(kind, _)| *kind == NLMSG_ERROR) {
            answers += 1;
            match errno(body) {
                Ok(()) => forgotten += 1,
                // It ended by itself meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(forgotten)
}
