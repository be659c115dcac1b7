//! Rules of IPPool and IPBlock, and of pools among each other.

use super::{Invalid, Problem, selector};
use crate::{IPBlock, IPPool, IPPoolSpec, Object, Protocol, names};
use ipnet::IpNet;
use std::net::IpAddr;

/// Rules of one pool; `old` is the stored one on update.
pub(super) fn pool(new: &IPPool, old: Option<&IPPool>) -> Result<(), Problem> {
    spec(&new.spec)?;
    let Some(old) = old else { return Ok(()) };
    if old.spec.cidr != new.spec.cidr {
        let problem = format!("is {} and cannot change; create another pool and disable this one", old.spec.cidr);
        return Err(Problem::new("spec.cidr", problem));
    }
    let (was, is) = (old.spec.block_prefix_len(), new.spec.block_prefix_len());
    if was != is {
        let problem = format!("is {was} and cannot change; create another pool and disable this one");
        return Err(Problem::new("spec.blockSize", problem));
    }
    Ok(())
}

/// Rules of a pool's fields.
pub(crate) fn spec(spec: &IPPoolSpec) -> Result<(), Problem> {
    cidr("spec.cidr", spec.cidr)?;
    let problem = |field: &str, problem: String| Err(Problem::new(field, problem));
    let size = spec.block_prefix_len();
    let (least, most, family) = match spec.cidr {
        IpNet::V4(_) => (20, 32, "IPv4"),
        IpNet::V6(_) => (116, 128, "IPv6"),
    };
    if !(least..=most).contains(&size) {
        return problem("spec.blockSize", format!("is {size}, must be {least} to {most} for {family}"));
    }
    if size < spec.cidr.prefix_len() {
        let problem = match spec.block_size {
            Some(_) => {
                format!("/{size} is larger than the pool {}; make the block smaller or the pool larger", spec.cidr)
            }
            None => format!(
                "is left out, and the default /{size} is larger than the pool {}; set it to {} or more",
                spec.cidr,
                spec.cidr.prefix_len().max(least)
            ),
        };
        return Err(Problem::new("spec.blockSize", problem));
    }
    if spec.encapsulation.protocol == Protocol::IPIP && matches!(spec.cidr, IpNet::V6(_)) {
        return problem("spec.encapsulation.protocol", "is IPIP, which carries IPv4 only; use VXLAN or None".into());
    }
    selector::optional("spec.nodeSelector", spec.node_selector.as_ref())?;
    selector::optional("spec.namespaceSelector", spec.namespace_selector.as_ref())
}

/// Rules of a block, whose range was written as `text`; its spec never changes.
pub(super) fn block(new: &IPBlock, text: &str, old: Option<&IPBlock>) -> Result<(), Problem> {
    cidr("spec.cidr", new.spec.cidr)?;
    // The name follows from the text for whoever cannot shorten it.
    if text != new.spec.cidr.to_string() {
        let problem = format!("{text} is not the short form of the range; write {}", new.spec.cidr);
        return Err(Problem::new("spec.cidr", problem));
    }
    let name = names::block_name(new.spec.cidr);
    if new.name() != name {
        let problem = format!("is \"{}\", must be \"{name}\", the name of {}", new.name(), new.spec.cidr);
        return Err(Problem::new("metadata.name", problem));
    }
    if !super::metadata::is_dns_subdomain(&new.spec.node) {
        return Err(Problem::new("spec.node", format!("\"{}\" is no name of a Node", new.spec.node)));
    }
    if old.is_some_and(|old| old.spec != new.spec) {
        return Err(Problem::new(
            "spec",
            "cannot change: a block has one owner for life; delete it and create another",
        ));
    }
    Ok(())
}

/// A range that is written as its first address.
pub(super) fn masked(field: &str, range: IpNet) -> Result<(), Problem> {
    if range.trunc() == range {
        return Ok(());
    }
    Err(Problem::new(field, format!("{range} has host bits set; write {}", range.trunc())))
}

