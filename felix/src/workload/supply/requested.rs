//! Addresses that somebody asks for by number: the runtime, or another's address plugin.

use super::{Choice, NoAddress, Now, Supply};
use ipnet::IpNet;
use std::net::IpAddr;
use twill_crds::IPBlock;
use twill_ipam::{Ledger, Pool, range};

impl Supply {
    /// What can be done for who asks for this address; `pools` are those that it may come from.
    ///
    /// # Errors
    /// [`NoAddress::Refused`]: it cannot be had.
    pub(super) fn requested(
        &self,
        address: IpAddr,
        pools: &[Pool],
        ledger: &Ledger,
        now: Now,
        busy: &mut impl FnMut(IpAddr) -> bool,
    ) -> Result<Choice, NoAddress> {
        let refused = |why: String| Err(NoAddress::Refused(format!("{address} was asked for, and {why}")));
        let Some(pool) = pools.iter().find(|pool| pool.cidr.contains(&address)) else {
            return refused("no IPPool that this pod may use on this node contains it".to_owned());
        };
        if let Some(why) = self.withholds(address) {
            return refused(why);
        }
        let own = self.own_of(pool);
        let Some(cidr) = own.into_iter().find(|cidr| cidr.contains(&address)) else {
            return self.block_for(address, pool);
        };
        if range::ordinal(cidr, address) == Some(0) {
            return Err(first_of(cidr, address));
        }
        if let Some(holder) = ledger.holder(address) {
            let (pod, container) = (format!("{}/{}", holder.namespace, holder.pod), &holder.sandbox.container_id);
            return refused(format!("pod {pod} has it (container {container}); delete that pod first"));
        }
        if ledger.block(cidr).is_none_or(|block| !block.ready) {
            return Ok(Choice::Wait(cidr));
        }
        if let Some(left) = ledger.rests(address, now.at, now.cool_down) {
            return Ok(Choice::Until(format!(
                "{address} was asked for and rests for {} s more, since another pod had it; it was not free",
                left.div_ceil(1000)
            )));
        }
        match busy(address) {
            true => refused("an interface of this node has it, or a route of this node leads to it".to_owned()),
            false => Ok(Choice::Addresses(vec![address])),
        }
    }

    /// Its block is not one that gives addresses: it can be claimed if it is nobody's, or taken back.
    fn block_for(&self, address: IpAddr, pool: &Pool) -> Result<Choice, NoAddress> {
        let place = IpNet::new(address, pool.block_len).map_or(pool.cidr, |net| net.trunc());
        let only = Pool { cidr: place, ..pool.clone() };
        let there = self.blocks.iter().map(|(_, block)| block.as_ref());
        let there = there.filter(|block| range::overlap(block.spec.cidr, place));
        // No block is claimed for what it cannot give.
        let claim = || match range::ordinal(place, address) {
            Some(0) => Err(first_of(place, address)),
            _ => Ok(Choice::Claim(only.clone())),
        };
        let Some(block) = there.min_by_key(|block| (!block.spec.cidr.contains(&address), !self.owns(block))) else {
            return claim();
        };
        let cidr = block.spec.cidr;
        if !self.owns(block) {
            return Err(NoAddress::Refused(format!(
                "{address} was asked for, and {}",
                self.of_another(block, address)
            )));
        }
        if self.regained(&only).is_some() {
            return claim();
        }
        if self.giving.contains(&cidr) {
            return Ok(Choice::Until(format!(
                "{address} was asked for, and its place is in block {cidr}, which this node gives back; it was not free"
            )));
        }
        if let Some((_, other)) = self.contested().into_iter().find(|(own, _)| *own == cidr) {
            let (other, node) = (other.cidr, other.node);
            let why =
                format!("its block {cidr} overlaps {other} of node {node}; delete one of the two, or ask for another");
            return Err(NoAddress::Refused(format!("{address} was asked for, and {why}")));
        }
        if cidr.contains(&address) {
            return Ok(Choice::Wait(cidr));
        }
        let why = format!(
            "block {cidr} of this node, which is of another size, leaves no room for its block {place}; ask for another"
        );
        Err(NoAddress::Refused(format!("{address} was asked for, and {why}")))
    }

    /// Why an address that is, or has its place, in somebody else's block cannot be had.
    fn of_another(&self, block: &IPBlock, address: IpAddr) -> String {
        let (cidr, node) = (block.spec.cidr, &block.spec.node);
        if *node == self.owner.node {
            return format!(
                "it lies in block {cidr}, which another machine claimed under this node's name, or this one before it lost its disk; ask for another"
            );
        }
        match cidr.contains(&address) {
            true => format!("it lies in block {cidr}, which is node {node}'s; run the pod there, or ask for another"),
            false => format!("block {cidr} of node {node} leaves no room for its block; ask for another"),
        }
    }
}

fn first_of(block: IpNet, address: IpAddr) -> NoAddress {
    NoAddress::Refused(format!(
        "{address} was asked for, and it is the first address of its block {block}, which no pod gets"
    ))
}

