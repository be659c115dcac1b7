//! One question to a daemon's control socket.

use anyhow::{Context, anyhow, bail};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A daemon that is alive answers at once; one that does not within this long is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends `request` to the daemon that listens at `socket` and reads its answer.
pub(crate) fn ask<Q: Serialize, A: DeserializeOwned>(socket: &Path, request: &Q) -> anyhow::Result<A> {
    ask_within(PATIENCE, socket, request)
}

/// As [`ask`], with another limit for each step.
pub(crate) fn ask_within<Q: Serialize, A: DeserializeOwned>(
    patience: Duration,
    socket: &Path,
    request: &Q,
) -> anyhow::Result<A> {
    let at = socket.display();
    let stream = sent(patience, socket, request)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).with_context(|| format!("the daemon at {at} does not answer"))?;
    serde_json::from_str(&answer)
        .with_context(|| format!("the daemon at {at} gave no answer of this release: {answer:?}"))
}

/// Sends `request` and hands each line of the answer to `each`, until the daemon ends.
pub(crate) fn follow<Q: Serialize, A: DeserializeOwned>(
    socket: &Path,
    request: &Q,
    mut each: impl FnMut(A) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let at = socket.display();
    let stream = sent(PATIENCE, socket, request)?;
    // Nothing may be to be told for hours.
    stream.set_read_timeout(None)?;
    for line in BufReader::new(stream).lines() {
        let line = line.with_context(|| format!("the daemon at {at} does not answer"))?;
        let answer = serde_json::from_str(&line)
            .with_context(|| format!("the daemon at {at} gave no answer of this release: {line:?}"))?;
        each(answer)?;
    }
    bail!("the daemon at {at} has ended")
}

fn sent<Q: Serialize>(patience: Duration, socket: &Path, request: &Q) -> anyhow::Result<UnixStream> {
    let at = socket.display();
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => anyhow!("{at} may not be opened; run this as root"),
        _ => anyhow!("no daemon answers at {at} ({error}); start it, or name its directory with --run-dir"),
    })?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).with_context(|| format!("the daemon at {at} does not listen"))?;
    Ok(stream)
}
