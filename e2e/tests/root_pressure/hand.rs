//! Peers that the tests drive by hand.

use super::TOLD;
use super::world::World;
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twill_e2e::messages::{self, HEADER, KEEPALIVE, NOTIFICATION, OPEN, UPDATE};
use twill_lab::io::netns;

/// How long a session may take.
const SESSION: Duration = Duration::from_secs(10);
/// What every peer here asks for, in seconds.
pub(crate) const HOLD: u16 = 3;

/// A connection from 10.74.0.`host`, nothing said yet. A small `window` fills soon.
pub(crate) fn connect(world: &World, host: u8, window: Option<usize>) -> std::io::Result<TcpStream> {
    let attempt = || -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
        }
        socket.bind(&SocketAddr::new(address(host).into(), 0).into())?;
        socket.connect_timeout(&SocketAddr::new(address(1).into(), 179).into(), SESSION)?;
        Ok(socket.into())
    };
    netns::inside(&world.peers, || Ok(attempt())).unwrap()
}

pub(crate) fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 74, 0, host)
}

/// Connects until the speaker's OPEN has come, and sends one. It refuses peers for a second after an error of theirs.
pub(crate) fn opened(world: &World, host: u8, window: Option<usize>) -> TcpStream {
    let begun = Instant::now();
    loop {
        let answer = connect(world, host, window).and_then(|mut stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(SESSION))?;
            stream.write_all(&messages::open(65000 + u16::from(host), address(host).octets(), HOLD))?;
            Ok((next(&mut stream)?.0 == OPEN).then_some(stream))
        });
        match answer {
            Ok(Some(stream)) => return stream,
            other => assert!(begun.elapsed() < SESSION, "no OPEN for 10.74.0.{host}: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The next message, without reading beyond it.
pub(crate) fn next(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut whole = vec![0; HEADER];
    stream.read_exact(&mut whole)?;
    whole.resize(usize::from(u16::from_be_bytes([whole[16], whole[17]])), 0);
    stream.read_exact(&mut whole[HEADER..])?;
    Ok((whole[18], whole))
}

/// A session, Established at both ends; nothing is read from it, and nothing more said on it.
pub(crate) fn established(world: &World, host: u8, window: Option<usize>) -> TcpStream {
    let mut stream = opened(world, host, window);
    stream.write_all(&messages::keepalive()).unwrap();
    while next(&mut stream).unwrap().0 != KEEPALIVE {}
    stream
}

/// Says KEEPALIVE every second until dropped.
pub(crate) struct Alive {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Alive {
    /// Nothing else may write to `stream` meanwhile but by this lock.
    pub(crate) fn on(stream: &Arc<Mutex<TcpStream>>) -> Self {
        let (over, stream) = (Arc::new(AtomicBool::new(false)), Arc::clone(stream));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut last = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                if last.elapsed() >= Duration::from_secs(1) {
                    last = Instant::now();
                    if lock(&stream).write_all(&messages::keepalive()).is_err() {
                        return;
                    }
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a healthy peer has heard.
#[derive(Default)]
pub(crate) struct Heard {
    /// When each prefix of the teller came for the first time.
    pub(crate) prefixes: HashMap<u32, Instant>,
    last: Option<Instant>,
    /// The longest silence.
    pub(crate) silence: Duration,
    /// Why the session ended, if it did.
    pub(crate) end: Option<String>,
}

/// A peer that reads all it is sent and says KEEPALIVE every second. It ends its session when it is dropped.
pub(crate) struct Healthy {
    pub(crate) stream: Arc<Mutex<TcpStream>>,
    heard: Arc<Mutex<Heard>>,
    _alive: Alive,
}

impl Healthy {
    pub(crate) fn start(world: &World, host: u8) -> Self {
        let stream = established(world, host, None);
        let mut reads = stream.try_clone().unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let told = Arc::clone(&heard);
        std::thread::spawn(move || listen(&mut reads, &told));
        let stream = Arc::new(Mutex::new(stream));
        let alive = Alive::on(&stream);
        Self { stream, heard, _alive: alive }
    }

    pub(crate) fn say(&self, octets: &[u8]) {
        lock(&self.stream).write_all(octets).unwrap();
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

impl Drop for Healthy {
    fn drop(&mut self) {
        // Ends the thread that reads.
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
    }
}

/// Reads until the session ends.
fn listen(stream: &mut TcpStream, heard: &Mutex<Heard>) {
    stream.set_read_timeout(None).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 256 << 10]);
    loop {
        let read = stream.read(&mut buffer);
        let now = Instant::now();
        let mut heard = lock(heard);
        let silence = heard.last.map_or(Duration::ZERO, |last| now - last);
        (heard.last, heard.silence) = (Some(now), heard.silence.max(silence));
        match read {
            Ok(octets) if octets > 0 => bytes.extend_from_slice(&buffer[..octets]),
            end => {
                heard.end.get_or_insert_with(|| format!("{end:?}"));
                return;
            }
        }
        let mut at = 0;
        while let Some((kind, whole)) = messages::first(&bytes[at..]) {
            at += whole.len();
            match kind {
                UPDATE => messages::announced(whole, |index| {
                    // All others only have to be taken.
                    if index >= TOLD {
                        heard.prefixes.entry(index).or_insert(now);
                    }
                }),
                NOTIFICATION => heard.end = Some(format!("NOTIFICATION {:?}", &whole[HEADER..])),
                _ => {}
            }
        }
        bytes.drain(..at);
    }
}

pub(crate) fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
