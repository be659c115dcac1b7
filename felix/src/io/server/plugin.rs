//! A call of the plugin: answered when it is done, and, for an ADD, taken back unless the runtime gets to hear of it.

use crate::cni::Failure;
use crate::io::calls::{self, Attached, Calls, Done};
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use twill_crds::cni::{ACKNOWLEDGED, CniReply, CniRequest};

/// How long a plugin may take to print a result. One that takes longer still waits, and so does its runtime, which calls DEL if it gives up.
const PRINTED: Duration = Duration::from_secs(20);

/// Performs a call and answers it.
///
/// # Errors
/// The connection failed; nothing of an ADD is left then.
pub(super) async fn answer(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    calls: &Calls,
    request: CniRequest,
) -> io::Result<()> {
    let acknowledges = request.acknowledges;
    let version = request.config.get("cniVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (gone, told) = watch::channel(false);
    let outcome = unless_gone(read, &gone, calls::call(calls, request, told)).await;
    let reply = match &outcome {
        Ok(done) => CniReply::Result(done.result()),
        Err(failure) => refused(failure, &version),
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    let written = write.write_all(&line).await;
    if let Ok(Done::Attached(mut attached)) = outcome {
        let there = written.is_ok() && !*gone.borrow();
        let delivered = there && (!acknowledges || is_acknowledged(read, &mut attached).await);
        attached.settle(calls, delivered).await;
    }
    written
}

/// The outcome of a call, which hears of it if the connection ends meanwhile.
async fn unless_gone<T>(
    read: &mut (impl AsyncBufRead + Unpin),
    gone: &watch::Sender<bool>,
    call: impl Future<Output = T>,
) -> T {
    tokio::pin!(call);
    let mut listening = true;
    loop {
        tokio::select! {
            outcome = &mut call => return outcome,
            // Nothing is taken from the connection; what comes is the next request.
            more = read.fill_buf(), if listening => {
                listening = false;
                if more.map_or(true, <[u8]>::is_empty) {
                    gone.send_replace(true);
                }
            }
        }
    }
}

async fn is_acknowledged(read: &mut (impl AsyncBufRead + Unpin), attached: &mut Attached) -> bool {
    let mut line = String::new();
    let mut limited = read.take(64);
    tokio::select! {
        read = limited.read_line(&mut line) => read.is_ok() && line.trim_end() == ACKNOWLEDGED,
        // A DEL waits for us, and takes it.
        () = attached.stopped() => true,
        () = tokio::time::sleep(PRINTED) => true,
    }
}

fn refused(failure: &Failure, version: &str) -> CniReply {
    tracing::warn!(error = %failure, "CNI call failed");
    CniReply::Error(failure.object(version))
}
