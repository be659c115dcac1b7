//! The labs of this machine: which there are, their locks and their state files.

use crate::names::{LABS_DIR, lab_dir, netns_prefix};
use crate::state::State;
use anyhow::{Context, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// Held while a command changes a lab.
pub type Lock = Flock<File>;

/// Waits for the lock of a lab.
///
/// # Errors
/// The lock file cannot be made; mostly: not root.
pub fn lock(lab: &str) -> anyhow::Result<Lock> {
    fs::create_dir_all(LABS_DIR).context(LABS_DIR)?;
    let path = format!("{LABS_DIR}/{lab}.lock");
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path).context(path.clone())?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context(path.clone())?;
        // Who held it may have removed the file: then this one keeps nobody out any more.
        if fs::metadata(&path).is_ok_and(|m| lock.metadata().is_ok_and(|own| own.ino() == m.ino())) {
            return Ok(lock);
        }
    }
}

/// Refuses whoever is not root; `what` needs it.
///
/// # Errors
/// One sentence.
pub fn need_root(what: &str) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "{what} needs root: it works in network namespaces");
    Ok(())
}

/// Names of the labs that left anything: a directory or a namespace.
#[must_use]
pub fn all() -> Vec<String> {
    let dirs = fs::read_dir(LABS_DIR).into_iter().flatten().flatten();
    let mut labs =
        dirs.filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect::<BTreeSet<_>>();
    let spaces = super::netns::names("twill_");
    labs.extend(spaces.iter().filter_map(|n| Some(n.strip_prefix("twill_")?.split_once('_')?.0.to_owned())));
    labs.into_iter().collect()
}

/// The lab that a command means: the one that is named, or the only one there is.
///
/// # Errors
/// There is none, or there are several.
pub fn chosen(name: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = name {
        crate::file::lab_name(name).context("--name")?;
        return Ok(name.to_owned());
    }
    let labs = all();
    match labs.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("there is no lab; make one with: twill lab up FILE"),
        several => bail!("there are several labs ({}); say which with --name", several.join(", ")),
    }
}

/// Whether anything of this lab is there.
#[must_use]
pub fn exists(lab: &str) -> bool {
    lab_dir(lab).exists() || !super::netns::names(&netns_prefix(lab)).is_empty()
}

/// Reads the state of a lab that is up.
///
/// # Errors
/// It is not up.
pub fn load(lab: &str) -> anyhow::Result<State> {
    let path = lab_dir(lab).join("state.json");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("lab {lab} is not up; make it with: twill lab up FILE --name {lab}")
        }
        text => text.with_context(|| path.display().to_string())?,
    };
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; remove the lab with: twill lab down --name {lab}", path.display()))
}

/// Writes the state so that a reader sees the old or the new one, never half of one.
///
/// # Errors
/// The disk.
pub fn save(state: &State) -> anyhow::Result<()> {
    let dir = lab_dir(&state.name);
    let (path, fresh) = (dir.join("state.json"), dir.join("state.json.new"));
    let mut file = File::create(&fresh).with_context(|| fresh.display().to_string())?;
    file.write_all(&serde_json::to_vec_pretty(state)?)?;
    fs::rename(&fresh, &path).with_context(|| path.display().to_string())
}

/// Removes the lock file of a lab that is gone. Whoever waits for it finds a lab that is not there, or makes a file of its own.
pub fn forget(lab: &str, lock: Lock) {
    let _ = fs::remove_file(format!("{LABS_DIR}/{lab}.lock"));
    drop(lock);
}
