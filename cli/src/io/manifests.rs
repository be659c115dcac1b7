//! Manifests from files, directories and standard input.

use anyhow::{Context, bail};
use std::io::Read;
use std::path::{Path, PathBuf};
use twill_crds::manifest::{self, Manifest};

/// All objects of these files, in order; directories give their `.yaml`, `.yml` and `.json` files by name.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for path in paths {
        if path.is_dir() {
            for file in files(path)? {
                manifests.extend(parse(&file)?);
            }
        } else {
            manifests.extend(parse(path)?);
        }
    }
    if manifests.is_empty() {
        bail!("the files hold no objects");
    }
    Ok(manifests)
}

fn parse(path: &Path) -> anyhow::Result<Vec<Manifest>> {
    let file = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    Ok(manifest::parse(&text.with_context(|| format!("{file} cannot be read"))?, &file.to_string())?)
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shown = directory.display();
    let entries = std::fs::read_dir(directory).with_context(|| format!("{shown} cannot be read"))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("{shown} cannot be read"))?.path();
        if path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
