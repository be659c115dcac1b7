//! Who is at one end of a change, for people and programs.

use super::classes::Class;
use crate::evaluate::fix::lasting_labels;
use crate::model::{PodKey, Ranges};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Ends of connections that fare alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Pods, where policies of pods are compared of one namespace.
    Pods {
        /// Their names.
        pods: BTreeSet<PodKey>,
        /// Labels that all of them have.
        labels: BTreeMap<String, String>,
        /// Their addresses that are meant.
        addresses: BTreeSet<IpAddr>,
    },
    /// Nodes.
    Nodes {
        /// Their names.
        nodes: BTreeSet<String>,
        /// Their addresses that are meant.
        addresses: BTreeSet<IpAddr>,
    },
    /// Outside the cluster.
    Outside {
        /// Where; addresses of pods and nodes in there are not meant.
        ranges: Ranges,
        /// Whether it is all of a family that no policy names.
        unnamed: bool,
    },
}

impl Group {
    pub(super) fn of(class: &Class<'_>) -> Self {
        if let Some(ranges) = &class.outside {
            return Self::Outside { ranges: ranges.clone(), unnamed: class.unnamed };
        }
        let addresses = class.ends.iter().map(|end| end.address).collect();
        let pods: BTreeSet<PodKey> = class.ends.iter().filter_map(|end| Some(end.pod?.key.clone())).collect();
        if pods.is_empty() {
            let nodes = class.ends.iter().filter_map(|end| end.node).map(str::to_owned).collect();
            return Self::Nodes { nodes, addresses };
        }
        let mut all = class.ends.iter().filter_map(|end| end.pod);
        let of_one = |pod: &crate::model::Pod| {
            lasting_labels(&pod.labels).map(|(k, v)| (k.clone(), v.clone())).collect::<BTreeMap<_, _>>()
        };
        let mut labels = all.next().map(of_one).unwrap_or_default();
        all.for_each(|pod| labels.retain(|key, value| pod.labels.get(key) == Some(value)));
        Self::Pods { pods, labels, addresses }
    }

    /// What it is, apart from families.
    pub(super) fn name(&self) -> (BTreeSet<PodKey>, BTreeSet<String>, Option<Ranges>) {
        match self {
            Self::Pods { pods, .. } => (pods.clone(), BTreeSet::new(), None),
            Self::Nodes { nodes, .. } => (BTreeSet::new(), nodes.clone(), None),
            Self::Outside { unnamed: true, .. } => (BTreeSet::new(), BTreeSet::new(), None),
            Self::Outside { ranges, .. } => (BTreeSet::new(), BTreeSet::new(), Some(ranges.clone())),
        }
    }

    /// Takes in the addresses of another group of the same name.
    pub(super) fn join(&mut self, other: Self) {
        match (self, other) {
            (Self::Pods { addresses, .. }, Self::Pods { addresses: more, .. })
            | (Self::Nodes { addresses, .. }, Self::Nodes { addresses: more, .. }) => addresses.extend(more),
            (Self::Outside { ranges, .. }, Self::Outside { ranges: more, .. }) => {
                *ranges = Ranges::union([&*ranges, &more]);
            }
            _ => {}
        }
    }

    /// Whether the address is meant; `inside`: it is a pod's or a node's.
    pub(super) fn has(&self, address: IpAddr, inside: bool) -> bool {
        match self {
            Self::Pods { addresses, .. } | Self::Nodes { addresses, .. } => addresses.contains(&address),
            Self::Outside { ranges, .. } => !inside && ranges.contains(address),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pods { pods, labels, .. } => {
                f.write_str(&few(pods))?;
                if pods.len() > 1 && !labels.is_empty() {
                    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    write!(f, " [{}]", labels.join(","))?;
                }
                Ok(())
            }
            Self::Nodes { nodes, .. } if nodes.len() == 1 => write!(f, "node {}", few(nodes)),
            Self::Nodes { nodes, .. } => write!(f, "nodes {}", few(nodes)),
            Self::Outside { unnamed: true, .. } => f.write_str("outside, where no policy names it"),
            Self::Outside { ranges, .. } => {
                let all = ranges.to_string();
                let all: Vec<&str> = all.split(", ").collect();
                write!(f, "outside in {}", few(&all))
            }
        }
    }
}

/// The first few, and how many more.
fn few<'a, T: fmt::Display + 'a>(all: impl IntoIterator<Item = &'a T>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<String> = all.into_iter().map(T::to_string).collect();
    let shown = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN { format!("{shown} and {} more", all.len() - SHOWN) } else { shown }
}
