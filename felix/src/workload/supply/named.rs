//! Pools that a Pod, or its Namespace, asks for by name: by annotation, for each family. The Pod's goes before the Namespace's.
//!
//! What is named is all that is used, in that order, and still only if the node may: of several, those that it may not are passed over.

use super::{NoAddress, Supply};
use std::fmt;
use twill_crds::names::{IPV4_POOLS, IPV6_POOLS};
use twill_crds::{IPPool, IPReservation, Object};
use twill_datastore::Key;
use twill_ipam::{Family, Pool, pool};

/// What annotations say, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolNames {
    /// Of IPv4.
    pub v4: Option<String>,
    /// Of IPv6.
    pub v6: Option<String>,
}

/// For whom addresses are chosen.
#[derive(Clone, Copy, Debug)]
pub struct Whom<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub pod: &'a str,
    /// What the Pod asks for.
    pub pools: Option<&'a PoolNames>,
    /// What is kept for it, which this node holds.
    pub kept: Option<&'a IPReservation>,
}

impl PoolNames {
    /// None if nothing is asked for.
    pub fn read<'a>(get: impl Fn(&str) -> Option<&'a String>) -> Option<Self> {
        let names = Self { v4: get(IPV4_POOLS).cloned(), v6: get(IPV6_POOLS).cloned() };
        (names != Self::default()).then_some(names)
    }

    fn of(&self, family: Family) -> Option<&str> {
        match family {
            Family::V4 => self.v4.as_deref(),
            Family::V6 => self.v6.as_deref(),
        }
    }
}

/// Who asked: `annotation KEY of Pod NAMESPACE/NAME`.
struct Place<'a> {
    annotation: &'a str,
    kind: &'a str,
    name: String,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation {} of {} {}", self.annotation, self.kind, self.name)
    }
}

impl Supply {
    /// The pools of a family for a pod, the first to be used first; none if there is none for the family, and none was asked for.
    ///
    /// # Errors
    /// [`NoAddress::Refused`]: what was asked for makes no sense, or leaves no pool.
    pub(super) fn pools_of(&self, whom: Whom<'_>, family: Family) -> Result<Vec<Pool>, NoAddress> {
        let may = self.pools_for(Some(whom.namespace), family);
        let Some((place, text)) = self.asks(whom, family) else { return Ok(may) };
        let refused = |what: String| Err(NoAddress::Refused(format!("{place} {what}")));
        let names: Vec<String> = match serde_json::from_str::<Vec<String>>(&text) {
            Ok(names) if !names.is_empty() => names,
            Ok(_) => return refused("is an empty list; name an IPPool, or take the annotation away".to_owned()),
            Err(_) => {
                return refused(format!(
                    "is {text:?}, which is no list of IPPools; write it like [\"pool-a\",\"pool-b\"]"
                ));
            }
        };
        let (mut found, mut not) = (Vec::new(), Vec::new());
        for name in &names {
            let Some(known) = self.accepted.iter().find(|pool| pool.name() == name) else {
                return refused(format!(
                    "names IPPool {name}, and there is none that counts; twill get ippool shows all"
                ));
            };
            if Family::of(known.spec.cidr) != family {
                return refused(format!(
                    "names IPPool {name}, which has addresses of the other family ({})",
                    known.spec.cidr
                ));
            }
            match may.iter().find(|pool| pool.name == *name) {
                Some(pool) => found.push(pool.clone()),
                None => not.push(format!("{name} {}", self.hindrance(known, whom.namespace))),
            }
        }
        if found.is_empty() {
            let (node, not) = (&self.owner.node, not.join(", "));
            return refused(format!("leaves no IPPool on node {node}: {not}; change that, or name another IPPool"));
        }
        Ok(found)
    }

    /// The annotation that counts, if there is one.
    fn asks(&self, whom: Whom<'_>, family: Family) -> Option<(Place<'static>, String)> {
        let annotation = if family == Family::V4 { IPV4_POOLS } else { IPV6_POOLS };
        if let Some(text) = whom.pools.and_then(|names| names.of(family)) {
            let name = format!("{}/{}", whom.namespace, whom.pod);
            return Some((Place { annotation, kind: "Pod", name }, text.to_owned()));
        }
        let namespace = self.namespaces.get(&Key::cluster(whom.namespace))?;
        let text = namespace.metadata.annotations.as_ref()?.get(annotation)?;
        Some((Place { annotation, kind: "Namespace", name: whom.namespace.to_owned() }, text.clone()))
    }

