//! Names of what a lab makes in the kernel and on disk: in flow the names of the file, out flow names that are unique,
//! short enough, and recognisable as this lab's after a crash.

use std::path::PathBuf;

/// Where network namespaces have their names, as `ip netns` has it.
pub const NETNS_DIR: &str = "/run/netns";
/// Where labs keep their files; gone after a boot, as the namespaces are.
pub const LABS_DIR: &str = "/run/twill-lab";

/// What every namespace name of this lab begins with. An underscore cannot stand in a lab's, node's, namespace's or pod's
/// name, so no lab's prefix begins another's.
#[must_use]
pub fn netns_prefix(lab: &str) -> String {
    format!("twill_{lab}_")
}

/// Namespace of a node or router.
#[must_use]
pub fn machine_netns(lab: &str, machine: &str) -> String {
    format!("{}{machine}", netns_prefix(lab))
}

/// Name of the ToR at `index` of a rack.
#[must_use]
pub fn tor(rack: &str, index: usize) -> String {
    if index == 0 { format!("tor-{rack}") } else { format!("tor-{rack}-{}", index + 1) }
}

/// What names of IPv6 sessions end with.
pub const V6: &str = "-v6";

/// Namespace of a pod.
#[must_use]
pub fn pod_netns(lab: &str, namespace: &str, pod: &str) -> String {
    let name = format!("{}{namespace}_{pod}", netns_prefix(lab));
    if name.len() <= 200 { name } else { format!("{}{:016x}", &name[..180], hash(&name)) }
}

/// Path of a namespace.
#[must_use]
pub fn netns_path(netns: &str) -> PathBuf {
    PathBuf::from(NETNS_DIR).join(netns)
}

/// Argument by which those processes of a lab are known that run in no namespace of its own.
#[must_use]
pub fn mark(lab: &str) -> String {
    format!("twill-lab-{lab}-service")
}

/// Directory of a lab.
#[must_use]
pub fn lab_dir(lab: &str) -> PathBuf {
    PathBuf::from(LABS_DIR).join(lab)
}

/// Name of a network device: prefix and name where the kernel's 15 characters suffice, else prefix and a hash of the name.
#[must_use]
pub fn device(prefix: &str, name: &str) -> String {
    let plain = format!("{prefix}{name}");
    if plain.len() <= 15 { plain } else { format!("{prefix}{:012x}", hash(name) >> 16) }
}

/// A device keeps its hardware address when its machine is booted again: what neighbours remember stays true. The bits for unicast
/// and for local administration are set as they must be.
#[must_use]
pub fn mac(lab: &str, machine: &str, device: &str) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = hash(&format!("{lab}/{machine}/{device}")).to_be_bytes();
    [(a & 0xfc) | 2, b, c, d, e, f]
}

/// FNV-1a, 64 bit.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_the_kernel_and_stay_distinct() {
        assert_eq!(device("to-", "n1"), "to-n1");
        let (a, b) = (device("to-", "node-with-a-long-name-1"), device("to-", "node-with-a-long-name-2"));
        assert_eq!((a.len(), b.len()), (15, 15));
        assert_ne!(a, b);
    }

    #[test]
    fn hardware_addresses_are_unicast_locally_administered_and_distinct() {
        let (a, b) = (mac("t", "n1", "eth0"), mac("t", "n2", "eth0"));
        assert_ne!(a, b);
        assert!([a, b].iter().all(|m| m[0] & 3 == 2));
        assert_eq!(a, mac("t", "n1", "eth0"));
    }

    #[test]
    fn namespace_names_fit_a_file_name_and_stay_distinct() {
        let long = "x".repeat(250);
        let (a, b) = (pod_netns("lab", "shop", &format!("{long}a")), pod_netns("lab", "shop", &format!("{long}b")));
        assert!(a.len() < 255 && b.len() < 255);
        assert_ne!(a, b);
        assert_ne!(pod_netns("lab", "a-b", "c"), pod_netns("lab", "a", "b-c"));
        assert!(!machine_netns("x-y", "n1").starts_with(&netns_prefix("x")));
    }
}
