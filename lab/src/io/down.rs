//! Removes a lab, whatever state it is in: everything is found by name, nothing needs the state file.

use crate::io::{netns, process};
use crate::names::{lab_dir, netns_prefix};
use std::fs;

/// Kills the lab's processes, removes its namespaces and files. No error if nothing is there.
///
/// # Errors
/// Something would not go; everything else is gone.
pub fn down(lab: &str) -> anyhow::Result<()> {
    let spaces = netns::names(&netns_prefix(lab));
    let mut errors = Vec::new();
    errors.extend(process::kill_inside(&spaces).err());
    for space in &spaces {
        errors.extend(netns::remove(space).err());
    }
    match fs::remove_dir_all(lab_dir(lab)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            errors.push(anyhow::Error::new(error).context(lab_dir(lab).display().to_string()));
        }
        _ => {}
    }
    if errors.is_empty() {
        return Ok(());
    }
    let all = errors.iter().map(|e| format!("{e:#}")).collect::<Vec<_>>().join("; ");
    Err(anyhow::anyhow!("lab {lab} is not wholly gone: {all}"))
}
