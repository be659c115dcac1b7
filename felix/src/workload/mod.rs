//! The attachment of one pod: its names on the node, derived, never stored.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use twill_crds::names::WORKLOAD_PREFIX;

/// Name of the host side of a workload's interface: a hash, so that a restarted agent and `DEL` without a record find it.
#[must_use]
pub fn interface_name(container_id: &str, ifname: &str) -> String {
    let digest = Sha256::digest(format!("{container_id}/{ifname}"));
    let mut name = WORKLOAD_PREFIX.to_owned();
    for byte in digest.iter().take(6) {
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(WORKLOAD_PREFIX.len() + 11);
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_the_kernel_and_depends_on_container_and_interface() {
        let name = interface_name("0123456789abcdef", "eth0");
        // printf '0123456789abcdef/eth0' | sha256sum
        assert_eq!(name.len(), 14);
        assert!(name.starts_with("twl"));
        assert_ne!(name, interface_name("0123456789abcdef", "net1"));
        assert_ne!(name, interface_name("0123456789abcdee", "eth0"));
    }
}
