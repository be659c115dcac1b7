//! FRR: bgpd, and zebra, which tells it whether next hops can be reached and writes kernel routes.

use super::{Program, installed, write};
use crate::row::Row;
use std::path::Path;

pub(super) fn programs(row: Row, directory: &Path) -> anyhow::Result<Vec<Program>> {
    let mut text = "frr defaults traditional\nhostname bench\nrouter bgp 65000\n bgp router-id 10.98.0.1\n \
                    no bgp ebgp-requires-policy\n"
        .to_owned();
    let mut family = " address-family ipv4 unicast\n".to_owned();
    for one in row.neighbours() {
        let (address, asn) = (one.text(), one.asn());
        text += &format!(" neighbor {address} remote-as {asn}\n neighbor {address} passive\n");
        let direction = if one.sends { "out" } else { "in" };
        family += &format!("  neighbor {address} route-map nothing {direction}\n");
    }
    text += &family;
    text += " exit-address-family\nroute-map nothing deny 10\n";
    let bgpd_config = write(directory, "bgpd.conf", &text)?;
    let zebra_config = write(directory, "zebra.conf", "hostname bench\n")?;
    let common = |name: &str| -> anyhow::Result<std::process::Command> {
        let mut command = installed(&[&format!("/usr/lib/frr/{name}")], "frr")?;
        command.arg("--vty_socket").arg(directory).arg("-z").arg(directory.join("zserv.api"));
        command.arg("-i").arg(directory.join(format!("{name}.pid"))).args(["-A", "127.0.0.1", "-P", "0"]);
        Ok(command)
    };
    let mut zebra = common("zebra")?;
    zebra.arg("-f").arg(zebra_config);
    let mut bgpd = common("bgpd")?;
    bgpd.arg("-f").arg(bgpd_config);
    if !row.kernel {
        bgpd.arg("--no_kernel");
    }
    Ok(vec![
        Program { name: "zebra", command: zebra, made: Some(directory.join("zserv.api")) },
        Program { name: "bgpd", command: bgpd, made: None },
    ])
}
