//! Writes what happens on sessions into a file, beside everything else: a disk that is slow ends the recording, and never a session.

use crate::mrt::Record;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use tracing::{error, info};

/// Pieces that may wait for the disk.
const QUEUE: usize = 256;
/// Octets of a file at most: a recording that was forgotten does not fill the disk.
const MOST: u64 = 1 << 30;
/// How long a process that ends waits for the disk.
const LAST: Duration = Duration::from_secs(1);
/// How long a record stays in memory.
const IDLE: Duration = Duration::from_millis(200);

/// A recording that runs.
pub(crate) struct Recorder {
    /// None when it has ended.
    writer: Option<SyncSender<Vec<u8>>>,
    path: PathBuf,
    written: u64,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What waits for the disk is written when the recording ends, unless the disk does not answer.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.writer = None;
        let deadline = Instant::now() + LAST;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Recorder {
    /// Begins a file; one that is there is replaced.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let file = File::create(path)?;
        let (writer, pieces) = sync_channel(QUEUE);
        let name = path.to_owned();
        let thread = std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
            if let Err(error) = write(file, &pieces) {
                error!("the recording {} has ended: {error}", name.display());
            }
        })?;
        info!("sessions are recorded in {}", path.display());
        Ok(Self { writer: Some(writer), path: path.to_owned(), written: 0, thread: Some(thread) })
    }

    /// Takes in what happened, as far as `records` says.
    pub(crate) fn note<'a>(&mut self, records: impl Iterator<Item = Record<'a>>) {
        let Some(writer) = &self.writer else { return };
        let mut bytes = Vec::new();
        records.for_each(|record| record.encode(&mut bytes));
        self.written += bytes.len() as u64;
        let problem = match writer.try_send(bytes) {
            _ if self.written > MOST => "it has reached 1 GiB",
            Ok(()) => return,
            Err(TrySendError::Full(_)) => "the disk is slower than the sessions",
            // The thread has said why.
            Err(TrySendError::Disconnected(_)) => return self.writer = None,
        };
        error!("the recording {} has ended: {problem}; what is in it is whole", self.path.display());
        self.writer = None;
    }
}

/// Time of a record.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn write(file: File, pieces: &Receiver<Vec<u8>>) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut flushed = Instant::now();
    loop {
        match pieces.recv_timeout(IDLE) {
            Ok(piece) => file.write_all(&piece)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return file.flush(),
        }
        if flushed.elapsed() >= IDLE {
            file.flush()?;
            flushed = Instant::now();
        }
    }
}
