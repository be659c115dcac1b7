//! Ports on which systemd listens for an SSH server that it starts when somebody connects: `systemd.socket(5)`, read from unit files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const UNITS: [&str; 3] = ["ssh.socket", "sshd.socket", "dropbear.socket"];
/// Where units are, the ones that count first (`systemd.unit(5)`).
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Ports of TCP that a unit of SSH names. Whether somebody listens there is not said.
#[must_use]
pub fn ports() -> BTreeSet<u16> {
    of(&DIRECTORIES.map(PathBuf::from))
}

fn of(directories: &[PathBuf]) -> BTreeSet<u16> {
    UNITS.iter().flat_map(|unit| unit_ports(directories, unit)).collect()
}

fn unit_ports(directories: &[PathBuf], unit: &str) -> BTreeSet<u16> {
    let Some(text) = directories.iter().find_map(|directory| fs::read_to_string(directory.join(unit)).ok()) else {
        return BTreeSet::new();
    };
    let mut texts = vec![text];
    texts.extend(drop_ins(directories, unit).into_values().filter_map(|file| fs::read_to_string(file).ok()));
    let mut ports = BTreeSet::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let Some((key, value)) = line.split_once('=') else { continue };
        match (key.trim(), value.trim()) {
            // An empty one takes back those before.
            ("ListenStream", "") => ports.clear(),
            ("ListenStream", value) => ports.extend(port(value)),
            _ => {}
        }
    }
    ports
}

/// By the file's name, whichever directory it is in; of two with one name the first directory's counts.
fn drop_ins(directories: &[PathBuf], unit: &str) -> BTreeMap<String, PathBuf> {
    let mut all = BTreeMap::new();
    for directory in directories {
        let entries = fs::read_dir(directory.join(format!("{unit}.d"))).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "conf"));
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.entry(name).or_insert(file);
        }
    }
    all
}

/// `22`, `0.0.0.0:22` or `[::]:22`; a path or anything else is no port.
fn port(value: &str) -> Option<u16> {
    let text = value.rsplit_once(':').map_or(value, |(_, port)| port);
    (!Path::new(value).is_absolute()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn units_and_what_changes_them_name_ports() {
        let root = tempfile::tempdir().unwrap();
        let directories = ["etc", "generator", "lib"].map(|name| root.path().join(name));
        let put = |file: &str, text: &str| {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let read = || of(&directories).into_iter().collect::<Vec<_>>();
        put("generator/ssh.socket.d/addresses.conf", "[Socket]\nListenStream=2200\n");
        assert_eq!(read(), [0; 0], "there is no unit");
        put("lib/ssh.socket", "[Unit]\nDescription=x\n\n[Socket]\nListenStream=22\nAccept=no\n");
        assert_eq!(read(), [22, 2200]);
        put(
            "generator/ssh.socket.d/addresses.conf",
            "[Socket]\nListenStream=\nListenStream=0.0.0.0:2222\nListenStream=[::]:2223\n",
        );
        assert_eq!(read(), [2222, 2223]);
        put(
            "etc/ssh.socket.d/override.conf",
            "[Socket]\nListenStream = 7022\nListenStream=/run/ssh.sock\n# ListenStream=1\n",
        );
        put("etc/ssh.socket.d/notes.txt", "ListenStream=9");
        assert_eq!(read(), [2222, 2223, 7022]);
        // One of the same name, and another unit, whose own place is nearer.
        put("etc/ssh.socket.d/addresses.conf", "[Socket]\nListenStream=\n");
        put("etc/sshd.socket", "[Socket]\nListenStream=2022\n");
        put("lib/sshd.socket", "[Socket]\nListenStream=22\n");
        assert_eq!(read(), [2022, 7022]);
        put("lib/dropbear.socket", "[Socket]\nListenStream=2222\nAccept=yes\n");
        assert_eq!(read(), [2022, 2222, 7022]);
    }
}
