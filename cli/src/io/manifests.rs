//! Manifests from files, directories and standard input.

use anyhow::ensure;
use std::path::PathBuf;
use twill_crds::manifest::Manifest;

/// All objects of these files and directories, of which there is at least one.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let manifests = twill_lab::io::manifests::read(paths)?;
    ensure!(!manifests.is_empty(), "the files hold no objects");
    Ok(manifests)
}
