//! Tombstones: what a DEL was about, on disk before felix is called, so that it happens even if felix is away or this process is killed.
//!
//! In flow a call, out flow one file that is there as a whole or not at all. felix reads the directory when it starts, before its first
//! ADD, and now and then; it takes away what it has done. A tombstone says when its DEL was called, so what was attached later is safe.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use twill_crds::cni::CniRequest;

/// A DEL that felix may not have heard of yet.
#[derive(Debug)]
pub(crate) struct Tombstone(PathBuf);

impl Tombstone {
    /// Writes one, durably.
    ///
    /// # Errors
    /// Naming the path. Nothing that felix would read is left then.
    pub(crate) fn write(directory: &Path, request: &CniRequest) -> io::Result<Self> {
        let path = directory.join(name(request));
        // Hidden: felix does not read it.
        let new = directory.join(format!(".{}.new", name(request)));
        let written = write(directory, &new, request).and_then(|directory| {
            fs::rename(&new, &path)?;
            directory.sync_all()
        });
        written.map_err(|e| {
            let _ = fs::remove_file(&new);
            let _ = fs::remove_file(&path);
            io::Error::new(e.kind(), format!("{}: {e}", path.display()))
        })?;
        Ok(Self(path))
    }

    /// The DEL has been heard of. A tombstone that comes back after a power failure does no harm: what it means is gone, and later ones
    /// it does not mean.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(self.0);
    }
}

fn write(directory: &Path, new: &Path, request: &CniRequest) -> io::Result<File> {
    if !directory.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        // Its own name must be as durable as what is in it.
        directory.parent().map(File::open).transpose()?.map(|parent| parent.sync_all()).transpose()?;
    }
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(new)?;
    file.write_all(serde_json::to_string(request)?.as_bytes())?;
    file.sync_all()?;
    File::open(directory)
}

/// Network, container and interface are inside; the name holds what makes it the only one of its name, and legible.
fn name(request: &CniRequest) -> String {
    let at = request.generation.as_ref().map_or(0, |generation| generation.at);
    let legible = |text: &str, most: usize| -> String {
        let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        text.chars().filter(fits).take(most).collect()
    };
    let network = request.config["name"].as_str().unwrap_or_default();
    let (network, container) = (legible(network, 40), legible(&request.container_id, 120));
    format!("{at:020}-{}-{network}-{container}-{}", std::process::id(), legible(&request.ifname, 15))
}
