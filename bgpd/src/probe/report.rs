//! What is told of it: one sentence, and numbers.

use std::net::Ipv4Addr;

/// Nodes that a sentence names at most.
const NAMED: usize = 4;

/// What the prober knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names of the pools that ask for IP-in-IP.
    pub pools: Vec<String>,
    /// How many peers are asked now.
    pub asked: usize,
    /// Those that are not reached.
    pub filtered: Vec<Filtered>,
    /// Whether enough was asked since the start to say so of nobody.
    pub judged: bool,
    /// Rounds of requests since the start.
    pub rounds: u64,
    /// Of those, in which nothing came through.
    pub lost: u64,
}

/// A peer that protocol 4 does not reach, though it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Name of the node.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Who refuses such packets, where somebody says so.
    pub refused_by: Option<Ipv4Addr>,
}

impl Report {
    /// What is wrong and what to do, in one sentence; none while all who are asked are reached.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.filtered.is_empty() {
            return None;
        }
        let named = |one: &Filtered| format!("{} ({})", one.node, one.address);
        let nodes: Vec<String> = self.filtered.iter().take(NAMED).map(named).collect();
        let rest = self.filtered.len().saturating_sub(NAMED);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let refused = self.filtered.iter().find_map(|one| one.refused_by);
        let refused = refused.map(|by| format!("; {by} refuses it")).unwrap_or_default();
        let (noun, there, behind) =
            if self.filtered.len() == 1 { ("node", "it is", "it") } else { ("nodes", "they are", "them") };
        let pools = match self.pools.as_slice() {
            [pool] => format!("IPPool {pool}"),
            pools => format!("IPPools {}", pools.join(", ")),
        };
        Some(format!(
            "IP protocol 4 (IP-in-IP) does not get through to {noun} {}{more} although {there} there, so pods behind {behind} are not \
             reached{refused}; let the network and firewalls between the nodes pass protocol 4, or set encapsulation.protocol of {pools} to VXLAN",
            nodes.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(nodes: u8, refused_by: Option<Ipv4Addr>) -> Report {
        let one = |number| Filtered { node: format!("n{number}"), address: [10, 0, 0, number].into(), refused_by };
        Report { pools: vec!["default".to_owned()], filtered: (1..=nodes).map(one).collect(), ..Report::default() }
    }

    #[test]
    fn the_sentence_names_nodes_and_the_way_out() {
        assert_eq!(Report::default().problem(), None);
        assert_eq!(
            report(1, None).problem().as_deref(),
            Some(
                "IP protocol 4 (IP-in-IP) does not get through to node n1 (10.0.0.1) although it is there, so pods behind it are not \
                 reached; let the network and firewalls between the nodes pass protocol 4, or set encapsulation.protocol of IPPool default to VXLAN"
            )
        );
        let many = report(6, Some([10, 0, 0, 254].into())).problem().unwrap_or_default();
        assert!(many.contains("nodes n1 (10.0.0.1), n2 (10.0.0.2), n3 (10.0.0.3), n4 (10.0.0.4) and 2 more"), "{many}");
        assert!(many.contains("they are there") && many.contains("; 10.0.0.254 refuses it;"), "{many}");
    }
}
