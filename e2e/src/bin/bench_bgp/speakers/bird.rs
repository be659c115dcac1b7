//! Debian's bird2.

use super::{Program, installed, write};
use crate::row::Row;
use std::path::Path;

pub(super) fn programs(row: Row, directory: &Path) -> anyhow::Result<Vec<Program>> {
    let mut text = "log \"/dev/null\" all;\nrouter id 10.98.0.1;\nprotocol device {}\n".to_owned();
    if row.kernel {
        text += "protocol kernel { ipv4 { import none; export all; }; }\n";
    }
    for one in row.neighbours() {
        let (import, export) = if one.sends { ("all", "none") } else { ("none", "all") };
        text += &format!(
            "protocol bgp p{} {{\n  local as 65000; neighbor {} as {}; passive;\n  ipv4 {{ import {import}; export {export}; }};\n}}\n",
            one.number,
            one.text(),
            one.asn()
        );
    }
    let mut command = installed(&["/usr/sbin/bird", "/usr/local/sbin/bird"], "bird2")?;
    command.arg("-f").arg("-c").arg(write(directory, "bird.conf", &text)?).arg("-s").arg(directory.join("bird.ctl"));
    Ok(vec![Program { name: "bird", command, made: None }])
}
