//! The control socket: one JSON document per line in, one out, any number per connection.

use anyhow::Context;
use serde_json::{Value, json};
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, warn};
use twill_crds::control::BgpdRequest;

/// Octets that a request may have.
const LONGEST: u64 = 64 << 10;

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
            anyhow::bail!("{}: another bgpd answers on this socket; stop it first", path.display());
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
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = Arc::clone(&answer);
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &*answer).await {
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
    loop {
        let mut line = String::new();
        if (&mut reader).take(LONGEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_str(&line) {
            Ok(request) => answer(request).await,
            Err(error) => json!({ "error": format!("not a request that bgpd knows: {error}") }),
        };
        let mut text = reply.to_string();
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
    }
}