/// A network address without host bits, that pods can have.
pub(super) fn cidr(field: &str, cidr: IpNet) -> Result<(), Problem> {
    masked(field, cidr)?;
    let unusable = match cidr.addr() {
        _ if cidr.prefix_len() == 0 => Some("is every address there is"),
        IpAddr::V4(a) if a.is_link_local() => Some("is link-local"),
        IpAddr::V4(a) if a.is_loopback() => Some("is loopback"),
        IpAddr::V4(a) if a.is_multicast() || a.octets()[0] >= 240 => Some("is multicast or reserved"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("is \"this network\" (RFC 1122)"),
        IpAddr::V6(a) if a.is_unicast_link_local() => Some("is link-local"),
        IpAddr::V6(a) if a.is_loopback() || a.is_unspecified() => Some("is loopback or unspecified"),
        IpAddr::V6(a) if a.is_multicast() => Some("is multicast"),
        _ => None,
    };
    let Some(why) = unusable else { return Ok(()) };
    Err(Problem::new(field, format!("{cidr} {why}; choose a private range such as 10.42.0.0/16 or fd42::/48")))
}

/// No two pools overlap. `existing` may hold the stored form of `new` itself.
///
/// # Errors
/// The first pool that `new` overlaps, and the way out.
pub fn pools(existing: &[IPPool], new: &IPPool) -> Result<(), Invalid> {
    let other = existing.iter().find(|other| other.name() != new.name() && overlap(other.spec.cidr, new.spec.cidr));
    let Some(other) = other else { return Ok(()) };
    Err(Invalid {
        kind: "IPPool".into(),
        name: new.name().to_owned(),
        field: "spec.cidr".into(),
        problem: overlaps(new, other),
    })
}

/// The sentence on two pools that overlap.
pub(crate) fn overlaps(new: &IPPool, other: &IPPool) -> String {
    format!(
        "{} overlaps IPPool {} ({}); choose another range, or delete that pool first",
        new.spec.cidr,
        other.name(),
        other.spec.cidr
    )
}

/// Whether two ranges have an address in common.
pub(crate) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn make(spec: Value) -> IPPool {
        serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": "IPPool", "metadata": {"name": "p"}, "spec": spec
        }))
        .unwrap()
    }

    fn field(spec: Value) -> Option<String> {
        pool(&make(spec), None).err().map(|problem| problem.field)
    }

    #[test]
    fn ranges_that_pods_can_have() {
        for good in ["10.42.0.0/16", "fd42::/48", "10.0.0.0/26", "192.168.1.0/24", "2001:db8::/64"] {
            assert_eq!(field(json!({"cidr": good})), None, "{good}");
        }
        for bad in [
            "10.42.0.1/16",
            "169.254.0.0/16",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "0.0.0.0/0",
            "fe80::/64",
            "ff00::/16",
            "::/64",
        ] {
            assert_eq!(field(json!({"cidr": bad})).as_deref(), Some("spec.cidr"), "{bad}");
        }
    }

    #[test]
    fn block_sizes_by_family_and_pool() {
        let size = |cidr: &str, size: u8| field(json!({"cidr": cidr, "blockSize": size}));
        for good in
            [("10.0.0.0/16", 20), ("10.0.0.0/16", 32), ("fd42::/48", 116), ("fd42::/48", 128), ("10.0.0.0/26", 26)]
        {
            assert_eq!(size(good.0, good.1), None, "{good:?}");
        }
        for bad in
            [("10.0.0.0/16", 19), ("10.0.0.0/16", 33), ("fd42::/48", 64), ("fd42::/48", 115), ("10.0.0.0/27", 26)]
        {
            assert_eq!(size(bad.0, bad.1).as_deref(), Some("spec.blockSize"), "{bad:?}");
        }
        assert_eq!(field(json!({"cidr": "10.0.0.0/28"})).as_deref(), Some("spec.blockSize"));
    }

    #[test]
    fn ipip_carries_ipv4_only() {
        let spec = |cidr: &str| json!({"cidr": cidr, "encapsulation": {"protocol": "IPIP"}});
        assert_eq!(field(spec("10.0.0.0/16")), None);
        assert_eq!(field(spec("fd42::/48")).as_deref(), Some("spec.encapsulation.protocol"));
    }

    #[test]
    fn what_may_not_change() {
        let old = make(json!({"cidr": "10.0.0.0/16"}));
        let change = |spec: Value| pool(&make(spec), Some(&old)).err().map(|problem| problem.field);
        assert_eq!(change(json!({"cidr": "10.0.0.0/16", "blockSize": 26, "disabled": true})), None);
        assert_eq!(change(json!({"cidr": "10.0.0.0/15"})).as_deref(), Some("spec.cidr"));
        assert_eq!(change(json!({"cidr": "10.0.0.0/16", "blockSize": 27})).as_deref(), Some("spec.blockSize"));
    }

    #[test]
    fn a_block_has_the_name_of_its_range_and_one_owner() {
        let make = |name: &str, cidr: &str, node: &str| -> IPBlock {
            serde_json::from_value(json!({"apiVersion": "twill.network/v1", "kind": "IPBlock",
                "metadata": {"name": name}, "spec": {"cidr": cidr, "node": node}}))
            .unwrap()
        };
        let mine = make("10-0-0-64-26", "10.0.0.64/26", "n1");
        let block = |new: &IPBlock, old: Option<&IPBlock>| block(new, &new.spec.cidr.to_string(), old);
        assert_eq!(block(&mine, None), Ok(()));
        assert_eq!(block(&mine, Some(&mine)), Ok(()));
        assert_eq!(block(&make("x", "10.0.0.64/26", "n1"), None).unwrap_err().field, "metadata.name");
        assert_eq!(block(&make("10-0-0-65-26", "10.0.0.65/26", "n1"), None).unwrap_err().field, "spec.cidr");
        assert_eq!(block(&make("10-0-0-64-26", "10.0.0.64/26", ""), None).unwrap_err().field, "spec.node");
        assert_eq!(block(&make("10-0-0-64-26", "10.0.0.64/26", "n2"), Some(&mine)).unwrap_err().field, "spec");
    }

    #[test]
    fn a_refusal_names_both_pools() {
        let mut other = make(json!({"cidr": "10.42.7.0/24"}));
        other.metadata.name = Some("old".into());
        let new = make(json!({"cidr": "10.42.0.0/16"}));
        assert_eq!(pools(std::slice::from_ref(&new), &new), Ok(()));
        let text = pools(&[new.clone(), other], &new).unwrap_err().to_string();
        assert_eq!(
            text,
            "IPPool p: spec.cidr: 10.42.0.0/16 overlaps IPPool old (10.42.7.0/24); choose another range, or delete that pool first"
        );
    }

    proptest! {
        #[test]
        fn ranges_overlap_exactly_if_they_share_an_address(a: u8, b: u8, la in 24u8..=32, lb in 24u8..=32) {
            let net = |host: u8, len: u8| IpNet::new(IpAddr::from([10, 0, 0, host]), len).unwrap().trunc();
            let (a, b) = (net(a, la), net(b, lb));
            let share = (0..=255u8).any(|h| { let ip = IpAddr::from([10, 0, 0, h]); a.contains(&ip) && b.contains(&ip) });
            prop_assert_eq!(overlap(a, b), share);
        }
    }
}
