//! A peer's `addPath`.

use crate::speaker::AddPath;
use serde::Deserialize;
use twill_crds::add_path::{AddPathSpec, PathCount};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileAddPath {
    #[serde(default)]
    receive: bool,
    send: Option<PathCount>,
}

/// What is said of several paths to a prefix.
pub(super) fn read(file: Option<&FileAddPath>) -> Result<AddPath, String> {
    let Some(FileAddPath { receive, send }) = file else { return Ok(AddPath::default()) };
    let spec = AddPathSpec { receive: *receive, send: *send };
    match spec.problem() {
        None => Ok(AddPath::from(&spec)),
        Some(("", problem)) => Err(format!("addPath {problem}")),
        Some((field, problem)) => Err(format!("addPath.{field} {problem}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::LoneConfig;
    use crate::speaker::AddPath;

    fn of(text: &str) -> Result<AddPath, String> {
        let file = format!(
            "asn: 65000\nrouterID: 10.0.0.1\npeers:\n- {{name: a, address: 10.0.0.2, asn: 65001, addPath: {text}}}"
        );
        let peer = LoneConfig::parse(&file).map_err(|error| error.to_string())?.speaker.peers["a"].clone();
        Ok(peer.add_path)
    }

    #[test]
    fn several_paths_go_one_way_or_both() {
        assert_eq!(of("{receive: true}"), Ok(AddPath { receive: true, send: 0 }));
        assert_eq!(of("{send: 4}"), Ok(AddPath { receive: false, send: 4 }));
        assert_eq!(of("{receive: true, send: all}"), Ok(AddPath { receive: true, send: 64 }));
        let cases = [
            ("{}", "addPath says neither receive nor send"),
            ("{send: 0}", "addPath.send is 0; use 1 to 64, or all"),
            ("{send: 65}", "addPath.send is 65"),
            ("{send: many}", "all or a number"),
            ("{recieve: true}", "recieve"),
        ];
        for (text, says) in cases {
            let error = of(text).unwrap_err();
            assert!(error.contains(says) && error.contains("line 4") && !error.contains('\n'), "{error}");
        }
    }
}
