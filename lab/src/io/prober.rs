//! Tries connections for real: in flow attempts, each from a namespace to an address, out flow what came back.
//!
//! One thread per source namespace, all attempts of a namespace at once up to a limit.

use crate::io::holder::lacks;
use crate::io::netns;
use crate::ports::Protocol;
use anyhow::anyhow;
use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// One thing to try.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Namespace it starts from.
    pub netns: String,
    /// Where it goes.
    pub to: SocketAddr,
    /// How.
    pub protocol: Protocol,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// A connection, or an answer: its first line, if one came.
    Answered(Option<String>),
    /// A reset, or ICMP port-unreachable: the packet arrived where nobody listens.
    Refused,
    /// Nothing.
    Silence,
    /// A router or the own kernel says that there is no way.
    Unreachable(String),
    /// This kernel has no sockets of the protocol.
    Unsupported,
}

/// At most so many sockets of one source at once.
const AT_ONCE: usize = 200;

/// Tries everything; outcomes are in the order of the attempts. Silence is said after `limit`.
///
/// # Errors
/// A namespace is gone.
pub fn probe(attempts: &[Attempt], limit: Duration) -> anyhow::Result<Vec<Outcome>> {
    raise_file_limit();
    let mut by_source: BTreeMap<&str, Vec<(usize, &Attempt)>> = BTreeMap::new();
    for (i, attempt) in attempts.iter().enumerate() {
        by_source.entry(&attempt.netns).or_default().push((i, attempt));
    }
    let mut outcomes = vec![Outcome::Silence; attempts.len()];
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let threads = by_source
            .into_iter()
            .map(|(source, attempts)| scope.spawn(move || from_one(source, &attempts, limit)))
            .collect::<Vec<_>>();
        for thread in threads {
            for (i, outcome) in thread.join().map_err(|_| anyhow!("a prober failed"))?? {
                outcomes[i] = outcome;
            }
        }
        Ok(())
    })?;
    Ok(outcomes)
}

fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn from_one(source: &str, attempts: &[(usize, &Attempt)], limit: Duration) -> anyhow::Result<Vec<(usize, Outcome)>> {
    netns::enter(source)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let tried = attempts.iter().map(|(i, attempt)| {
            let slots = slots.clone();
            async move {
                let _slot = slots.acquire().await;
                (*i, one(attempt.to, attempt.protocol, limit).await)
            }
        });
        Ok(futures::future::join_all(tried).await)
    })
}

async fn one(to: SocketAddr, protocol: Protocol, limit: Duration) -> Outcome {
    let tried = match protocol {
        Protocol::Tcp => stream(to, socket2::Protocol::TCP, limit).await,
        Protocol::Sctp => stream(to, socket2::Protocol::SCTP, limit).await,
        Protocol::Udp => datagram(to, limit).await,
    };
    tried.unwrap_or_else(|error| outcome_of(&error))
}

fn outcome_of(error: &std::io::Error) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
        ErrorKind::TimedOut => Outcome::Silence,
        _ if lacks(error) => Outcome::Unsupported,
        _ => Outcome::Unreachable(error.to_string()),
    }
}

async fn stream(to: SocketAddr, protocol: socket2::Protocol, limit: Duration) -> std::io::Result<Outcome> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(protocol))?;
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => other?,
    }
    let stream = TcpStream::from_std(socket.into())?;
    match timeout(limit, stream.writable()).await {
        Err(_) => return Ok(Outcome::Silence),
        Ok(ready) => ready?,
    }
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    Ok(Outcome::Answered(timeout(limit, line(stream)).await.ok().flatten()))
}

/// The first line, if the other side sends one.
async fn line(mut stream: TcpStream) -> Option<String> {
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    while !received.contains(&b'\n') {
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => received.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    first_line(&received)
}

fn first_line(received: &[u8]) -> Option<String> {
    String::from_utf8_lossy(received).lines().next().map(str::to_owned)
}

/// Asks again every fifth of the limit: a datagram may be lost where nobody forbids it.
async fn datagram(to: SocketAddr, limit: Duration) -> std::io::Result<Outcome> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = tokio::net::UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    let mut buffer = [0; 1024];
    for _ in 0..5 {
        socket.send(b"?\n").await?;
        if let Ok(received) = timeout(limit / 5, socket.recv(&mut buffer)).await {
            return received.map(|n| Outcome::Answered(first_line(&buffer[..n])));
        }
    }
    Ok(Outcome::Silence)
}
