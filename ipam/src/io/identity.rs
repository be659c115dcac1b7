//! The identity of a store of addresses, which its claims carry: random, made once, kept beside the store.
//!
//! It must outlive what the kernel has of the store's attachments, and no longer. So the caller, when there is no file, first asks
//! the kernel, whose interfaces carry it in their aliases; a machine without either holds no address, and gets a new one.

use crate::error::StoreError;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Name of the file in the store's directory.
pub const FILE: &str = "claimant";

/// Characters of an identity: hexadecimal digits. An alias has no room for many more.
pub const LENGTH: usize = 16;

/// The identity kept in a directory; else `found`, which the kernel remembers; else a new one. It is durable before it is returned.
///
/// # Errors
/// [`StoreError::Unwritable`].
pub fn identity(directory: &Path, found: impl FnOnce() -> Option<String>) -> Result<String, StoreError> {
    let path = directory.join(FILE);
    let unwritable = |e: std::io::Error| StoreError::Unwritable { path: path.clone(), problem: e.to_string() };
    match fs::read_to_string(&path) {
        Ok(text) if is_identity(text.trim()) => return Ok(text.trim().to_owned()),
        Ok(_) => tracing::warn!(path = %path.display(), "identity of the store is damaged; made anew"),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(unwritable(e)),
    }
    let identity = match found().filter(|identity| is_identity(identity)) {
        Some(identity) => identity,
        None => random().map_err(unwritable)?,
    };
    keep(directory, &identity).map_err(unwritable)?;
    Ok(identity)
}

/// The identity kept in a directory, if there is one.
#[must_use]
pub fn kept(directory: &Path) -> Option<String> {
    let text = fs::read_to_string(directory.join(FILE)).ok()?;
    Some(text.trim().to_owned()).filter(|text| is_identity(text))
}

/// Whether a text can be one.
#[must_use]
pub fn is_identity(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn random() -> std::io::Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(uuid.chars().filter(char::is_ascii_hexdigit).take(LENGTH).collect())
}

fn keep(directory: &Path, identity: &str) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let new = directory.join(format!("{FILE}.new"));
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    writeln!(file, "{identity}")?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_then_found_in_the_kernel_then_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipam");
        let first = identity(&path, || None).unwrap();
        assert!(is_identity(&first));
        assert_eq!(identity(&path, || panic!("the kernel is not asked")).unwrap(), first);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(identity(&path, || Some(first.clone())).unwrap(), first);
        fs::write(path.join(FILE), "").unwrap();
        let other = identity(&path, || Some("no identity".into())).unwrap();
        assert_ne!(other, first);
        assert_eq!(identity(&path, || None).unwrap(), other);
    }
}
