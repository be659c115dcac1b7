//! Senders and the receiver, each on a thread in a network namespace of its own.

use super::row::{Neighbour, Row};
use super::{message, namespaces};
use anyhow::{Context, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// How long a speaker may take to accept a session: some wait for a while after their start.
const SESSION: Duration = Duration::from_secs(60);

/// What the receiver has heard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) distinct: u32,
    pub(crate) updates: u64,
}

/// A session: the speaker's KEEPALIVE has come; and what came behind it.
fn session(neighbour: Neighbour) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let number = neighbour.number;
    namespaces::ip(&format!("address add {}/24 dev p{number}", neighbour.text()))?;
    namespaces::ip(&format!("link set p{number} up"))?;
    let deadline = Instant::now() + SESSION;
    loop {
        match handshake(neighbour) {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() > deadline => return Err(error).context("no session"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn handshake(neighbour: Neighbour) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let to = SocketAddr::new(Ipv4Addr::new(10, 98, neighbour.number, 1).into(), 179);
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SESSION))?;
    stream.write_all(&message::open(neighbour.asn(), neighbour.address()))?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some((kind, whole)) = message::first(&bytes) {
            let length = whole.len();
            match kind {
                1 => stream.write_all(&message::keepalive())?,
                3 => bail!("NOTIFICATION {:?}", &whole[message::HEADER..]),
                4 => {
                    bytes.drain(..length);
                    return Ok((stream, bytes));
                }
                _ => {}
            }
            bytes.drain(..length);
        }
        match stream.read(&mut buffer)? {
            0 => bail!("the speaker closed the connection"),
            octets => bytes.extend(&buffer[..octets]),
        }
    }
}

/// Sends everything at the word, and keeps the session until the measurement is over. Returns when the last octet was taken; none: the
/// speaker had gone before.
pub(crate) fn send(
    row: Row,
    neighbour: Neighbour,
    is_up: &Sender<()>,
    starts: &Receiver<()>,
    is_over: &Receiver<()>,
) -> anyhow::Result<Option<Instant>> {
    let updates = message::updates(row, neighbour);
    let (mut stream, _) = session(neighbour)?;
    is_up.send(())?;
    starts.recv()?;
    let sent = stream.write_all(&updates).is_ok().then(Instant::now);
    // Nothing is ever said there: the channel ends.
    let _over = is_over.recv();
    Ok(sent)
}

/// Receives until all prefixes have come, or it is time to give up.
pub(crate) fn receive(row: Row, limit: Duration, is_up: &Sender<()>) -> anyhow::Result<Heard> {
    let (mut stream, mut bytes) = session(Neighbour::RECEIVER)?;
    is_up.send(())?;
    // It counts from here, since senders start soon.
    let deadline = Instant::now() + limit;
    let mut seen = vec![false; row.total() as usize];
    let mut heard = Heard { at: Instant::now(), distinct: 0, updates: 0 };
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut at = 0;
        while let Some((kind, whole)) = message::first(&bytes[at..]) {
            at += whole.len();
            if kind == 3 {
                bail!("NOTIFICATION {:?} after {} prefixes", &whole[message::HEADER..], heard.distinct);
            }
            if kind == 2 {
                heard.updates += 1;
                message::announced(whole, |index| {
                    heard.distinct += u32::from(!std::mem::replace(&mut seen[index as usize], true));
                });
            }
        }
        bytes.drain(..at);
        heard.at = Instant::now();
        let left = deadline.saturating_duration_since(heard.at);
        if heard.distinct == row.total() || left.is_zero() {
            return Ok(heard);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the speaker closed the connection after {} prefixes", heard.distinct),
            Ok(octets) => bytes.extend(&buffer[..octets]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error).with_context(|| format!("after {} prefixes", heard.distinct)),
        }
    }
}
