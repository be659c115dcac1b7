//! One measurement.

use super::daemon::Speaker;
use super::{message, namespaces};
use anyhow::{Context, bail};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// No measurement takes longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) prefixes: u32,
    pub(crate) per_update: u32,
    pub(crate) sets: u32,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) updates: u64,
    pub(crate) peak_mib: f64,
    pub(crate) cpu_seconds: f64,
}

struct Received {
    at: Instant,
    updates: u64,
}

/// Starts the speaker afresh and sends it all prefixes.
pub(crate) fn run(speaker: &Speaker, load: Load) -> anyhow::Result<Outcome> {
    let directory = std::env::temp_dir().join(format!("twill-bench-bgp-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let result = std::thread::scope(|scope| scope.spawn(|| measure(speaker, load, &directory)).join());
    std::fs::remove_dir_all(&directory)?;
    result.map_err(|_| anyhow::anyhow!("the measuring thread panicked"))?
}

/// In the speaker's namespace.
fn measure(speaker: &Speaker, load: Load, directory: &std::path::Path) -> anyhow::Result<Outcome> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .context("cannot make a network namespace; run as root")?;
    namespaces::ip("link set lo up")?;
    let (go_receiver, receiver_goes) = mpsc::channel::<()>();
    let (go_sender, sender_goes) = mpsc::channel::<()>();
    let (is_up, receiver_is_up) = mpsc::channel();
    let (receiver_id, receiver) = namespaces::spawn(move || {
        receiver_goes.recv()?;
        receive(load.prefixes, &is_up)
    })?;
    let (sender_id, sender) = namespaces::spawn(move || {
        sender_goes.recv()?;
        send(&message::updates(load.prefixes, load.per_update, load.sets, 65001, [10, 98, 1, 2]))
    })?;
    for (number, thread) in [(1, sender_id), (2, receiver_id)] {
        namespaces::ip(&format!("link add d{number} type veth peer name p{number} netns {thread}"))?;
        namespaces::ip(&format!("address add 10.98.{number}.1/24 dev d{number}"))?;
        namespaces::ip(&format!("link set d{number} up"))?;
    }
    let running = speaker.start(directory)?;
    go_receiver.send(()).context("the receiver ended early")?;
    receiver_is_up.recv_timeout(LIMIT).context("no session with the receiver")?;
    go_sender.send(()).context("the sender ended early")?;
    let started = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?.context("sender")?;
    let received = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))?.context("receiver")?;
    Ok(Outcome {
        seconds: received.at.saturating_duration_since(started.at).as_secs_f64(),
        updates: received.updates,
        peak_mib: running.peak_mib()?,
        cpu_seconds: running.cpu_seconds()?,
    })
}

struct Started {
    at: Instant,
    /// Keeps the session until the measurement is over.
    _stream: TcpStream,
}

/// A session: both KEEPALIVEs have come. A speaker that has only just started may refuse for a while.
fn session(number: u8, asn: u16) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    namespaces::ip(&format!("address add 10.98.{number}.2/24 dev p{number}"))?;
    namespaces::ip(&format!("link set p{number} up"))?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match handshake(number, asn) {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn handshake(number: u8, asn: u16) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let to = SocketAddr::new(Ipv4Addr::new(10, 98, number, 1).into(), 179);
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).context("cannot connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&message::open(asn, [10, 98, number, 2]))?;
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

fn send(updates: &[u8]) -> anyhow::Result<Started> {
    let (stream, _) = session(1, 65001)?;
    let at = Instant::now();
    (&stream).write_all(updates).context("sending")?;
    Ok(Started { at, _stream: stream })
}

fn receive(prefixes: u32, is_up: &mpsc::Sender<()>) -> anyhow::Result<Received> {
    let (mut stream, mut bytes) = session(2, 65002)?;
    is_up.send(())?;
    let mut seen = vec![false; prefixes as usize];
    let (mut distinct, mut updates) = (0, 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut at = 0;
        while let Some((kind, whole)) = message::first(&bytes[at..]) {
            at += whole.len();
            if kind == 3 {
                bail!("NOTIFICATION {:?}", &whole[message::HEADER..]);
            }
            if kind == 2 {
                updates += 1;
                message::announced(whole, |index| {
                    distinct += u32::from(!std::mem::replace(&mut seen[index as usize], true));
                });
            }
        }
        bytes.drain(..at);
        if distinct == prefixes {
            return Ok(Received { at: Instant::now(), updates });
        }
        match stream.read(&mut buffer) {
            Ok(0) => bail!("the speaker closed the connection after {distinct} prefixes"),
            Ok(octets) => bytes.extend(&buffer[..octets]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("after {distinct} prefixes")),
        }
    }
}
