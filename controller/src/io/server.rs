//! The control socket: one JSON document per line in, one out, any number per connection.

use anyhow::Context;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use twill_crds::control::{ControllerRequest, ControllerStatus};

/// Octets that a request may have.
const LONGEST: u64 = 64 << 10;

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Makes the socket, for the process's own user alone. What a killed predecessor left is replaced; one that lives is not.
    ///
    /// # Errors
    /// If somebody answers there already, or the file cannot be made.
    pub async fn bind(path: &Path) -> anyhow::Result<Self> {
        if UnixStream::connect(path).await.is_ok() {
            anyhow::bail!(
                "{}: another controller answers on this socket; stop it, or give this one another --run-dir",
                path.display()
            );
        }
        let made = || format!("cannot make the socket {}; give a writable directory by --run-dir", path.display());
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).with_context(made)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(made),
            _ => {}
        }
        // The permissions must hold from the first moment, so they come from the mask.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path).with_context(made);
        nix::sys::stat::umask(before);
        Ok(Self { listener: bound?, path: path.to_owned() })
    }

    /// Answers until it is dropped.
    pub async fn serve(&self, status: watch::Receiver<ControllerStatus>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, status.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the control socket accepts nobody just now");
                    tokio::time::sleep(Duration::from_millis(100)).await;
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

async fn converse(stream: UnixStream, status: watch::Receiver<ControllerStatus>) -> Result<(), Error> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        if (&mut reader).take(LONGEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut text = match serde_json::from_str(&line) {
            Ok(ControllerRequest::Status) => serde_json::to_vec(&*status.borrow())?,
            Err(error) => {
                let problem = format!("not a request that the controller knows: {error}");
                serde_json::to_vec(&serde_json::json!({ "error": problem }))?
            }
        };
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
}
