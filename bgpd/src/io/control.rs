//! The control socket: one JSON document per line in, one out, any number per connection.

use anyhow::Context;
use serde::Serialize;
use serde_json::{Value, json};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};
use twill_crds::control::BgpdRequest;

/// Octets that a request may have: a thousand BFD sessions are a quarter of it.
const LONGEST: u64 = 1 << 20;

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket, for root alone. What a killed predecessor left is replaced; one that lives is not.
    ///
    /// # Errors
    /// If somebody answers there already, or the file cannot be made.
    pub async fn bind(path: &Path) -> anyhow::Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            anyhow::bail!("{}: another one answers on this socket; stop it first", path.display());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot make the socket {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers requests until it is dropped.
    pub async fn serve<F, A>(&self, answer: F)
    where
        F: Fn(BgpdRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Value> + Send + 'static,
    {
        let answer = Arc::new(answer);
        self.each(move |stream| {
            let answer = Arc::clone(&answer);
            async move { converse(stream, &*answer).await }
        })
        .await;
    }

    /// Lets `converse` speak with every client, beside the others, until it is dropped.
    pub(crate) async fn each<F, C>(&self, converse: F)
    where
        F: Fn(UnixStream) -> C,
        C: Future<Output = io::Result<()>> + Send + 'static,
    {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let conversation = converse(stream);
                    tokio::spawn(async move {
                        if let Err(error) = conversation.await {
                            debug!(%error, "a client of the control socket is gone");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "the control socket accepts nobody just now");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// The next line of a client; none at the end.
pub(crate) async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    let octets = reader.take(LONGEST).read_line(&mut line).await?;
    Ok((octets > 0).then_some(line))
}

/// Writes a document and the end of its line.
pub(crate) async fn write(writer: &mut (impl AsyncWrite + Unpin), document: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(document)?;
    text.push(b'\n');
    writer.write_all(&text).await
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(std::fs::remove_file(&self.path));
    }
}

async fn converse<F, A>(stream: UnixStream, answer: &F) -> io::Result<()>
where
    F: Fn(BgpdRequest) -> A,
    A: Future<Output = Value>,
{
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(line) = line(&mut reader).await? {
        let reply = match serde_json::from_str(&line) {
            Ok(request) => answer(request).await,
            Err(error) => json!({ "error": format!("not a request that bgpd knows: {error}") }),
        };
        write(&mut writer, &reply).await?;
    }
    Ok(())
}
