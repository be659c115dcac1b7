//! The network configuration that tells the runtime, and by it the kubelet, that pods can be attached here.
//!
//! A kubelet calls its node ready as soon as there is one. So it is written last of all, by felix itself, when felix can serve; from then on
//! it stays, over restarts and upgrades, until an uninstall takes it.

use super::place::{place, unfinished};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::{fs, io};
use twill_crds::names::{CNI_CONFLIST, CNI_NETWORK, CNI_PLUGIN, FELIX_SOCKET, RUN_DIR, STATE_DIR};

/// For root alone, as benchmarks for the security of nodes ask.
const MODE: u32 = 0o600;

/// The network configuration of one felix.
#[derive(Clone, Debug)]
pub struct Conflist {
    directory: PathBuf,
    run_dir: PathBuf,
    state_dir: PathBuf,
}

impl Conflist {
    /// That of the felix which listens in `run_dir`, in the runtime's `directory`.
    #[must_use]
    pub fn new(directory: &Path, run_dir: &Path) -> Self {
        Self { directory: directory.to_owned(), run_dir: run_dir.to_owned(), state_dir: PathBuf::from(STATE_DIR) }
    }

    /// The same of a felix that keeps its state elsewhere than by default.
    #[must_use]
    pub fn of_state(self, state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned(), ..self }
    }

    /// The runtime's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes it unless it is there. Says whether it was not.
    ///
    /// # Errors
    /// A sentence.
    pub fn write(&self) -> Result<bool, String> {
        let text = twill_crds::cni::conflist(&self.run_dir.join(FELIX_SOCKET), &self.state_dir);
        place(&self.directory.join(CNI_CONFLIST), text.as_bytes(), MODE).map_err(|error| {
            format!("the runtime cannot be told that pods can be attached: {error}; make it writable, or name --cni-conf-dir")
        })
    }

    /// The network configurations that lead to this felix, under whatever name, and what a killed writer left. The directory is the
    /// runtime's, which watches it.
    ///
    /// # Errors
    /// A sentence: the directory cannot be read. One that is not there has none.
    pub fn ours(&self) -> Result<Vec<PathBuf>, String> {
        let mut ours = self.all()?;
        ours.retain(|path| self.is_ours(path));
        let half = unfinished(&self.directory.join(CNI_CONFLIST));
        ours.extend(Some(half).filter(|half| half.exists()));
        Ok(ours)
    }

    /// Names of network configurations of others that the runtime prefers, because they sort before ours.
    ///
    /// # Errors
    /// As [`Conflist::ours`].
    pub fn preferred(&self) -> Result<Vec<String>, String> {
        let others = self.all()?.into_iter().filter(|path| !self.is_ours(path));
        let names = others.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(names.take_while(|name| name.as_str() < CNI_CONFLIST).collect())
    }

    /// All that the runtime would read, in its order.
    fn all(&self) -> Result<Vec<PathBuf>, String> {
        let failed = |error| format!("{} cannot be read: {error}", self.directory.display());
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            if matches!(extension, "conflist" | "conf" | "json") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Whether a network configuration is Twill's, and of this felix: another's may name our plugin, too.
    fn is_ours(&self, path: &Path) -> bool {
        fs::read_to_string(path).is_ok_and(|text| leads_to(&text, &self.run_dir.join(FELIX_SOCKET)))
    }
}

fn leads_to(text: &str, felix: &Path) -> bool {
    let Ok(config) = serde_json::from_str::<Value>(text) else { return false };
    let plugin = config["plugins"].get(0).unwrap_or(&config);
    let socket = match &plugin["socket"] {
        Value::Null => Path::new(RUN_DIR).join(FELIX_SOCKET),
        socket => PathBuf::from(socket.as_str().unwrap_or_default()),
    };
    config["name"] == CNI_NETWORK && plugin["type"] == CNI_PLUGIN && socket == felix
}

