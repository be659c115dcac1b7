//! Manifests from files, directories and standard input.

use anyhow::Context;
use std::io::Read;
use std::path::{Path, PathBuf};
use twill_crds::manifest::{self, Manifest};

/// All objects of these files, in order; directories give their `.yaml`, `.yml` and `.json` files by name.
///
/// # Errors
/// The first thing that is wrong, with file and line.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for (file, text) in texts(paths)? {
        manifests.extend(manifest::parse(&text, &file)?);
    }
    Ok(manifests)
}

/// Names and texts of these files, in order; of directories as [`read`] says.
///
/// # Errors
/// A file that cannot be read.
pub fn texts(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in paths {
        let all = if path.is_dir() { files(path)? } else { vec![path.clone()] };
        for file in all {
            texts.push((file.display().to_string(), text(&file)?));
        }
    }
    Ok(texts)
}

fn text(path: &Path) -> anyhow::Result<String> {
    let file = path.display();
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.with_context(|| format!("{file} cannot be read"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_manifests_by_name_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let namespace = |name: &str| format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n");
        for (file, name) in [("20.yml", "b"), ("10.yaml", "a"), ("30.json", "c"), ("notes.txt", "no")] {
            std::fs::write(directory.path().join(file), namespace(name)).unwrap();
        }
        let found = read(&[directory.path().to_owned()]).unwrap();
        let names: Vec<_> = found.iter().map(|m| m.value["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let error = format!("{:#}", read(&[directory.path().join("none.yaml")]).unwrap_err());
        assert!(error.contains("none.yaml cannot be read"), "{error}");
    }
}
