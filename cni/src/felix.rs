//! felix's socket: one request, one answer, within a deadline.

use crate::call::{Call, error};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use twill_crds::cni::{ACKNOWLEDGED, CniError, CniReply, ERR_DECODING, ERR_TRY_AGAIN};
use twill_crds::control::FelixRequest;

/// What is left when there is nothing left: a socket takes no timeout of zero.
const LEAST: Duration = Duration::from_millis(1);

/// Why there is no result.
pub(crate) enum Refusal {
    /// felix says so.
    Felix(CniError),
    /// felix is away: nothing is known of what it did.
    Away(CniError),
}

impl From<Refusal> for CniError {
    fn from(refusal: Refusal) -> Self {
        let (Refusal::Felix(error) | Refusal::Away(error)) = refusal;
        error
    }
}

/// An answer of felix.
pub(crate) struct Answered {
    /// The result; null if there is none to print.
    pub(crate) result: Value,
    stream: UnixStream,
}

impl Answered {
    /// Tells felix that the runtime has it.
    pub(crate) fn acknowledge(mut self) {
        // A felix that has ended keeps what it attached.
        let _ = writeln!(self.stream, "{ACKNOWLEDGED}");
    }
}

/// The line to send. A configuration that felix could not read is refused here: felix could not say whose answer its refusal is.
pub(crate) fn line(call: &Call) -> Result<Vec<u8>, CniError> {
    let mut line = serde_json::to_vec(&FelixRequest::Cni(call.request.clone())).unwrap_or_default();
    // Inside the request the configuration lies deeper than it lay on its own.
    if let Err(e) = serde_json::from_slice::<FelixRequest>(&line) {
        let message = format!("the network configuration on standard input is nested too deeply: {e}");
        return Err(error(&call.version, ERR_DECODING, message, ""));
    }
    line.push(b'\n');
    Ok(line)
}

/// Asks felix, whose answer is waited for until then. On a thread of its own, so that even a connect that blocks on a full backlog is bounded.
pub(crate) fn ask(call: &Call, line: Vec<u8>, until: Instant) -> Result<Answered, Refusal> {
    let (sender, receiver) = mpsc::channel();
    let path = call.socket.clone();
    let left = until.saturating_duration_since(Instant::now()).max(LEAST);
    std::thread::spawn(move || sender.send(exchange(&path, &line, left)));
    let hint = "look at felix: twill status, or journalctl -u twill-felix";
    let away = |problem: String| {
        let message = format!("felix does not answer on {}: {problem}", call.socket.display());
        Refusal::Away(error(&call.version, ERR_TRY_AGAIN, message, hint))
    };
    let (line, stream) = match receiver.recv_timeout(left) {
        Ok(Ok((line, _))) if line.is_empty() => return Err(away("it closed the connection".to_owned())),
        Ok(answered) => answered.map_err(|problem| away(problem.to_string()))?,
        Err(_) => return Err(away(format!("no answer within {:.1} s", left.as_secs_f32()))),
    };
    match serde_json::from_str(&line).map_err(|e| away(format!("its answer is not understood ({e})")))? {
        CniReply::Result(result) => Ok(Answered { result, stream }),
        CniReply::Error(error) => Err(Refusal::Felix(error)),
    }
}

fn exchange(socket: &Path, line: &[u8], left: Duration) -> std::io::Result<(String, UnixStream)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))?;
    stream.write_all(line)?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    Ok((answer, stream))
}