/// A sentence about network configurations that the runtime prefers to ours; none if there are none.
#[must_use]
pub fn overruled(directory: &Path, preferred: &[String]) -> Option<String> {
    (!preferred.is_empty()).then(|| {
        format!(
            "the runtime takes {} of {} before {CNI_CONFLIST}, so new pods are not Twill's; remove it when its network is no longer used",
            preferred.join(", "),
            directory.display()
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_conflist_is_ours_by_network_plugin_and_socket() {
        let here = Path::new("/run/twill/felix.sock");
        let list = |name: &str, plugin: &str| format!(r#"{{"name": "{name}", "plugins": [{plugin}]}}"#);
        let bare = r#"{"type": "twill-cni"}"#;
        let named = r#"{"type": "twill-cni", "socket": "/run/twill/felix.sock"}"#;
        let chained = format!(r#"{named}, {{"type": "portmap"}}"#);
        for ours in [list("twill", bare), list("twill", named), list("twill", &chained)] {
            assert!(leads_to(&ours, here), "{ours}");
        }
        assert!(leads_to(r#"{"name": "twill", "type": "twill-cni"}"#, here));
        let elsewhere = r#"{"type": "twill-cni", "socket": "/run/other/felix.sock"}"#;
        let second = format!(r#"{{"type": "multus"}}, {named}"#);
        for foreign in [
            list("twill", r#"{"type": "bridge"}"#),
            list("other", named),
            list("twill", elsewhere),
            list("twill", &second),
            "{".to_owned(),
            String::new(),
            "[]".to_owned(),
        ] {
            assert!(!leads_to(&foreign, here), "{foreign}");
        }
    }

    #[test]
    fn what_is_written_is_found_again_and_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let conflist = Conflist::new(directory.path(), Path::new(RUN_DIR));
        assert_eq!(conflist.write(), Ok(true));
        assert_eq!(conflist.write(), Ok(false));
        let path = directory.path().join(CNI_CONFLIST);
        assert_eq!(conflist.ours().unwrap(), std::slice::from_ref(&path));
        let other = Conflist::new(directory.path(), Path::new("/run/other"));
        assert_eq!(other.ours().unwrap(), Vec::<PathBuf>::new());
        fs::remove_file(&path).unwrap();
        assert_eq!(conflist.write(), Ok(true), "whoever removed it: it is needed");
        let nowhere = Conflist::new(&path, Path::new(RUN_DIR));
        assert!(nowhere.write().unwrap_err().contains("--cni-conf-dir"), "a file is no directory");
    }

    #[test]
    fn only_ours_is_found_and_what_is_not_there_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let conflist = Conflist::new(directory.path(), Path::new(RUN_DIR));
        let ours = write("20-twill.conflist", r#"{"name": "twill", "plugins": [{"type": "twill-cni"}]}"#);
        write("30-bridge.conflist", r#"{"name": "bridge", "plugins": [{"type": "bridge"}]}"#);
        write("40-half.conflist", "{");
        assert_eq!(conflist.ours().unwrap(), std::slice::from_ref(&ours));
        assert_eq!(conflist.preferred().unwrap(), Vec::<String>::new());
        let half = unfinished(&directory.path().join(CNI_CONFLIST));
        fs::write(&half, "{").unwrap();
        assert_eq!(conflist.ours().unwrap(), [ours, half]);
        let none = Conflist::new(&directory.path().join("none"), Path::new(RUN_DIR));
        assert_eq!(none.ours().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn others_that_sort_before_ours_are_named() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["05-cilium.conflist", "10-calico.conflist", "10-calico.conflist.bak", "10-uwu.conf", "README"] {
            fs::write(directory.path().join(name), r#"{"name": "other"}"#).unwrap();
        }
        let conflist = Conflist::new(directory.path(), Path::new(RUN_DIR));
        let preferred = conflist.preferred().unwrap();
        assert_eq!(preferred, ["05-cilium.conflist", "10-calico.conflist"]);
        let sentence = overruled(Path::new("/etc/cni/net.d"), &preferred).unwrap();
        assert!(sentence.contains("takes 05-cilium.conflist, 10-calico.conflist of /etc/cni/net.d"), "{sentence}");
        assert_eq!(overruled(directory.path(), &[]), None);
    }
}
