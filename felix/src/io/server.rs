//! felix's socket: one JSON document per line, a connection per CNI call, any number of requests per connection.

mod follow;
mod plugin;
mod shown;

use crate::io::agent::Ask;
use crate::io::calls::Calls;
use crate::io::heard::scopes;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use twill_crds::control::{Answer, FelixRequest, FelixStatus, Forecast, PolicyChange, Waited};

/// Longest request.
const LARGEST: u64 = 2 << 20;

/// Longest wait for felix to have heard all that the datastore has.
const FRESH: Duration = Duration::from_secs(10);

/// Pause after which a datastore that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Binds the socket, for root alone. What an earlier felix left there is replaced: the caller holds the state directory's
/// lock, so that one is dead.
///
/// # Errors
/// Naming the path.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("socket {}: {e}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(named)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(e)),
        _ => {}
    }
    // The permissions must hold from the first moment, so they come from the mask.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path).map_err(named);
    nix::sys::stat::umask(before);
    bound
}

/// Serves until the process ends.
pub async fn serve(listener: UnixListener, calls: Calls) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, calls).await {
                        tracing::debug!(%error, "connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, calls: Calls) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut read).take(LARGEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut answer = match serde_json::from_str::<FelixRequest>(&line) {
            Ok(FelixRequest::Drops { follow: true }) => return follow::drops(&mut read, &mut write, &calls).await,
            Ok(FelixRequest::Ruleset) => shown::ruleset(&calls).await?,
            Ok(FelixRequest::Cni(request)) => {
                plugin::answer(&mut read, &mut write, &calls, request).await?;
                continue;
            }
            Ok(request) => serde_json::to_vec(&handle(request, &calls).await)?,
            Err(error) => {
                serde_json::to_vec(&serde_json::json!({"error": format!("not a request to felix: {error}")}))?
            }
        };
        answer.push(b'\n');
        write.write_all(&answer).await?;
    }
}

async fn handle(request: FelixRequest, calls: &Calls) -> Value {
    let shown = match request {
        FelixRequest::Status => serde_json::to_value(status(calls).await),
        FelixRequest::Wait { timeout_ms } => {
            let applied = tokio::time::timeout(Duration::from_millis(timeout_ms), applied(calls)).await;
            serde_json::to_value(Waited { applied: applied.unwrap_or(false), status: status(calls).await })
        }
        FelixRequest::Addresses => Ok(calls.ask(Ask::Addresses).await.unwrap_or_default()),
        FelixRequest::Leave => serde_json::to_value(calls.ask(Ask::Leave).await.unwrap_or_default()),
        FelixRequest::Drops { .. } => serde_json::to_value(follow::asked(calls).await.map(|(drops, _)| drops)),
        FelixRequest::Forecast(change) => serde_json::to_value(forecast(calls, change).await),
        FelixRequest::HostPolicies => serde_json::to_value(calls.ask(Ask::HostPolicies).await.unwrap_or_default()),
        // Answered by the connection itself.
        FelixRequest::Ruleset | FelixRequest::Cni(_) => Ok(Value::Null),
    };
    shown.unwrap_or_default()
}

/// Waits until all that the datastore has now is in the kernel; whether that came about.
async fn applied(calls: &Calls) -> bool {
    loop {
        if let Some(marks) = calls.marks(&scopes(), Duration::MAX).await {
            return calls.ask(|reply| Ask::Reached { marks, reply }).await.is_some();
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// By what the datastore has now, not by what felix happens to have heard of it.
async fn forecast(calls: &Calls, change: PolicyChange) -> Answer<Forecast> {
    let failed = |error: &str| Answer::Failed { error: error.to_owned() };
    if !tokio::time::timeout(FRESH, applied(calls)).await.unwrap_or(false) {
        return failed(
            "felix does not reach its datastore, so it cannot say what a change would do; twill status says more",
        );
    }
    match calls.ask(|reply| Ask::Forecast { change, reply }).await {
        Some(Ok(forecast)) => Answer::Is(forecast),
        Some(Err(error)) => Answer::Failed { error },
        None => failed("felix is stopping"),
    }
}

async fn status(calls: &Calls) -> FelixStatus {
    calls.ask(Ask::Status).await.unwrap_or_default()
}
