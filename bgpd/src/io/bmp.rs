//! Connections with monitoring stations (BMP, RFC 7854), a task each on the runtime of who configures them. In flow messages from the RIB;
//! out flow octets, and word of what became of the connection.

use super::rib::Command;
use crate::bmp::termination;
use crate::speaker::{Event, StationEvent, StationId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
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
    /// The next connection's number. Another one with the same station has another: what is said of the last one is not said of it.
    next: Arc<AtomicU64>,
}

/// Why there is no connection with a station. It goes with who serves the station.
type Problem = Arc<Mutex<Option<String>>>;

struct Task {
    stop: Arc<Notify>,
    problem: Problem,
    handle: JoinHandle<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stations {
    pub(super) fn new(rib: mpsc::Sender<Command>) -> Self {
        Self { rib, tasks: Arc::default(), next: Arc::default() }
    }

    /// From now on these; those that were there already do not notice. To be called on a runtime.
    pub(super) fn configure(&self, stations: &BTreeSet<SocketAddr>) {
        let mut tasks = lock(&self.tasks);
        tasks.retain(|address, task| {
            let stays = stations.contains(address);
            if !stays {
                task.stop.notify_one();
            }
            stays
        });
        for address in stations {
            tasks.entry(*address).or_insert_with(|| {
                let (stop, problem) = (Arc::new(Notify::new()), Problem::default());
                let server = Server {
                    address: *address,
                    rib: self.rib.clone(),
                    next: Arc::clone(&self.next),
                    stop: Arc::clone(&stop),
                    problem: Arc::clone(&problem),
                };
                Task { stop, problem, handle: tokio::spawn(server.serve()) }
            });
        }
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        lock(&self.tasks).values().filter_map(|task| lock(&task.problem).clone()).collect()
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

/// Who serves one station.
struct Server {
    address: SocketAddr,
    rib: mpsc::Sender<Command>,
    next: Arc<AtomicU64>,
    stop: Arc<Notify>,
    problem: Problem,
}

impl Server {
    async fn serve(self) {
        let address = self.address;
        let mut pause = PAUSES[0];
        loop {
            let attempt = timeout(CONNECT, TcpStream::connect(address));
            let connected = tokio::select! {
                () = self.stop.notified() => return,
                connected = attempt => connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            };
            let problem = match connected {
                Ok(stream) => {
                    *lock(&self.problem) = None;
                    info!(%address, "monitoring station connected");
                    pause = PAUSES[0];
                    let number = self.next.fetch_add(1, Ordering::Relaxed);
                    let end = self.converse(stream, number).await;
                    drop(self.rib.send(Command::Event(Event::Station(number, StationEvent::Down))).await);
                    match end {
                        End::Stopped => return,
                        End::Lost(why) => why,
                    }
                }
                Err(error) => error.to_string(),
            };
            let sentence = format!("bmp: no connection with station {address}: {problem}; it is tried again");
            if lock(&self.problem).replace(sentence.clone()).as_ref() != Some(&sentence) {
                warn!("{sentence}");
            }
            tokio::select! {
                () = self.stop.notified() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES[1]),
            }
        }
    }

    async fn converse(&self, stream: TcpStream, number: StationId) -> End {
        let (mut reader, mut writer) = stream.into_split();
        let (sender, mut pieces) = mpsc::unbounded_channel::<Bytes>();
        if self.rib.send(Command::Station(number, sender)).await.is_err() {
            return End::Stopped;
        }
        let mut unread = [0; 512];
        loop {
            tokio::select! {
                () = self.stop.notified() => {
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
                    match self.write(&mut writer, &piece).await {
                        Written::All => {}
                        // What follows is said above, and by now in the midst of no message.
                        Written::AllAtTheEnd => self.stop.notify_one(),
                        Written::Stopped => return End::Stopped,
                        Written::Lost(why) => return End::Lost(why),
                    }
                    let written = Event::Station(number, StationEvent::Written(piece.len()));
                    if self.rib.send(Command::Event(written)).await.is_err() {
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

    /// Writes a piece, for as long as the station is patiently waited for, or until we are to stop, and then shortly.
    async fn write(&self, writer: &mut OwnedWriteHalf, piece: &[u8]) -> Written {
        let mut write = std::pin::pin!(writer.write_all(piece));
        let written = tokio::select! {
            biased;
            written = timeout(PATIENCE, &mut write) => written,
            () = self.stop.notified() => {
                let written = timeout(FAREWELL, write).await;
                return if matches!(written, Ok(Ok(()))) { Written::AllAtTheEnd } else { Written::Stopped };
            }
        };
        match written {
            Ok(Ok(())) => Written::All,
            Ok(Err(error)) => Written::Lost(error.to_string()),
            Err(_) => Written::Lost(format!("it has taken nothing for {} seconds", PATIENCE.as_secs())),
        }
    }
}

/// What became of a piece.
enum Written {
    All,
    /// It is written, and we are to stop.
    AllAtTheEnd,
    /// We are to stop.
    Stopped,
    Lost(String),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const SOON: Duration = Duration::from_secs(10);

    async fn next(commands: &mut mpsc::Receiver<Command>) -> Command {
        timeout(SOON, commands.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_station_that_takes_nothing_is_left_at_once_and_its_end_is_not_the_next_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rib, mut commands) = mpsc::channel(16);
        let stations = Stations::new(rib);
        stations.configure(&[address].into());
        let Command::Station(first, pieces) = next(&mut commands).await else { panic!("no connection") };
        let (_silent, _) = listener.accept().await.unwrap();
        // More than any socket holds.
        let piece = Bytes::from(vec![0; 64 << 20]);
        pieces.send(piece).unwrap();
        stations.configure(&BTreeSet::new());
        stations.configure(&[address].into());
        let Command::Station(second, _pieces) = next(&mut commands).await else { panic!("no second connection") };
        assert_ne!(first, second);
        let Command::Event(Event::Station(gone, StationEvent::Down)) = next(&mut commands).await else {
            panic!("the first one stays")
        };
        assert_eq!(gone, first);
        assert_eq!(stations.problems(), Vec::<String>::new());
        stations.leave().await;
    }

    #[tokio::test]
    async fn what_is_said_of_a_station_goes_with_it() {
        // A port that nobody listens on.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (rib, _commands) = mpsc::channel(16);
        let stations = Stations::new(rib);
        stations.configure(&[closed].into());
        let said = async {
            while stations.problems().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, said).await.unwrap();
        assert!(stations.problems()[0].contains(&closed.to_string()), "{:?}", stations.problems());
        stations.configure(&BTreeSet::new());
        assert_eq!(stations.problems(), Vec::<String>::new());
        // Whatever the task has found out in the meantime.
        tokio::task::yield_now().await;
        assert_eq!(stations.problems(), Vec::<String>::new());
    }
}
