//! Denied packets as they are told of, to one connection until it ends.

use super::Calls;
use crate::io::agent::Ask;
use crate::io::nft;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::{self, error::RecvError};
use twill_crds::control::{DropLine, Drops};

/// What is known of denied packets, and what comes from now on; none while felix stops.
pub(super) async fn asked(calls: &Calls) -> Option<(Drops, broadcast::Receiver<Arc<DropLine>>)> {
    let counted = tokio::task::spawn_blocking(nft::dropped).await;
    let counted = counted.ok().and_then(|counted| {
        counted.inspect_err(|error| tracing::warn!(%error, "what rules have dropped cannot be read")).ok()
    });
    calls.ask(|reply| Ask::Drops { counted: counted.unwrap_or_default(), reply }).await
}

/// Tells what is kept, then what comes, until the other side ends the connection.
pub(super) async fn drops(
    read: &mut (impl AsyncRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    calls: &Calls,
) -> io::Result<()> {
    let Some((drops, mut coming)) = asked(calls).await else { return Ok(()) };
    let kept = drops.packets.into_iter().map(|packet| DropLine::Packet(Box::new(packet)));
    for line in drops.problem.map(|problem| DropLine::Problem { problem }).into_iter().chain(kept) {
        tell(write, &line).await?;
    }
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            line = coming.recv() => match line {
                Ok(line) => tell(write, line.as_ref()).await?,
                Err(RecvError::Lagged(missed)) => tell(write, &DropLine::Missed { missed }).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
            gone = read.read(&mut ignored) => if gone? == 0 {
                return Ok(());
            },
        }
    }
}

async fn tell(write: &mut (impl AsyncWrite + Unpin), line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}
