//! Raw sockets: one that sends whole packets, and two that hear ICMP. What is of no interest is left out by the kernel, so that nobody's flood
//! of ICMP fills a queue in which an answer is to find room.

use crate::probe::Ask;
use crate::probe::packet::{Heard, read};
use libc::{BPF_B, BPF_H, BPF_IND, BPF_JA, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Longest packet that is looked at.
const LONGEST: usize = 576;
/// Packets of a socket that are read before anything else has its turn.
const AT_ONCE: usize = 64;
/// `linux/icmp.h`, ICMP_FILTER: a bit per type, set for those that are not wanted.
const TYPES: libc::c_int = 1;
/// A bit for each type: echo replies, and destinations that cannot be reached.
const REPLY: u32 = 1 << 0;
/// See [`REPLY`].
const UNREACHABLE: u32 = 1 << 3;
/// `netinet/in.h`, IPPROTO_RAW: packets with their IP header; nothing is ever received.
const RAW: i32 = 255;

/// All that is open while somebody is asked.
pub(super) struct Sockets {
    send: Socket,
    /// What carries our identifier.
    answers: AsyncFd<Socket>,
    /// That packets of protocol 4 are refused, be they ours or pods': who refuses says so of a few a second only. On a socket of its own, since anybody can
    /// make up as many as he likes.
    refusals: AsyncFd<Socket>,
}

impl Sockets {
    /// For requests with this identifier.
    pub(super) fn open(id: u16) -> io::Result<Self> {
        let send = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
        send.set_nonblocking(true)?;
        let (answers, refusals) = (hearing(REPLY | UNREACHABLE, &answers(id))?, hearing(UNREACHABLE, &refusals())?);
        Ok(Self { send, answers, refusals })
    }

    pub(super) fn send(&self, ask: &Ask) -> io::Result<usize> {
        self.send.send_to(&ask.packet, &SockAddr::from(SocketAddr::new(IpAddr::V4(ask.to), 0)))
    }

    pub(super) async fn readable(&self) {
        // An error shows when it is read.
        tokio::select! {
            _ = self.answers.readable() => {}
            _ = self.refusals.readable() => {}
        }
    }

    /// Hands over what waits, so much at once of each.
    pub(super) fn read(&self, mut each: impl FnMut(Heard)) {
        let mut buffer = [0; LONGEST];
        for socket in [&self.answers, &self.refusals] {
            for _ in 0..AT_ONCE {
                match socket.try_io(Interest::READABLE, |mut socket| socket.read(&mut buffer)) {
                    Ok(length) => read(&buffer[..length]).into_iter().for_each(&mut each),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Nothing more is there.
                    Err(_) => break,
                }
            }
        }
    }
}

#[allow(unsafe_code)]
fn hearing(types: u32, program: &[SockFilter]) -> io::Result<AsyncFd<Socket>> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_nonblocking(true)?;
    let blocked = !types;
    let length = size_of_val(&blocked) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `blocked`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_RAW, TYPES, (&raw const blocked).cast(), length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.attach_filter(program)?;
    // SAFETY: a socket has one descriptor, which it closes when it is dropped, and it is dropped after it has been taken off the list.
    unsafe { Ok(AsyncFd::register_with_interest(socket, Interest::READABLE)?) }
}

/// One instruction of a socket's filter; `jt` and `jf` are how many to leave out where a comparison holds, and where it does not.
const fn does(code: u32, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, jt, jf, k)
}

/// The length of the IPv4 header, from its first octet, into the index register.
const HEADER: SockFilter = does(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0);
const TAKE: SockFilter = does(BPF_RET | BPF_K, 0, 0, u32::MAX);
const LEAVE: SockFilter = does(BPF_RET | BPF_K, 0, 0, 0);
/// Behind that header: ICMP's type, its identifier, the protocol of the packet that an error quotes, and the identifier of a quoted ICMP
/// packet whose header has no options, as ours have none.
const TYPE: SockFilter = does(BPF_LD | BPF_B | BPF_IND, 0, 0, 0);
const ID: SockFilter = does(BPF_LD | BPF_H | BPF_IND, 0, 0, 4);
const QUOTED_PROTOCOL: SockFilter = does(BPF_LD | BPF_B | BPF_IND, 0, 0, 17);
const QUOTED_ID: SockFilter = does(BPF_LD | BPF_H | BPF_IND, 0, 0, 32);

const fn equals(value: u32, jt: u8, jf: u8) -> SockFilter {
    does(BPF_JMP | BPF_JEQ | BPF_K, jt, jf, value)
}

/// Replies with this identifier, and errors that quote an ICMP packet with it.
fn answers(id: u16) -> [SockFilter; 11] {
    [
        HEADER,
        TYPE,
        equals(0, 0, 2),
        ID,
        does(BPF_JMP | BPF_JA, 0, 0, 3),
        QUOTED_PROTOCOL,
        equals(1, 0, 3),
        QUOTED_ID,
        equals(u32::from(id), 0, 1),
        TAKE,
        LEAVE,
    ]
}

/// Errors that quote a packet of protocol 4.
fn refusals() -> [SockFilter; 5] {
    [HEADER, QUOTED_PROTOCOL, equals(4, 0, 1), TAKE, LEAVE]
}
