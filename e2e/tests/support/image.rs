//! Container images without a registry: in flow files of this machine, out flow archives that containerd imports.

use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use twill_e2e::succeeded;

/// An image of one layer that grows in a directory.
pub(crate) struct Image {
    reference: String,
    directory: tempfile::TempDir,
}

impl Image {
    pub(crate) fn new(reference: &str) -> Self {
        let image = Self { reference: reference.to_owned(), directory: tempfile::tempdir().unwrap() };
        fs::create_dir(image.root()).unwrap();
        image
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.root().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    /// A file of this machine, and with an executable the shared libraries that it needs.
    pub(crate) fn with(self, path: &str, source: &Path) -> Self {
        fs::copy(source, self.place(path)).unwrap();
        for library in libraries(source) {
            let place = self.place(&library.display().to_string());
            fs::copy(&library, place).unwrap();
        }
        self
    }

    pub(crate) fn with_text(self, path: &str, text: &str) -> Self {
        fs::write(self.place(path), text).unwrap();
        self
    }

    pub(crate) fn with_link(self, path: &str, to: &str) -> Self {
        symlink(to, self.place(path)).unwrap();
        self
    }

    /// Writes the archive; what is run without a command is `entrypoint`.
    pub(crate) fn save(self, entrypoint: &[&str], archive: &Path) {
        let at = |name: &str| self.directory.path().join(name);
        tar(&at("layer.tar"), &self.root(), &["."]);
        let digest = succeeded(Command::new("sha256sum").arg(at("layer.tar")).output().unwrap()).unwrap();
        let digest = format!("sha256:{}", digest.split_whitespace().next().unwrap());
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [self.reference], "Layers": ["layer.tar"]}]);
        fs::write(at("config.json"), config.to_string()).unwrap();
        fs::write(at("manifest.json"), manifest.to_string()).unwrap();
        tar(archive, self.directory.path(), &["manifest.json", "config.json", "layer.tar"]);
    }
}

fn tar(archive: &Path, directory: &Path, what: &[&str]) {
    let mut command = Command::new("tar");
    command.args(["--owner=0", "--group=0", "-cf"]).arg(archive).arg("-C").arg(directory).args(what);
    succeeded(command.output().unwrap()).unwrap();
}

/// None of a static executable, for which ldd fails.
fn libraries(executable: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(executable).output().unwrap();
    let said =
        if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { String::new() };
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