    /// Why a pool gives no addresses here.
    fn hindrance(&self, known: &IPPool, namespace: &str) -> &'static str {
        let (node, namespace) = (self.node_labels(), self.namespace_labels(namespace));
        pool::hindrance(known, &node, &namespace).unwrap_or("gives no pod an address")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Choice;
    use super::super::tests::{NOW, block, pool, store, supply};
    use super::*;
    use serde_json::json;
    use twill_datastore::{Followed, Revision};

    /// Pools a and b are for this node, c is disabled; each of the first two has a block that is ready.
    fn world() -> (Supply, tempfile::TempDir, twill_ipam::io::store::Store) {
        let mut off = pool("c", "10.3.0.0/16");
        off["spec"]["disabled"] = json!(true);
        let mut gold = pool("d", "10.4.0.0/16");
        gold["spec"]["namespaceSelector"] = json!({"matchLabels": {"tier": "gold"}});
        let pools = vec![pool("a", "10.1.0.0/16"), pool("b", "10.2.0.0/16"), off, gold, pool("six", "fd42::/112")];
        let blocks = ["10.1.0.0/26", "10.2.0.0/26", "fd42::/122"];
        let supply = supply(pools, blocks.map(|cidr| block(cidr, "n1")).into());
        let (directory, store) = store(&blocks.map(|cidr| (cidr, true)));
        (supply, directory, store)
    }

    fn annotate(supply: &mut Supply, text: &str) {
        let object = json!({"metadata": {"name": "shop", "annotations": {"twill.network/ipv4-pools": text}}});
        let items = vec![serde_json::from_value(object).unwrap()];
        supply.namespaces.apply(Followed::Synced { items, revision: Revision(1) });
    }

    /// The pod's IPv4 address, or why it has none.
    fn given(supply: &Supply, store: &twill_ipam::io::store::Store, pod: Option<&str>) -> Result<String, String> {
        let names = PoolNames { v4: pod.map(str::to_owned), v6: None };
        let whom = Whom { namespace: "shop", pod: "cart", pools: Some(&names), kept: None };
        match supply.choose(whom, &[], store.ledger(), NOW, |_| false) {
            Ok(Choice::Addresses(found)) => {
                assert_eq!(found[1].to_string(), "fd42::1", "the other family is as ever");
                Ok(found[0].to_string())
            }
            Err(error) => Err(error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_pools_that_are_named_are_used_in_that_order_and_the_pods_word_goes_first() {
        let (mut supply, _d, store) = world();
        assert_eq!(given(&supply, &store, None).as_deref(), Ok("10.1.0.1"));
        assert_eq!(given(&supply, &store, Some(r#"["b","a"]"#)).as_deref(), Ok("10.2.0.1"));
        assert_eq!(
            given(&supply, &store, Some(r#"["c","b"]"#)).as_deref(),
            Ok("10.2.0.1"),
            "what is disabled is passed over"
        );
        annotate(&mut supply, r#"["b"]"#);
        assert_eq!(given(&supply, &store, None).as_deref(), Ok("10.2.0.1"));
        assert_eq!(given(&supply, &store, Some(r#"["a"]"#)).as_deref(), Ok("10.1.0.1"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_annotation_pool_and_way_out() {
        let (mut supply, _d, store) = world();
        for (text, says) in [
            ("a,b", r#"is "a,b", which is no list of IPPools; write it like"#),
            ("[]", "is an empty list; name an IPPool"),
            (r#"["a","zz"]"#, "names IPPool zz, and there is none that counts"),
            (r#"["six"]"#, "names IPPool six, which has addresses of the other family (fd42::/112)"),
            (
                r#"["c","d"]"#,
                "leaves no IPPool on node n1: c is disabled, d does not select the namespace (namespaceSelector); change that",
            ),
        ] {
            let said = given(&supply, &store, Some(text)).unwrap_err();
            assert!(
                said.starts_with(&format!("annotation twill.network/ipv4-pools of Pod shop/cart {says}")),
                "{said}"
            );
        }
        annotate(&mut supply, "[7]");
        let said = given(&supply, &store, None).unwrap_err();
        assert!(said.starts_with("annotation twill.network/ipv4-pools of Namespace shop is \"[7]\""), "{said}");
    }
}
