//! Ours.

use super::{Program, write};
use crate::row::Row;
use std::path::Path;
use std::process::Command;

pub(super) fn programs(binary: &Path, row: Row, directory: &Path) -> anyhow::Result<Vec<Program>> {
    let mut text = format!(
        "asn: 65000\nrouterID: 10.98.0.1\nlisten: [{{address: 0.0.0.0}}]\ninstallRoutes: {}\npeers:\n",
        row.kernel
    );
    for one in row.neighbours() {
        let (import, export) = if one.sends { ("all", "none") } else { ("none", "all") };
        text += &format!(
            "- {{name: p{}, address: {}, asn: {}, passive: true, import: {import}, export: {export}, families: [ipv4]}}\n",
            one.number,
            one.text(),
            one.asn()
        );
    }
    let mut command = Command::new(binary);
    command.args(["bgpd", "--config"]).arg(write(directory, "twill.yaml", &text)?);
    Ok(vec![Program { name: "twill", command, made: None }])
}
