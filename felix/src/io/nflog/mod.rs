//! What the table tells of denied packets: nfnetlink_log by hand, one group, one thread.
//!
//! Out flow [`Packet`]s in batches. Only one process can listen to a group, so the thread waits while another felix still does.

mod packet;
mod wire;

pub(crate) use packet::headers;
pub use packet::{Headers, Packet};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;

/// Batches that the agent has not taken yet; beyond that packets are counted only.
const WAITING: usize = 64;
/// How often a group that another process listens to is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// What packets fill until they are read: a burst of some thousands.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What is heard.
#[derive(Debug)]
pub enum Heard {
    /// Packets that were denied.
    Packets(Vec<Packet>),
    /// More were told of than could be taken: so many, or an unknown number (0).
    Missed(u64),
    /// Nothing can be heard; why. Tried again.
    Deaf(String),
    /// It can be heard.
    Listening,
}

/// Listens to a group in the calling thread's network namespace, for as long as the receiver lives.
///
/// # Errors
/// There is no thread to be had.
pub fn start(group: u16) -> io::Result<mpsc::Receiver<Heard>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::Builder::new().name("nflog".into()).spawn(move || listen(group, &sender))?;
    Ok(receiver)
}

fn listen(group: u16, sender: &mpsc::Sender<Heard>) {
    let mut told = String::new();
    while !sender.is_closed() {
        let ended = match open(group) {
            Ok(socket) => {
                told.clear();
                if sender.blocking_send(Heard::Listening).is_err() {
                    return;
                }
                forward(&socket, sender)
            }
            Err(error) => error,
        };
        let problem = match ended.raw_os_error() {
            Some(libc::EBUSY | libc::EPERM) => format!("another process listens to NFLOG group {group}: {ended}"),
            _ => format!("NFLOG group {group} cannot be listened to: {ended}"),
        };
        if problem != told && sender.blocking_send(Heard::Deaf(problem.clone())).is_err() {
            return;
        }
        told = problem;
        std::thread::sleep(RETRY);
    }
}

/// Binds the group, and the kernel has said yes.
fn open(group: u16) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    for message in wire::requests(group) {
        socket.send(&message, 0)?;
        wire::acknowledged(&socket)?;
    }
    // So that the thread notices that nobody wants to hear any more.
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::ReceiveTimeout,
        &nix::sys::time::TimeVal::new(1, 0),
    )?;
    Ok(socket)
}

/// Hands over what comes until the socket fails or the receiver has gone.
fn forward(socket: &Socket, sender: &mpsc::Sender<Heard>) -> io::Error {
    let (mut buffer, mut missed) = (Vec::with_capacity(64 << 10), 0);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => {
                let packets: Vec<Packet> = wire::packets(&buffer).collect();
                let count = packets.len() as u64;
                if !packets.is_empty() && sender.try_send(Heard::Packets(packets)).is_err() {
                    missed += count;
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => missed += 1,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return error,
        }
        if sender.is_closed() {
            return io::Error::from(io::ErrorKind::BrokenPipe);
        }
        if missed > 0 && sender.try_send(Heard::Missed(missed)).is_ok() {
            missed = 0;
        }
    }
}
