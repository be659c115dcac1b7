//! Files that an uninstall takes away. In flow paths and the text of files, out flow deletes and their count.

use serde_json::Value;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use twill_crds::names::{CNI_NETWORK, CNI_PLUGIN, FELIX_SOCKET, RUN_DIR};

/// Removes these files; one that is not there is fine. How many there were, and a sentence for each that stays.
pub(crate) fn remove(files: impl IntoIterator<Item = PathBuf>) -> (usize, Vec<String>) {
    let (mut removed, mut problems) = (0, Vec::new());
    for file in files {
        match fs::remove_file(&file) {
            Ok(()) => removed += 1,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(error) => problems.push(format!("{} cannot be removed: {error}", file.display())),
        }
    }
    (removed, problems)
}

/// Removes directories that are empty. What is in one belongs to somebody else, and so does the directory then.
pub(crate) fn remove_empty(directories: &[PathBuf]) {
    for directory in directories {
        let _ = fs::remove_dir(directory);
    }
}

/// The network configurations in a runtime's directory that lead to the felix of this run directory. The directory itself is the
/// runtime's, which watches it.
///
/// # Errors
/// A sentence: the directory cannot be read. One that is not there has none.
pub(crate) fn conflists(directory: &Path, run_dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("{} cannot be read: {error}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if matches!(extension, "conflist" | "conf" | "json")
            && fs::read_to_string(&path).is_ok_and(|text| is_ours(&text, run_dir))
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a network configuration is Twill's, and of the felix that listens in this directory: another's may name our plugin, too.
fn is_ours(text: &str, run_dir: &Path) -> bool {
    let Ok(config) = serde_json::from_str::<Value>(text) else { return false };
    let plugin = config["plugins"].get(0).unwrap_or(&config);
    let socket = match &plugin["socket"] {
        Value::Null => Path::new(RUN_DIR).join(FELIX_SOCKET),
        socket => PathBuf::from(socket.as_str().unwrap_or_default()),
    };
    config["name"] == CNI_NETWORK && plugin["type"] == CNI_PLUGIN && socket == run_dir.join(FELIX_SOCKET)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_conflist_is_ours_by_network_plugin_and_socket() {
        let here = Path::new("/run/twill");
        let list = |name: &str, plugin: &str| format!(r#"{{"name": "{name}", "plugins": [{plugin}]}}"#);
        let bare = r#"{"type": "twill-cni"}"#;
        let named = r#"{"type": "twill-cni", "socket": "/run/twill/felix.sock"}"#;
        let chained = format!(r#"{named}, {{"type": "portmap"}}"#);
        for ours in [list("twill", bare), list("twill", named), list("twill", &chained)] {
            assert!(is_ours(&ours, here), "{ours}");
        }
        assert!(is_ours(r#"{"name": "twill", "type": "twill-cni"}"#, here));
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
            assert!(!is_ours(&foreign, here), "{foreign}");
        }
    }

    #[test]
    fn only_ours_is_found_and_what_is_not_there_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let ours = write("10-twill.conflist", r#"{"name": "twill", "plugins": [{"type": "twill-cni"}]}"#);
        write("20-bridge.conflist", r#"{"name": "bridge", "plugins": [{"type": "bridge"}]}"#);
        write("30-half.conflist", "{");
        assert_eq!(conflists(directory.path(), Path::new(RUN_DIR)).unwrap(), std::slice::from_ref(&ours));
        assert_eq!(conflists(&directory.path().join("none"), Path::new(RUN_DIR)).unwrap(), Vec::<PathBuf>::new());
        let none = directory.path().join("none");
        assert_eq!(remove([ours.clone(), none.clone(), ours.join("below")]), (1, Vec::new()));
        let (removed, problems) = remove([directory.path().to_owned()]);
        assert_eq!((removed, problems.len()), (0, 1), "a directory is no file: {problems:?}");
    }
}
