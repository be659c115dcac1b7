//! GoBGP.

use super::{Program, installed, write};
use crate::row::{Neighbour, Row};
use std::path::Path;

pub(super) fn programs(row: Row, directory: &Path) -> anyhow::Result<Vec<Program>> {
    let mut text = "[global.config]\n  as = 65000\n  router-id = \"10.98.0.1\"\n".to_owned();
    // One sender hears nothing of its own prefixes anyway; several would hear each other's.
    if row.senders > 1 {
        text += ONLY_TO_THE_RECEIVER;
        text += &format!(
            "[[defined-sets.neighbor-sets]]\n  neighbor-set-name = \"receiver\"\n  neighbor-info-list = [\"{}\"]\n",
            Neighbour::RECEIVER.text()
        );
    }
    for one in row.neighbours() {
        text += &format!(
            "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{}\"\n    peer-as = {}\n  \
             [neighbors.transport.config]\n    passive-mode = true\n",
            one.text(),
            one.asn()
        );
    }
    let mut command = installed(&["/usr/bin/gobgpd", "/usr/local/bin/gobgpd"], "gobgpd")?;
    command.arg("-f").arg(write(directory, "gobgpd.toml", &text)?);
    command.arg(format!("--api-hosts=unix://{}", directory.join("gobgp.sock").display()));
    command.args(["--pprof-disable", "--log-level=error"]);
    Ok(vec![Program { name: "gobgpd", command, made: None }])
}

const ONLY_TO_THE_RECEIVER: &str = "\
[global.apply-policy.config]
  export-policy-list = [\"to-receiver\"]
  default-import-policy = \"accept-route\"
  default-export-policy = \"reject-route\"
[[policy-definitions]]
  name = \"to-receiver\"
  [[policy-definitions.statements]]
    [policy-definitions.statements.conditions.match-neighbor-set]
      neighbor-set = \"receiver\"
      match-set-options = \"any\"
    [policy-definitions.statements.actions]
      route-disposition = \"accept-route\"
";
