//! Connections with monitoring stations (BMP, RFC 7854), a task each on the runtime of who configures them. In flow messages from the RIB;
//! out flow octets, and word of what became of the connection.

use super::rib::Command;
use crate::bmp::termination;
use crate::speaker::StationEvent;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a station may take nothing, after which it has to begin again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last word may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// First and longest pause between attempts (RFC 7854 section 3.2).
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// The stations that are configured.
#[derive(Clone)]
pub(super) struct Stations {
    rib: mpsc::Sender<Command>,
    tasks: Arc<Mutex<BTreeMap<SocketAddr, Task>>>,
    problems: Problems,
}

/// Why there is no connection with a station.
type Problems = Arc<Mutex<BTreeMap<SocketAddr, String>>>;

struct Task {
    stop: Arc<Notify>,
    handle: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stations {
    pub(super) fn new(rib: mpsc::Sender<Command>) -> Self {
        Self { rib, tasks: Arc::default(), problems: Arc::default() }
    }

    /// From now on these; those that were there already do not notice. To be called on a runtime.
    pub(super) fn configure(&self, stations: &BTreeSet<SocketAddr>) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|address, task| {
            let stays = stations.contains(address);
            if !stays {
                task.stop.notify_one();
                lock(&self.problems).remove(address);
            }
            stays
        });
        for address in stations {
            tasks.entry(*address).or_insert_with(|| {
                let stop = Arc::new(Notify::new());
                let serve = serve(*address, self.rib.clone(), stop.clone(), self.problems.clone());
                Task { stop, handle: tokio::spawn(serve) }
            });
        }
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        lock(&self.problems).values().cloned().collect()
    }

    /// Tells all that this is the end.
    pub(super) async fn leave(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.values().for_each(|task| task.stop.notify_one());
        let all = futures::future::join_all(tasks.into_values().map(|task| task.handle));
        // One that takes nothing is left as it is.
        drop(timeout(FAREWELL, all).await);
    }
}

/// How a connection ended.
enum End {
    /// We are to stop.
    Stopped,
    /// It is to be made again, for this reason.
    Lost(String),
}

async fn serve(address: SocketAddr, rib: mpsc::Sender<Command>, stop: Arc<Notify>, problems: Problems) {
    let mut pause = PAUSES[0];
    loop {
        let attempt = timeout(CONNECT, TcpStream::connect(address));
        let connected = tokio::select! {
            () = stop.notified() => return,
            connected = attempt => connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        let problem = match connected {
            Ok(stream) => {
                lock(&problems).remove(&address);
                info!(%address, "monitoring station connected");
                pause = PAUSES[0];
                let end = converse(stream, address, &rib, &stop).await;
                drop(rib.send(Command::Event(crate::speaker::Event::Station(address, StationEvent::Down))).await);
                match end {
                    End::Stopped => return,
                    End::Lost(why) => why,
                }
            }
            Err(error) => error.to_string(),
        };
        let sentence = format!("bmp: no connection with station {address}: {problem}; it is tried again");
        if lock(&problems).insert(address, sentence.clone()).as_ref() != Some(&sentence) {
            warn!("{sentence}");
        }
        tokio::select! {
            () = stop.notified() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES[1]),
        }
    }
}

async fn converse(stream: TcpStream, address: SocketAddr, rib: &mpsc::Sender<Command>, stop: &Notify) -> End {
    let (mut reader, mut writer) = stream.into_split();
    let (sender, mut pieces) = mpsc::unbounded_channel::<Bytes>();
    if rib.send(Command::Station(address, sender)).await.is_err() {
        return End::Stopped;
    }
    let mut unread = [0; 512];
    loop {
        tokio::select! {
            () = stop.notified() => {
                // What is on its way goes first.
                let mut last = Vec::new();
                while let Ok(piece) = pieces.try_recv() {
                    last.extend_from_slice(&piece);
                }
                termination(&mut last);
                drop(timeout(FAREWELL, writer.write_all(&last)).await);
                return End::Stopped;
            }
            piece = pieces.recv() => {
                let Some(piece) = piece else { return End::Lost("it is too slow".to_owned()) };
                match timeout(PATIENCE, writer.write_all(&piece)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Lost(error.to_string()),
                    Err(_) => return End::Lost(format!("it has taken nothing for {} seconds", PATIENCE.as_secs())),
                }
                let written = crate::speaker::Event::Station(address, StationEvent::Written(piece.len()));
                if rib.send(Command::Event(written)).await.is_err() {
                    return End::Stopped;
                }
            }
            // A station says nothing; this is how its end is seen.
            read = reader.read(&mut unread) => match read {
                Ok(0) => return End::Lost("it has closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return End::Lost(error.to_string()),
            },
        }
    }
}
