//! OpenBGPD. Its portable version writes no kernel routes on Linux.

use super::{Program, installed, write};
use crate::row::Row;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) fn programs(row: Row, directory: &Path) -> anyhow::Result<Vec<Program>> {
    let mut text =
        format!("AS 65000\nrouter-id 10.98.0.1\nfib-update no\nsocket \"{}\"\n", directory.join("bgpd.ctl").display());
    let mut rules = String::new();
    for one in row.neighbours() {
        let address = one.text();
        text += &format!("neighbor {address} {{\n  remote-as {}\n  passive\n  announce IPv4 unicast\n}}\n", one.asn());
        rules += &format!("allow {} {address}\n", if one.sends { "from" } else { "to" });
    }
    text += &rules;
    let file = write(directory, "openbgpd.conf", &text)?;
    // It takes no file that others may read, and locks itself into its user's home, which its unit makes where there is systemd.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    std::fs::create_dir_all("/run/openbgpd")?;
    let mut command = installed(&["/usr/sbin/bgpd"], "openbgpd")?;
    command.arg("-d").arg("-f").arg(file);
    Ok(vec![Program { name: "bgpd", command, made: None }])
}
