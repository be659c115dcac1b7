//! Who is behind an address, and whose rule a chain holds: what the kernel tells of, in the words of people.

use super::Compiler;
use crate::model::{Direction, PodKey, PolicyKey};
use std::net::IpAddr;

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// A pod with a network of its own.
    Pod(&'a PodKey),
    /// A node, by its name.
    Node(&'a str),
    /// Nobody of the cluster.
    Outside,
}

/// Whose list of policy a chain is for a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blame {
    /// What the packet is to the pod.
    pub direction: Direction,
    /// The pod that the list is about.
    pub pod: PodKey,
    /// Policies that govern it in this direction, in the order in which they are judged.
    pub policies: Vec<PolicyKey>,
}

impl Compiler {
    /// Who has an address.
    #[must_use]
    pub fn who(&self, address: IpAddr) -> Who<'_> {
        if let Some(pod) = self.index.owner(address) {
            return Who::Pod(&pod.key);
        }
        let node = self.index.nodes().iter().find(|node| node.known_as.contains(&address));
        node.map_or(Who::Outside, |node| Who::Node(&node.name))
    }

    /// Whose list a chain is, for a packet between these interfaces of workloads; none if it is of neither. A list that both have is the
    /// sender's: it is asked first.
    #[must_use]
    pub fn blame(&self, chain: &str, from: Option<&str>, to: Option<&str>) -> Option<Blame> {
        let one = |ifname: Option<&str>, direction| self.blame_of(chain, ifname?, direction);
        one(from, Direction::Egress).or_else(|| one(to, Direction::Ingress))
    }

    /// Everybody whose list a chain is, with the interface.
    #[must_use]
    pub fn users(&self, chain: &str) -> Vec<(&str, Blame)> {
        let both = [Direction::Egress, Direction::Ingress];
        let all = self.endpoints.keys().flat_map(|ifname| both.map(|direction| (ifname.as_str(), direction)));
        all.filter_map(|(ifname, direction)| Some((ifname, self.blame_of(chain, ifname, direction)?))).collect()
    }

    /// The pod behind an interface here, if the interface is open.
    #[must_use]
    pub fn behind(&self, ifname: &str) -> Option<&PodKey> {
        self.index.behind(ifname).map(|(pod, _)| pod)
    }

    fn blame_of(&self, chain: &str, ifname: &str, direction: Direction) -> Option<Blame> {
        let state = self.endpoints.get(ifname)?;
        let mut list = if direction == Direction::Egress { state.egress.as_ref() } else { state.ingress.as_ref() };
        while list?.as_ref() != chain {
            list = self.chains.get(list?)?.next.as_ref();
        }
        let (pod, id) = self.index.behind(ifname)?;
        let policies = self.index.governing(id, direction).into_iter().map(|policy| policy.key.clone()).collect();
        Some(Blame { direction, pod: pod.clone(), policies })
    }
}
