//! One netlink socket: transactions and dumps.

use super::batch::{Batch, TRANSACTION};
use super::wire::{self, DUMP, DUMP_INTERRUPTED, Message, NLMSG_DONE, Writer, message};
use super::{Error, Refusal};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;

/// Bytes that the socket sends at once: a transaction is one datagram, 1000 chains of ten rules have 4.5 MB. The memory is only used while
/// one is on its way.
pub const LONGEST_TRANSACTION: usize = 128 << 20;
const RECEIVE_BUFFER: usize = 8 << 20;

/// The socket that owns the table. It must live as long as the process does.
pub(super) struct Connection {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel said to a transaction.
pub(super) enum Outcome {
    Committed,
    /// Somebody committed between our reading and this.
    Overtaken,
    /// By each message that the kernel did not take, in the order of the transaction; at least one. What depends on one of them
    /// is refused as well.
    Refused(Vec<Refusal>),
}

impl Connection {
    pub(super) fn open() -> Result<Connection, Error> {
        Connection::open_with(LONGEST_TRANSACTION)
    }

    /// A socket that refuses transactions of more bytes than that, or somewhat more.
    pub(super) fn open_with(longest: usize) -> Result<Connection, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port = socket.bind_auto()?.port_number();
        // The kernel doubles it.
        setsockopt(&socket, sockopt::SndBufForce, &(longest / 2)).map_err(io::Error::from)?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).map_err(io::Error::from)?;
        // Errors carry the failed message's header only, not all of its elements.
        socket.set_cap_ack(true)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Connection { socket, port, sequence: 0, buffer: Vec::with_capacity(256 << 10) })
    }

    /// The socket's netlink address: who we are in notifications.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// The sequence number that the next batch may start with.
    pub(super) fn next_sequence(&self) -> u32 {
        self.sequence.wrapping_add(1)
    }

    /// Sends a transaction. The kernel has worked it off when the send returns, so every answer is there to be read; the last
    /// message's acknowledgement tells that it was committed. It goes on after a message that it refuses, so it tells of all.
    pub(super) fn transact(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        self.sequence = self.sequence.wrapping_add(u32::try_from(batch.len()).unwrap_or(u32::MAX)).wrapping_add(2);
        let sent = match self.socket.send(&batch.bytes, 0) {
            // Longer than the socket may send at once: less of it may go.
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {
                let object = TRANSACTION.to_owned();
                return Ok(Outcome::Refused(vec![Refusal { object, part: None, errno: Errno::EMSGSIZE }]));
            }
            sent => sent?,
        };
        if sent != batch.bytes.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "a batch was sent in part").into());
        }
        let mut acknowledged = false;
        let mut refused: Vec<Refusal> = Vec::new();
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(true) => {}
                Ok(false) => break,
                // More refusals than the buffer holds; those that it holds are to be read.
                Err(Error::Io(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(e) => return Err(e),
            }
            for answer in wire::messages(&self.buffer).filter(|m| batch.owns(m.sequence)) {
                match answer.error() {
                    Some(0) => acknowledged = true,
                    Some(error) => {
                        let object = batch.object(answer.sequence);
                        let errno = Errno::from_raw(error.wrapping_neg());
                        refused.push(Refusal { object: object.text, part: object.part, errno });
                    }
                    None => {}
                }
            }
        }
        match refused.first() {
            Some(Refusal { errno: Errno::ERESTART, .. }) => Ok(Outcome::Overtaken),
            Some(_) => Ok(Outcome::Refused(refused)),
            None if acknowledged => Ok(Outcome::Committed),
            None => Err(Error::NoAnswer),
        }
    }

    /// Asks for a dump and hands each message to `each`; false if it changed while it was read.
    pub(super) fn dump(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, Error> {
        self.query(wire::FAMILY_INET, kind, DUMP, body, each)
    }

    /// As [`Connection::dump`], of the objects of every family.
    pub(super) fn dump_of_all_families(&mut self, kind: u8, each: &mut dyn FnMut(Message<'_>)) -> Result<bool, Error> {
        self.query(wire::FAMILY_ANY, kind, DUMP, |_| {}, each)
    }

    /// Asks for one object; `ENOENT` gives no message.
    pub(super) fn one(
        &mut self,
        kind: u8,
        body: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), Error> {
        self.query(wire::FAMILY_INET, kind, wire::ACK, body, each).map(|_| ())
    }

    /// The generation of the namespace's rules; it changes with every transaction of anybody.
    pub(super) fn generation(&mut self) -> Result<u32, Error> {
        let mut generation = None;
        self.one(message::GET_GENERATION, |_| {}, &mut |m| generation = m.attributes().u32(1))?;
        generation.ok_or(Error::NoAnswer)
    }

    fn query(
        &mut self,
        family: u8,
        kind: u8,
        flags: u16,
        body: impl FnOnce(&mut Writer),
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<bool, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut w = Writer::default();
        w.message_about(family, kind, flags, sequence, body);
        self.socket.send(&w.into_bytes(), 0)?;
        let mut consistent = true;
        loop {
            self.receive(0)?;
            for answer in wire::messages(&self.buffer).filter(|m| m.sequence == sequence) {
                consistent &= answer.flags & DUMP_INTERRUPTED == 0;
                match (answer.kind, answer.error()) {
                    (NLMSG_DONE, _) | (_, Some(0)) => return Ok(consistent),
                    (_, Some(error)) => match Errno::from_raw(error.wrapping_neg()) {
                        Errno::ENOENT => return Ok(consistent),
                        errno => return Err(io::Error::from(errno).into()),
                    },
                    _ => each(answer),
                }
            }
        }
    }

    /// The next datagram into the buffer; false if there is none and `flags` forbid to wait.
    fn receive(&mut self, flags: i32) -> Result<bool, Error> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, flags) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
