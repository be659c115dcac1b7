//! Manifests from files, directories and standard input.

use anyhow::ensure;
use std::path::PathBuf;
use twill_crds::manifest::{self, Document, Manifest};

/// All objects of these files and directories, of which there is at least one.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let manifests = twill_lab::io::manifests::read(paths)?;
    ensure!(!manifests.is_empty(), "the files hold no objects");
    Ok(manifests)
}

/// All objects of these files and directories, and their documents of another kind of ours.
pub(crate) fn read_with(paths: &[PathBuf], other: &str) -> anyhow::Result<(Vec<Manifest>, Vec<Document>)> {
    let (mut manifests, mut others) = (Vec::new(), Vec::new());
    for (file, text) in twill_lab::io::manifests::texts(paths)? {
        let (more, found) = manifest::parse_with(&text, &file, other)?;
        manifests.extend(more);
        others.extend(found);
    }
    Ok((manifests, others))
}
