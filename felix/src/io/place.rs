//! Puts a file in place as a whole: in flow its path and content, and whoever opens the path finds the old file or the new one, whenever
//! this is interrupted and however often it is run.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes `path` a file with this content and these permissions, and its directory where there is none. Says whether that changed
/// anything.
///
/// # Errors
/// Naming the path. It is as it was then.
pub fn place(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    try_place(path, content, mode).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Where a file that is to be put at `path` grows. Hidden, and of an extension that no container runtime reads.
#[must_use]
pub fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn try_place(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // One at a time, by a lock that goes with its holder. It is the directory's: a file that is open for writing cannot be run.
    let directory = Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    let new = unfinished(path);
    if holds(path, content, mode) {
        // What a killed predecessor left.
        let _ = fs::remove_file(&new);
        return Ok(false);
    }
    let placed = write(&new, content, mode).and_then(|()| fs::rename(&new, path));
    if placed.is_err() {
        let _ = fs::remove_file(&new);
    }
    placed.and_then(|()| directory.sync_all()).map(|()| true)
}

/// A link to such a file is none: what it leads to may be another tomorrow.
fn holds(path: &Path, content: &[u8], mode: u32) -> bool {
    let plain = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o7777 == mode;
    fs::symlink_metadata(path).is_ok_and(plain) && fs::read(path).is_ok_and(|found| found == content)
}

fn write(new: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(new)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_is_replaced_with_its_permissions_and_one_that_is_so_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bin/plugin");
        assert!(place(&path, b"one", 0o755).unwrap(), "the directory is made");
        let first = fs::metadata(&path).unwrap().ino();
        assert!(!place(&path, b"one", 0o755).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), first, "the file was not touched");
        assert!(place(&path, b"one", 0o600).unwrap(), "permissions are part of it");
        assert!(place(&path, b"two", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_lies_half_written_or_as_a_link_does_not_hinder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin");
        fs::write(unfinished(&path), "a much longer half of another release").unwrap();
        assert!(place(&path, b"new", 0o755).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::write(unfinished(&path), "half").unwrap();
        assert!(!place(&path, b"new", 0o755).unwrap());
        assert!(!unfinished(&path).exists(), "cleared away also where nothing is to be done");
        let target = directory.path().join("target");
        fs::rename(&path, &target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(place(&path, b"newer", 0o755).unwrap());
        assert_eq!((fs::read(&target).unwrap(), fs::read(&path).unwrap()), (b"new".to_vec(), b"newer".to_vec()));
    }

    #[test]
    fn a_failure_names_the_path_and_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plugin");
        fs::create_dir(&path).unwrap();
        let error = place(&path, b"new", 0o755).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(path.is_dir() && !unfinished(&path).exists());
    }
}
