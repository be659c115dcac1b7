//! Numbered datagrams, and transfers of bytes in their order, that go on between pods while something happens: which were lost.

use super::traffic::End;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twill_e2e::within;
use twill_lab::io::netns;

/// Between two datagrams, and between two pieces of a transfer: 200 a second.
pub(crate) const PACE: Duration = Duration::from_millis(5);
/// Of a datagram. With its headers it fits into the least MTU that IPv6 knows, through a tunnel, too.
const DATAGRAM: usize = 1100;
/// Of a transfer: several segments.
const PIECE: usize = 4096;
const PORT: u16 = 7400;
/// Datagrams that every stream is heard for until it counts as going on.
const SOME: u64 = 60;
/// Longest wait for that, on a busy machine and an emulated processor.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a receiver looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Streams of datagrams, and transfers, all at one pace.
pub(crate) struct Streams {
    datagrams: Vec<Datagrams>,
    transfers: Vec<Transfer>,
}

/// What became of one stream of datagrams.
#[derive(Debug)]
pub(crate) struct Loss {
    stream: String,
    sent: u64,
    /// Numbers that the kernel did not send, or that nobody received.
    lost: Vec<u64>,
    doubled: u64,
    pace: Duration,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} lost, {} twice", self.stream, self.lost.len(), self.sent, self.doubled)?;
        if let (Some(first), Some(last)) = (self.lost.first(), self.lost.last()) {
            let at = |number: u64| self.pace.as_secs_f64() * number as f64;
            write!(f, ", sent {:.2} to {:.2} s after the start", at(*first), at(*last))?;
        }
        Ok(())
    }
}

impl Streams {
    pub(crate) fn start(datagrams: &[(End, End)], transfers: &[(End, End)], pace: Duration) -> Self {
        let datagrams = datagrams.iter().map(|(from, to)| Datagrams::start(from, to, pace)).collect();
        let transfers = transfers.iter().map(|(from, to)| Transfer::start(from, to, pace)).collect();
        let streams = Self { datagrams, transfers };
        streams.go_on();
        streams
    }

    /// Every stream is heard for another third of a second.
    pub(crate) fn go_on(&self) {
        let all = || {
            let datagrams = self.datagrams.iter().map(|one| (&one.name, one.heard.load(Ordering::Relaxed) / SOME));
            let transfers = self.transfers.iter().map(|one| (&one.name, one.heard() / (SOME * PIECE as u64)));
            datagrams.chain(transfers).map(|(name, some)| (name.clone(), some)).collect::<Vec<_>>()
        };
        let before = all();
        let behind = || {
            let both = all().into_iter().zip(&before);
            both.filter(|((_, now), (_, before))| *now < before + 2).map(|((name, _), _)| name).collect::<Vec<_>>()
        };
        let heard = within(LIMIT, "every stream goes on", || behind().is_empty());
        assert!(heard.is_ok(), "{heard:?}: {:?} stand still", behind());
    }

    /// Ends all, and says what was lost. Transfers have come to their end, whole and in order.
    pub(crate) fn end(self) -> Vec<Loss> {
        for transfer in self.transfers {
            transfer.end();
        }
        self.datagrams.into_iter().map(Datagrams::end).collect()
    }

    /// Ends all, of which nothing was lost.
    pub(crate) fn end_whole(self) {
        let losses = self.end();
        for loss in &losses {
            println!("{loss}");
        }
        assert!(losses.iter().all(|loss| loss.lost.is_empty() && loss.doubled == 0), "{losses:?}");
    }
}

struct Datagrams {
    name: String,
    pace: Duration,
    heard: Arc<AtomicU64>,
    sends: Arc<AtomicBool>,
    listens: Arc<AtomicBool>,
    /// How many there were.
    sender: JoinHandle<u64>,
    /// How often each came.
    receiver: JoinHandle<Vec<u64>>,
}

