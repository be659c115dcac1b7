//! The attachment of one pod: its names on the node, derived, never stored, and what its interface shall look like.

mod asked;
pub mod supply;

pub use asked::{Asked, Bandwidth, Limit, PortMapping};

use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::IpAddr;
use twill_crds::names::WORKLOAD_PREFIX;
use twill_ipam::{Attachment, Sandbox};

/// A link-layer address.
pub type Mac = [u8; 6];

/// MAC address of the host side of every workload interface: each is a link of two, so one serves all.
pub const HOST_MAC: Mac = [0x02, 0x74, 0x77, 0x69, 0x6c, 0x6c];

/// Name of the host side of a workload's interface: a hash, so that a restarted agent and `DEL` without a record find it.
#[must_use]
pub fn interface_name(container_id: &str, ifname: &str) -> String {
    let digest = digest(container_id, ifname);
    let mut name = WORKLOAD_PREFIX.to_owned();
    for byte in digest.iter().take(6) {
        let _ = write!(name, "{byte:02x}");
    }
    name.truncate(WORKLOAD_PREFIX.len() + 11);
    name
}

/// Whether a name has the form that [`interface_name`] gives.
#[must_use]
pub fn is_interface_name(name: &str) -> bool {
    let digits = name.strip_prefix(WORKLOAD_PREFIX).unwrap_or_default();
    digits.len() == 11 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// MAC address of the pod's side: derived as well, locally administered and unicast.
#[must_use]
pub fn pod_mac(container_id: &str, ifname: &str) -> Mac {
    let digest = digest(container_id, ifname);
    let mut mac = [0x02, 0, 0, 0, 0, 0];
    mac[1..].copy_from_slice(&digest[16..21]);
    mac
}

fn digest(container_id: &str, ifname: &str) -> [u8; 32] {
    Sha256::digest(format!("{container_id}/{ifname}")).into()
}

/// What the kernel shall have for one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Name of the host side.
    pub host_name: String,
    /// Name of the pod side.
    pub pod_name: String,
    /// MAC address of the pod side; the host side has [`HOST_MAC`].
    pub pod_mac: Mac,
    /// Largest packet of both sides.
    pub mtu: u32,
    /// Alias of the host side, from which a lost store is rebuilt.
    pub alias: String,
    /// Addresses of the pod side.
    pub addresses: Vec<IpAddr>,
    /// How fast it may be; none: as fast as it can.
    pub bandwidth: Option<Bandwidth>,
}

impl Plan {
    /// The plan of an attachment that a store of addresses has made.
    #[must_use]
    pub fn of(attachment: &Attachment, claimant: &str, mtu: u32) -> Self {
        let Sandbox { container_id, ifname } = &attachment.sandbox;
        Self {
            host_name: interface_name(container_id, ifname),
            pod_name: ifname.clone(),
            pod_mac: pod_mac(container_id, ifname),
            mtu,
            alias: alias(&attachment.sandbox, &attachment.uid, claimant),
            addresses: attachment.addresses.clone(),
            bandwidth: Asked::read(&attachment.asked).bandwidth,
        }
    }

    /// The same with the MAC address that was asked for, if one was.
    #[must_use]
    pub fn with_mac(self, mac: Option<Mac>) -> Self {
        Self { pod_mac: mac.unwrap_or(self.pod_mac), ..self }
    }

    /// Whether it has an IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }
}

/// Alias of the host side: `twill:UID/IFNAME/CONTAINERID/CLAIMANT`, at most the kernel's 255 bytes.
#[must_use]
pub fn alias(sandbox: &Sandbox, uid: &str, claimant: &str) -> String {
    format!("twill:{uid}/{}/{}/{claimant}", sandbox.ifname, sandbox.container_id)
}

/// What an alias says: the sandbox and the pod's UID. None if it is not one of ours.
#[must_use]
pub fn from_alias(alias: &str) -> Option<(Sandbox, String)> {
    let mut parts = alias.strip_prefix("twill:")?.split('/');
    let (uid, ifname, container_id) = (parts.next()?, parts.next()?, parts.next()?);
    Some((Sandbox { container_id: container_id.to_owned(), ifname: ifname.to_owned() }, uid.to_owned()))
}

/// The store of addresses that made the attachment behind an alias. None if it is not one of ours, or of a release that did not say.
#[must_use]
pub fn claimant(alias: &str) -> Option<&str> {
    alias.strip_prefix("twill:")?.split('/').nth(3)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_the_kernel_and_depends_on_container_and_interface() {
        let name = interface_name("0123456789abcdef", "eth0");
        // printf '0123456789abcdef/eth0' | sha256sum
        assert_eq!(name, "twl60373cf9024");
        assert!(is_interface_name(&name));
        assert!(
            !is_interface_name("twl0") && !is_interface_name("twl60373cf902g") && !is_interface_name("60373cf9024")
        );
        assert_ne!(name, interface_name("0123456789abcdef", "net1"));
        assert_ne!(name, interface_name("0123456789abcdee", "eth0"));
    }

    #[test]
    fn mac_addresses_are_unicast_and_locally_administered() {
        for mac in [HOST_MAC, pod_mac("a", "eth0")] {
            assert_eq!(mac[0] & 3, 2);
        }
        assert_ne!(pod_mac("a", "eth0"), pod_mac("b", "eth0"));
    }

    #[test]
    fn an_alias_tells_what_was_attached() {
        let sandbox = Sandbox { container_id: "c".repeat(64), ifname: "eth0".into() };
        let alias = alias(&sandbox, "11111111-2222-3333-4444-555555555555", &"a".repeat(16));
        assert!(alias.len() < 256);
        assert_eq!(from_alias(&alias), Some((sandbox, "11111111-2222-3333-4444-555555555555".into())));
        assert_eq!(claimant(&alias), Some("a".repeat(16).as_str()));
        assert_eq!(from_alias("uplink to rack 1"), None);
        assert!(from_alias("twill:u/eth0/c").is_some());
        assert_eq!(claimant("twill:u/eth0/c"), None);
    }
}
