//! What is kept of HostPolicies over a restart: one JSON file in the state directory, put in place as a whole.

use crate::host::Kept;
use crate::io::place::place;
use serde::Deserialize;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use twill_crds::HostPolicy;

/// Name of the file inside the state directory.
pub const NAME: &str = "host-policy.json";

/// Where it is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// What an earlier felix kept. What cannot be read counts as nothing: then everything that closes is on trial again.
#[must_use]
pub fn read(path: &Path) -> Kept {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Kept::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what was kept of HostPolicies cannot be read; they are on trial again");
            return Kept::default();
        }
    };
    decode(&text, path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "what was kept of HostPolicies cannot be read; they are on trial again");
        Kept::default()
    })
}

/// A policy with a word that this release does not know costs no more than the confirmation of all, which are on trial again: without that
/// one, which may be what lets somebody in, the others could be tighter than what was confirmed. What is known of the node stays.
fn decode(text: &[u8], path: &Path) -> serde_json::Result<Kept> {
    let mut raw: Value = serde_json::from_slice(text)?;
    if let Some(confirmed) = raw.get_mut("confirmed").and_then(Value::as_array_mut) {
        let problem = |object: &Value| HostPolicy::deserialize(object).err().map(|error| (object.clone(), error));
        if let Some((object, error)) = confirmed.iter().find_map(problem) {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            tracing::warn!(path = %path.display(), name, %error, "a HostPolicy that was confirmed is not understood, as one that a newer felix kept; all are on trial again");
            confirmed.clear();
        }
    }
    serde_json::from_value(raw)
}

/// Keeps this, durably.
///
/// # Errors
/// Naming the path. The file is as it was then.
pub fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    place(path, &serde_json::to_vec_pretty(kept)?, 0o600).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::host::Reverted;
    use crate::host::known::{By, Known, Sighting};
    use crate::host::ports::Ports;
    use serde_json::json;

    #[test]
    fn what_was_kept_is_read_and_what_cannot_be_read_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path());
        assert_eq!(read(&path), Kept::default());
        let object =
            json!({"apiVersion": "twill.network/v1", "kind": "HostPolicy", "metadata": {"name": "h"}, "spec": {}});
        let kept = Kept {
            confirmed: vec![serde_json::from_value(object).unwrap()],
            pending: Some("h@u.2.".into()),
            sessions: ["192.0.2.9".parse().unwrap()].into(),
            reverted: vec![Reverted { attempt: "h@u.1.".into(), why: "no answer".into() }],
            known: Known {
                datastore: [("[fd00::1]:2379".parse().unwrap(), Sighting { seen: 7, by: By::Name })].into(),
                ..Known::default()
            },
            ports: Ports { vxlan: [8472].into(), ..Ports::default() },
        };
        write(&path, &kept).unwrap();
        assert_eq!(read(&path), kept);
        // A newer felix confirmed one more: what is left is what is known of the node.
        let mut newer = serde_json::to_value(&kept).unwrap();
        let mut other = newer["confirmed"][0].clone();
        other["spec"] = json!({"directions": ["Sideways"]});
        newer["confirmed"].as_array_mut().unwrap().insert(0, other);
        std::fs::write(&path, newer.to_string()).unwrap();
        assert_eq!(read(&path), Kept { confirmed: Vec::new(), ..kept });
        std::fs::write(&path, "{").unwrap();
        assert_eq!(read(&path), Kept::default());
    }
}