impl Datagrams {
    fn start(from: &End, to: &End, pace: Duration) -> Self {
        let to_address = SocketAddr::new(to.address, port());
        let receives = netns::inside(&to.netns, || Ok(UdpSocket::bind(to_address)?)).unwrap();
        let sends_by = netns::inside(&from.netns, || Ok(UdpSocket::bind(SocketAddr::new(from.address, 0))?)).unwrap();
        receives.set_read_timeout(Some(LOOK)).unwrap();
        // Seconds of packets: a thread that does not get its turn must not look like a network that loses them.
        nix::sys::socket::setsockopt(&receives, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20)).unwrap();
        let on = || Arc::new(AtomicBool::new(true));
        let (heard, sends, listens) = (Arc::new(AtomicU64::new(0)), on(), on());
        let receiver = {
            let (heard, listens) = (heard.clone(), listens.clone());
            std::thread::spawn(move || receive(&receives, &heard, &listens))
        };
        let sender = {
            let sends = sends.clone();
            std::thread::spawn(move || send(&sends_by, to_address, pace, &sends))
        };
        Self { name: name("UDP", from, to), pace, heard, sends, listens, sender, receiver }
    }

    fn end(self) -> Loss {
        self.sends.store(false, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        // What was sent last may be under way; what was lost will not come.
        let _ = within(Duration::from_secs(5), "all arrive", || self.heard.load(Ordering::Relaxed) >= sent);
        self.listens.store(false, Ordering::Relaxed);
        let mut came = self.receiver.join().unwrap();
        came.resize(usize::try_from(sent).unwrap(), 0);
        let lost = came.iter().zip(0..).filter(|(times, _)| **times == 0).map(|(_, number)| number).collect();
        let doubled = came.iter().map(|times| times.saturating_sub(1)).sum();
        Loss { stream: self.name, sent, lost, doubled, pace: self.pace }
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, pace: Duration, goes_on: &AtomicBool) -> u64 {
    let (mut number, began, mut datagram) = (0_u64, Instant::now(), [0; DATAGRAM]);
    while goes_on.load(Ordering::Relaxed) {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // What the kernel refuses is not received.
        let _ = socket.send_to(&datagram, to);
        number += 1;
        wait(began, pace, number);
    }
    number
}

fn receive(socket: &UdpSocket, heard: &AtomicU64, goes_on: &AtomicBool) -> Vec<u64> {
    let (mut came, mut datagram) = (Vec::new(), [0; DATAGRAM]);
    while goes_on.load(Ordering::Relaxed) {
        let Ok(DATAGRAM) = socket.recv(&mut datagram) else { continue };
        let number = u64::from_be_bytes(datagram[..8].try_into().unwrap());
        let number = usize::try_from(number).unwrap();
        came.resize(came.len().max(number + 1), 0);
        came[number] += 1;
        heard.fetch_add(1, Ordering::Relaxed);
    }
    came
}

struct Transfer {
    name: String,
    heard: Arc<AtomicU64>,
    sends: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<u64>,
}

impl Transfer {
    fn start(from: &End, to: &End, pace: Duration) -> Self {
        let to_address = SocketAddr::new(to.address, port());
        let listener = netns::inside(&to.netns, || Ok(TcpListener::bind(to_address)?)).unwrap();
        let client = netns::inside(&from.netns, || Ok(TcpStream::connect_timeout(&to_address, LIMIT)?)).unwrap();
        let server = listener.accept().unwrap().0;
        client.set_write_timeout(Some(LIMIT)).unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        let (heard, sends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let receiver = {
            let heard = heard.clone();
            std::thread::spawn(move || read_on(server, &heard))
        };
        let sender = {
            let sends = sends.clone();
            std::thread::spawn(move || write_on(client, pace, &sends))
        };
        Self { name: name("TCP", from, to), heard, sends, sender, receiver }
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.sends.store(false, Ordering::Relaxed);
        let (sent, came) = (self.sender.join().unwrap(), self.receiver.join().unwrap());
        assert!(sent > 0 && sent == came, "{}: {came} of {sent} bytes came in their order", self.name);
        println!("{}: {sent} bytes came", self.name);
    }
}

fn write_on(mut stream: TcpStream, pace: Duration, goes_on: &AtomicBool) -> u64 {
    let (text, mut sent, began) = (text(), 0, Instant::now());
    while goes_on.load(Ordering::Relaxed) {
        if stream.write_all(&text[offset(sent)..][..PIECE]).is_err() {
            break;
        }
        sent += PIECE as u64;
        wait(began, pace, sent / PIECE as u64);
    }
    let _ = stream.shutdown(Shutdown::Write);
    sent
}

/// How many bytes came before the end, or before the first that is not what was sent.
fn read_on(mut stream: TcpStream, heard: &AtomicU64) -> u64 {
    let (text, mut buffer) = (text(), [0; PIECE]);
    loop {
        let came = heard.load(Ordering::Relaxed);
        match stream.read(&mut buffer) {
            Ok(0) => return came,
            Ok(length) if buffer[..length] == text[offset(came)..][..length] => {
                heard.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return came,
        }
    }
}

/// No power of two, so that a segment in another's place does not look like its own.
const PERIOD: u8 = 251;

fn text() -> Vec<u8> {
    (0..PERIOD).cycle().take(usize::from(PERIOD) + PIECE).collect()
}

fn offset(at: u64) -> usize {
    usize::try_from(at % u64::from(PERIOD)).unwrap()
}

/// The next one's turn, on average, whatever the scheduler does.
fn wait(began: Instant, pace: Duration, done: u64) {
    let due = pace * u32::try_from(done).unwrap();
    std::thread::sleep(due.saturating_sub(began.elapsed()));
}

/// One that no other stream of this process has.
fn port() -> u16 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    PORT + u16::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % 1000).unwrap()
}

fn name(protocol: &str, from: &End, to: &End) -> String {
    format!("{protocol} {} to {} ({})", from.name, to.name, to.address)
}
