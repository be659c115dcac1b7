//! A wire that counts: what a client sends to a port of its own goes on to the API server as it is, and the answers come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that TCP carried, TLS and all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bytes {
    /// From the server.
    pub(crate) down: u64,
    /// To the server.
    pub(crate) up: u64,
}

impl Bytes {
    pub(crate) fn since(self, before: Self) -> Self {
        Self { down: self.down - before.down, up: self.up - before.up }
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self { down: sum.down + one.down, up: sum.up + one.up })
    }
}

#[derive(Default)]
struct Counters {
    down: AtomicU64,
    up: AtomicU64,
}

/// One client's way to the server.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    counters: Arc<Counters>,
}

impl Relay {
    /// Listens on loopback and serves as long as its runtime runs.
    pub(crate) async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let relay = Self { port: listener.local_addr()?.port(), counters: Arc::default() };
        let counters = relay.counters.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server, counters.clone()));
            }
        });
        Ok(relay)
    }

    pub(crate) fn bytes(&self) -> Bytes {
        Bytes { down: self.counters.down.load(Ordering::Relaxed), up: self.counters.up.load(Ordering::Relaxed) }
    }
}

async fn carry(client: TcpStream, server: SocketAddr, counters: Arc<Counters>) {
    // The client sees a closed connection, and asks again.
    let Ok(server) = TcpStream::connect(server).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(copy(from_client, to_server, &counters.up), copy(from_server, to_client, &counters.down));
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counter: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes) = from.read(&mut buffer).await {
        if bytes == 0 || to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
