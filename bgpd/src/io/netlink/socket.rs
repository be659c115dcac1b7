//! Raw netlink: requests in batches acknowledged by their last message, and dumps that the kernel filters.

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;

/// Messages per send.
pub(crate) const BATCH: usize = 64;
/// The kernel hands out dumps in datagrams of at most 32 KiB.
const RECEIVE: usize = 64 * 1024;
/// Length of a netlink header.
const HEADER: usize = 16;
/// `nlmsg_flags` of a dump that changed under the reader.
const DUMP_INTERRUPTED: u16 = 0x10;

/// A socket for requests.
pub(crate) struct Requests {
    socket: Socket,
    sequence: u32,
    port: u32,
    buffer: Vec<u8>,
}

/// One request with its flags beside REQUEST and ACK.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which request of the batch.
    pub(crate) index: usize,
    /// The kernel's error.
    pub(crate) error: io::Error,
    /// What the kernel said beside the number; may be empty.
    pub(crate) text: String,
}

impl Requests {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        enlarge(&socket);
        Ok(Self { socket, sequence: 0, port, buffer: Vec::with_capacity(RECEIVE) })
    }

    /// The number by which the kernel's notifications name us as the author of a change.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends at most [`BATCH`] requests at once; the kernel performs each whatever became of the others. Only the last is
    /// acknowledged: errors come for every one.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<Refused>> {
        let count = requests.len();
        if count == 0 {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(count * 128);
        for (index, request) in requests.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let ack = if index + 1 == count { NLM_F_ACK } else { 0 };
            append(&mut bytes, request.message, NLM_F_REQUEST | request.flags | ack, self.sequence);
        }
        self.socket.send(&bytes, 0)?;
        let mut refused = Vec::new();
        loop {
            self.receive()?;
            for (kind, _, sequence, payload) in messages(&self.buffer) {
                let index = sequence.wrapping_sub(first) as usize;
                if kind != NLMSG_ERROR || index >= count {
                    continue;
                }
                let code = payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                if code != 0 {
                    let text = extended_text(payload);
                    refused.push(Refused { index, error: io::Error::from_raw_os_error(-code), text });
                }
                if index + 1 == count {
                    return Ok(refused);
                }
            }
        }
    }

    /// Asks for a dump and hands each message to `each` as type and payload. True if the kernel says that the dump was
    /// consistent.
    pub(crate) fn dump(&mut self, request: RouteNetlinkMessage, mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        append(&mut bytes, request, NLM_F_REQUEST | NLM_F_DUMP, self.sequence);
        self.socket.send(&bytes, 0)?;
        let mut consistent = true;
        loop {
            self.receive()?;
            for (kind, flags, sequence, payload) in messages(&self.buffer) {
                if sequence != self.sequence {
                    continue;
                }
                consistent &= flags & DUMP_INTERRUPTED == 0;
                if kind != NLMSG_DONE && kind != NLMSG_ERROR {
                    each(kind, payload);
                    continue;
                }
                let code = payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
                return if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(consistent) };
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE);
        retry(|| self.socket.recv(&mut self.buffer, 0)).map(|_| ())
    }
}

/// Makes room for bursts as far as the kernel lets us; smaller buffers only mean more dumps.
pub(crate) fn enlarge(socket: &Socket) {
    let wanted = 16 * 1024 * 1024;
    if setsockopt(socket, sockopt::RcvBufForce, &wanted).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &wanted);
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The messages of a datagram: type, flags, sequence number, payload. What is cut short ends it.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, u16, u32, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.get(..HEADER)?;
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let payload = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((half(4), half(6), word(8), payload))
    })
}

fn append(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.emit(&mut bytes[start..]);
}

/// NLMSGERR_ATTR_MSG of a capped error message: code, header of the request, attributes.
fn extended_text(payload: &[u8]) -> String {
    let mut rest = payload.get(4 + HEADER..).unwrap_or_default();
    while let Some(&[a, b, c, d]) = rest.first_chunk::<4>() {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let Some(value) = rest.get(4..length) else { break };
        if kind & 0x3fff == 1 {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    String::new()
}
