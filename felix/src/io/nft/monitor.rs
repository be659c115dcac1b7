//! Notifications of changes to our table by others.
//!
//! The kernel notifies every change of every table to one multicast group; our own are dropped by a filter in the kernel, else
//! loading a large set would overrun the buffer. Each transaction ends with a message that names its process.
//!
//! While somebody listens, the kernel builds a message per element: that made loading 100k elements two to four times as slow
//! and one element up to 70 instead of 18 µs. So we listen only while others can change the table, which is when nobody owns it.

use super::Error;
use super::wire::{self, FAMILY_INET, Message, message};
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use std::io;
use twill_crds::names::NFT_TABLE;

const GROUP_NFTABLES: u32 = 7;
const RECEIVE_BUFFER: usize = 8 << 20;

/// The notification socket.
pub(super) struct Monitor {
    socket: TokioSocket,
    buffer: Vec<u8>,
    touched: bool,
    listening: bool,
}

impl Monitor {
    /// Listens for what others than the owner of netlink port `own` do. Needs a tokio runtime.
    pub(super) fn open(own: u32) -> Result<Monitor, Error> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket.socket_mut().bind_auto()?;
        let inner = socket.socket_ref();
        setsockopt(inner, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(io::Error::from)?;
        SockRef::from(inner).attach_filter(&others_than(own))?;
        inner.add_membership(GROUP_NFTABLES)?;
        Ok(Monitor { socket, buffer: Vec::with_capacity(64 << 10), touched: false, listening: true })
    }

    /// Listens, or does not: then [`Monitor::changed`] waits for ever.
    pub(super) fn listen(&mut self, listen: bool) -> Result<(), Error> {
        if listen != std::mem::replace(&mut self.listening, listen) {
            let socket = self.socket.socket_ref();
            if listen {
                socket.add_membership(GROUP_NFTABLES)?;
            } else {
                socket.drop_membership(GROUP_NFTABLES)?;
            }
        }
        Ok(())
    }

    /// Waits until another process has committed a change to our table; answers who. Lost notifications count as a change.
    /// Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) -> Result<String, Error> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => {
                    let mut by = None;
                    for m in wire::messages(&self.buffer) {
                        if m.nft() == Some(message::NEW_GENERATION) && std::mem::take(&mut self.touched) {
                            by = Some(process(m));
                        }
                        self.touched |= concerns_us(m);
                    }
                    if let Some(by) = by {
                        return Ok(by);
                    }
                }
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok("unknown".into()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Every object's message has the table's name first, but a table's own, whose name is that.
fn concerns_us(m: Message<'_>) -> bool {
    m.nft().is_some_and(|kind| kind < message::NEW_GENERATION)
        && m.family() == FAMILY_INET
        && m.attributes().string(1) == Some(NFT_TABLE)
}

fn process(generation: Message<'_>) -> String {
    let a = generation.attributes();
    match (a.string(3), a.u32(2)) {
        (Some(name), Some(pid)) => format!("{name} (pid {pid})"),
        _ => "unknown".into(),
    }
}

/// A classic BPF program: drop datagrams whose first message has this port in `nlmsg_pid`. One datagram never mixes two
/// transactions.
fn others_than(port: u32) -> [socket2::SockFilter; 4] {
    const LOAD_WORD_ABSOLUTE: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    // The header is in host order, BPF loads in network order.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        socket2::SockFilter::new(LOAD_WORD_ABSOLUTE, 0, 0, 12),
        socket2::SockFilter::new(JUMP_EQUAL, 0, 1, port),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
