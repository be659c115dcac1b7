//! What IPReservations keep from pods.

use super::{Now, Supply};
use ipnet::IpNet;
use std::net::IpAddr;
use twill_crds::IPReservation;
use twill_datastore::Followed;
use twill_ipam::{Claim, Ledger, Pool, Use};

impl Supply {
    /// Takes in what is told about reservations. Each costs what it keeps itself, however many there are. Tells whether anything else is
    /// reserved now: who holds it is no matter for that.
    pub fn hear_reservations(&mut self, followed: Followed<IPReservation>) -> bool {
        let mut changed = false;
        let changes = self.reservations.apply(followed);
        self.held.follow(&changes);
        for change in changes {
            let [old, new] = [change.old.as_deref(), change.new.as_deref()];
            self.kept.hold(&change.key.name, new.and_then(IPReservation::holder), &self.owner.node);
            if old.map(|one| &one.spec) == new.map(|one| &one.spec) {
                continue;
            }
            changed = true;
            if let Some(old) = old {
                self.kept.remove(old);
                self.reserved.remove(old);
            }
            if let Some(new) = new {
                self.kept.add(new);
                self.reserved.add(new);
            }
        }
        changed
    }

    /// A claim of a block of this pool.
    #[must_use]
    pub fn claim(&self, pool: &Pool) -> Claim {
        Claim::new(&pool.name, pool.cidr, pool.block_len, &self.owner, self.seen()).beside(&self.reserved)
    }

    /// The use of own blocks, without what is reserved.
    pub(super) fn usage(&self, ledger: &Ledger, blocks: &[IpNet], now: Now) -> Use {
        ledger.usage_beside(&self.reserved, blocks, now.at, now.cool_down)
    }

    /// Why nobody gets this address, if it is reserved; the end of a sentence.
    pub(super) fn withholds(&self, address: IpAddr) -> Option<String> {
        let (range, name) = self.reserved.by(address)?;
        let kept = self.reservation(name).filter(|one| one.spec.addresses.contains(&address));
        if let Some(pod) = kept.and_then(|one| one.spec.pod.as_ref()) {
            return Some(format!(
                "IPReservation {name} keeps it for pod {}/{}; ask for another",
                pod.namespace, pod.name
            ));
        }
        Some(format!(
            "IPReservation {name} keeps it from pods ({range}); ask for another, or take it out of that IPReservation"
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{NOW, SHOP, block, pool, store, supply};
    use super::super::{Choice, NoAddress};
    use super::*;
    use serde_json::json;
    use twill_datastore::Revision;
    use twill_ipam::{Family, warm};

    fn reserve(supply: &mut Supply, cidrs: &[&str]) {
        let object = json!({"apiVersion": "twill.network/v1", "kind": "IPReservation", "metadata": {"name": "gateways"},
            "spec": {"reservedCIDRs": cidrs}});
        let items = vec![serde_json::from_value(object).unwrap()];
        supply.hear_reservations(Followed::Synced { items, revision: Revision(1) });
    }

    #[test]
    fn what_is_reserved_is_not_given_asked_for_or_not_until_it_is_reserved_no_more() {
        let mut supply = supply(vec![pool("p4", "10.42.0.0/24")], vec![block("10.42.0.0/26", "n1")]);
        let (_d, store) = store(&[("10.42.0.0/26", true)]);
        let first = |supply: &Supply| supply.choose(SHOP, &[], store.ledger(), NOW, |_| false);
        let given = |text: &str| Ok(Choice::Addresses(vec![text.parse().unwrap()]));
        reserve(&mut supply, &["10.42.0.0/29"]);
        assert_eq!(first(&supply), given("10.42.0.8"));
        let asked = supply.choose(SHOP, &["10.42.0.3".parse().unwrap()], store.ledger(), NOW, |_| false);
        let Err(NoAddress::Refused(said)) = asked else { panic!("{asked:?}") };
        assert!(said.starts_with("10.42.0.3 was asked for, and IPReservation gateways keeps it"), "{said}");
        reserve(&mut supply, &[]);
        assert_eq!(first(&supply), given("10.42.0.1"));
    }

    #[test]
    fn a_wholly_reserved_block_counts_as_full_and_none_is_claimed() {
        let mut supply = supply(vec![pool("p4", "10.42.0.0/24")], vec![block("10.42.0.0/26", "n1")]);
        let (_d, store) = store(&[("10.42.0.0/26", true)]);
        reserve(&mut supply, &["10.42.0.0/26", "10.42.0.64/26", "10.42.0.128/26"]);
        assert!(warm::needs_block(supply.usage(store.ledger(), &["10.42.0.0/26".parse().unwrap()], NOW), 64));
        let choice = supply.choose(SHOP, &[], store.ledger(), NOW, |_| false);
        let Ok(Choice::Claim(pool)) = choice else { panic!("{choice:?}") };
        assert_eq!(supply.claim(&pool).step(), twill_ipam::Step::Create("10.42.0.192/26".parse().unwrap()));
        assert_eq!(supply.wanted(store.ledger(), NOW).len(), 1);
        reserve(&mut supply, &["10.42.0.0/24"]);
        let none = supply.choose(SHOP, &[], store.ledger(), NOW, |_| false).unwrap_err().to_string();
        assert!(none.contains("3 more wholly reserved by IPReservations"), "{none}");
        assert!(supply.wanted(store.ledger(), NOW).is_empty());
        assert_eq!(supply.usable(Family::V4, store.ledger(), NOW, |_| 0)[0].usage, Use::default());
    }
}