/// What can be done with addresses that another's plugin gave. One that its earlier holder has still to give back is waited for.
///
/// # Errors
/// [`NoAddress::Refused`]: the node has one of them.
pub fn chosen_by_another(
    given: &[IpAddr],
    ledger: &Ledger,
    mut busy: impl FnMut(IpAddr) -> bool,
) -> Result<Choice, NoAddress> {
    for address in given {
        if let Some(holder) = ledger.holder(*address) {
            return Ok(Choice::Until(format!(
                "{address}, which the plugin of ipam.type gave, is still held by pod {}/{} (container {}): its DEL did not come",
                holder.namespace, holder.pod, holder.sandbox.container_id
            )));
        }
        if busy(*address) {
            let why =
                "an interface of this node has it, or a route of this node leads to it; give the plugin another range";
            return Err(NoAddress::Refused(format!("{address} was given by the plugin of ipam.type, and {why}")));
        }
    }
    Ok(Choice::Addresses(given.to_vec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{NOW, SHOP, block, pool, store, supply};
    use super::*;
    use twill_ipam::{Attachment, Sandbox};

    fn attachment(address: &str) -> Attachment {
        Attachment {
            sandbox: Sandbox { container_id: "c1".into(), ifname: "eth0".into() },
            namespace: "shop".into(),
            pod: "cart".into(),
            uid: "u".into(),
            netns: String::new(),
            boot_id: String::new(),
            addresses: vec![address.parse().unwrap()],
            origin: Default::default(),
            asked: String::new(),
        }
    }

    #[test]
    fn an_address_that_was_asked_for_is_given_or_the_reason_is_said() {
        let supply = supply(
            vec![pool("p4", "10.42.0.0/16"), pool("p6", "fd42::/112")],
            vec![block("10.42.1.0/26", "n1"), block("10.42.2.0/26", "n2"), block("fd42::40/122", "n1")],
        );
        let (_d, mut store) = store(&[("10.42.1.0/26", true), ("fd42::40/122", true)]);
        store.attach(attachment("10.42.1.8")).unwrap();
        store.release(&attachment("10.42.1.8").sandbox, NOW.at - 10_000).unwrap();
        store.attach(attachment("10.42.1.7")).unwrap();
        let ask = |asked: &[&str]| {
            let asked: Vec<IpAddr> = asked.iter().map(|text| text.parse().unwrap()).collect();
            supply.choose(SHOP, &asked, store.ledger(), NOW, |address| address.to_string() == "10.42.1.9")
        };
        let both = |four: &str, six: &str| Ok(Choice::Addresses(vec![four.parse().unwrap(), six.parse().unwrap()]));
        assert_eq!(ask(&["10.42.1.33"]), both("10.42.1.33", "fd42::41"));
        assert_eq!(ask(&["fd42::50", "10.42.1.33"]), both("10.42.1.33", "fd42::50"));
        for (address, says) in [
            ("192.0.2.1", "no IPPool that this pod may use"),
            ("10.42.1.0", "the first address of its block"),
            ("10.42.3.64", "the first address of its block 10.42.3.64/26"),
            ("10.42.1.7", "pod shop/cart has it (container c1)"),
            ("10.42.2.5", "block 10.42.2.0/26, which is node n2's"),
            ("10.42.1.9", "an interface of this node has it"),
        ] {
            let said = ask(&[address]).unwrap_err().to_string();
            assert!(said.contains(says) && said.starts_with(address), "{said}");
        }
        assert!(matches!(ask(&["10.42.1.8"]), Ok(Choice::Until(what)) if what.contains("rests for 50 s more")));
        let claim = ask(&["10.42.3.70"]).unwrap();
        assert!(
            matches!(claim, Choice::Claim(pool) if pool.cidr == "10.42.3.64/26".parse().unwrap() && pool.name == "p4")
        );
    }

    #[test]
    fn a_block_of_ours_is_not_told_to_be_anothers() {
        let p4 = || vec![pool("p4", "10.42.0.0/16")];
        let (_d, store) = store(&[("10.42.1.0/26", true)]);
        let ask = |supply: &Supply, address: &str| {
            supply.choose(SHOP, &[address.parse().unwrap()], store.ledger(), NOW, |_| false)
        };
        let refused = |supply: &Supply, address: &str| ask(supply, address).unwrap_err().to_string();
        let contested = supply(p4(), vec![block("10.42.1.0/26", "n1"), block("10.42.0.0/20", "n2")]);
        let said = refused(&contested, "10.42.1.5");
        assert!(said.contains("its block 10.42.1.0/26 overlaps 10.42.0.0/20 of node n2"), "{said}");
        let mut withheld = supply(p4(), vec![block("10.42.1.0/26", "n1")]);
        withheld.withheld = ["10.42.1.0/26".parse().unwrap()].into();
        assert_eq!(ask(&withheld, "10.42.1.5"), Ok(Choice::Wait("10.42.1.0/26".parse().unwrap())));
        let mut earlier = block("10.42.1.0/26", "n1");
        earlier["spec"]["claimant"] = "another".into();
        let said = refused(&supply(p4(), vec![earlier]), "10.42.1.5");
        assert!(said.contains("which another machine claimed under this node's name"), "{said}");
        let small = |node| supply(p4(), vec![block("10.42.1.0/28", node)]);
        assert!(refused(&small("n1"), "10.42.1.40").contains("block 10.42.1.0/28 of this node"));
        assert!(refused(&small("n2"), "10.42.1.40").contains("block 10.42.1.0/28 of node n2 leaves no room"));
    }

    #[test]
    fn what_another_gave_is_taken_unless_somebody_has_it() {
        let (_d, mut store) = store(&[]);
        let given = ["192.0.2.7".parse().unwrap()];
        let free = |_| false;
        assert_eq!(chosen_by_another(&given, store.ledger(), free), Ok(Choice::Addresses(given.to_vec())));
        assert!(chosen_by_another(&given, store.ledger(), |_| true).is_err());
        store.attach(attachment("192.0.2.7")).unwrap();
        let choice = chosen_by_another(&given, store.ledger(), free).unwrap();
        assert!(matches!(choice, Choice::Until(what) if what.contains("still held by pod shop/cart")));
    }
}
