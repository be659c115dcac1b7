//! BGP Identifiers of nodes. In flow their addresses and names; out flows a number that no other speaker of the cluster has (RFC 6286 section 2.1).

use crate::fib::NodeAddresses;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The node's IPv4 address. One without has a number of its name, but for those that another node has by its address, or an `older` one by its name.
pub(super) fn identifier(own: &NodeAddresses, others: &[NodeAddresses], older: &[NodeAddresses]) -> Ipv4Addr {
    if let Some(address) = own.v4 {
        return address;
    }
    let mut taken: BTreeSet<Ipv4Addr> = others.iter().filter_map(|node| node.v4).collect();
    for node in older.iter().filter(|node| node.v4.is_none()) {
        taken.insert(free(&node.name, &taken));
    }
    free(&own.name, &taken)
}

/// That of a node of which only the name is known.
pub(super) fn of_name(name: &str) -> Ipv4Addr {
    free(name, &BTreeSet::new())
}

fn free(name: &str, taken: &BTreeSet<Ipv4Addr>) -> Ipv4Addr {
    let mut digest = Sha256::digest(name.as_bytes());
    loop {
        let identifier = host(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
        if !taken.contains(&identifier) {
            return identifier;
        }
        digest = Sha256::digest(digest);
    }
}

/// RFC 6286 has any number but 0; who goes by RFC 4271 section 6.2 refuses what could not be a host's address (Quagga, multicast and above).
fn host(number: u32) -> Ipv4Addr {
    const FIRST: u32 = u32::from_be_bytes([1, 0, 0, 0]);
    const LOOPBACK: u32 = u32::from_be_bytes([127, 0, 0, 0]);
    Ipv4Addr::from(FIRST + number % (LOOPBACK - FIRST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    fn six(name: &str) -> NodeAddresses {
        NodeAddresses { name: name.to_owned(), v4: None, v6: None }
    }

    #[test]
    fn a_node_without_ipv4_has_a_number_that_could_be_a_hosts() {
        for n in 0..2000 {
            let identifier = of_name(&format!("n{n}"));
            assert!((1..127).contains(&identifier.octets()[0]), "n{n}: {identifier}");
        }
        assert_eq!([0, u32::MAX].map(|number| (1..127).contains(&host(number).octets()[0])), [true; 2]);
    }

    #[test]
    fn of_two_nodes_with_one_number_the_older_keeps_it_and_an_address_goes_before() {
        // Found by trying.
        let (first, second) = (six("n18622"), six("n41826"));
        let number = of_name(&first.name);
        assert_eq!(number, of_name(&second.name));
        assert_eq!(identifier(&first, from_ref(&second), &[]), number);
        let other = identifier(&second, from_ref(&first), from_ref(&first));
        assert_ne!(other, number);
        let by_address = NodeAddresses { v4: Some(number), ..six("with-ipv4") };
        assert_ne!(identifier(&first, from_ref(&by_address), &[]), number);
        assert_eq!(identifier(&by_address, from_ref(&first), &[]), number);
    }
}
