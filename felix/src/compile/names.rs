//! Who is behind an address, and whose rule a chain holds: what the kernel tells of, in the words of people.

use super::Compiler;
use crate::model::{Direction, PodKey, PolicyKey};
use crate::ruleset::Name;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

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

/// One whose list some chains are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The interface of the pod.
    pub interface: String,
    /// The pod, the direction, the policies.
    pub blame: Blame,
}

/// Whose lists chains are.
#[derive(Debug, Default)]
pub struct Users {
    all: Vec<User>,
    of: BTreeMap<Name, Vec<usize>>,
}

impl Users {
    /// Everybody whose list a chain is, by interface.
    pub fn of(&self, chain: &str) -> impl Iterator<Item = &User> {
        self.of.get(chain).into_iter().flatten().filter_map(|user| self.all.get(*user))
    }
}

impl Compiler {
    /// Who has an address.
    #[must_use]
    pub fn who(&self, address: IpAddr) -> Who<'_> {
        if let Some(pod) = self.index.owner(address) {
            return Who::Pod(&pod.key);
        }
        let node = self.index.nodes().iter().find(|node| node.speaks_from(address));
        node.map_or(Who::Outside, |node| Who::Node(&node.name))
    }

    /// Whose list a chain is, for a packet between these interfaces of workloads; none if it is of neither. A list that both have is the
    /// sender's: it is asked first.
    #[must_use]
    pub fn blame(&self, chain: &str, from: Option<&str>, to: Option<&str>) -> Option<Blame> {
        let one = |ifname: Option<&str>, direction| self.blame_of(chain, ifname?, direction);
        one(from, Direction::Egress).or_else(|| one(to, Direction::Ingress))
    }

    /// Whose lists all chains are, as of the last commit. Made when it is asked for, once after each commit.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        self.users.get_or_init(|| Arc::new(self.all_users())).clone()
    }

    fn all_users(&self) -> Users {
        let mut users = Users::default();
        for (interface, state) in &self.endpoints {
            for (direction, head) in [(Direction::Egress, &state.egress), (Direction::Ingress, &state.ingress)] {
                let Some(blame) = head.as_ref().and_then(|_| self.judged(interface, direction)) else { continue };
                let user = users.all.len();
                users.all.push(User { interface: interface.clone(), blame });
                for chain in self.ways(head.as_ref()) {
                    users.of.entry(chain.clone()).or_default().push(user);
                }
            }
        }
        users
    }

    /// A list's chains, from its first on.
    fn ways<'a>(&'a self, head: Option<&'a Name>) -> impl Iterator<Item = &'a Name> {
        std::iter::successors(head, |name| self.chains.get(*name)?.next.as_ref())
    }

    /// The pod behind an interface here, if the interface is open.
    #[must_use]
    pub fn behind(&self, ifname: &str) -> Option<&PodKey> {
        self.index.behind(ifname).map(|(pod, _)| pod)
    }

    fn blame_of(&self, chain: &str, ifname: &str, direction: Direction) -> Option<Blame> {
        let state = self.endpoints.get(ifname)?;
        let head = if direction == Direction::Egress { state.egress.as_ref() } else { state.ingress.as_ref() };
        self.ways(head).find(|name| name.as_ref() == chain)?;
        self.judged(ifname, direction)
    }

    /// The pod behind an interface, and what judges it in one direction.
    fn judged(&self, ifname: &str, direction: Direction) -> Option<Blame> {
        let (pod, id) = self.index.behind(ifname)?;
        let policies = self.index.governing(id, direction).into_iter().map(|policy| policy.key.clone()).collect();
        Some(Blame { direction, pod: pod.clone(), policies })
    }
}
