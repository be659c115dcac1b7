//! The sets that rules look into, named by what they hold.

use crate::index::{Index, ItemId};
use crate::model::{NamedPort, PodSelector, Protocol, Ranges, Selector};
use crate::ruleset::{Family, Field, Key, KeyType, Name, Set, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Addresses of these pods.
    Pods(PodSelector),
    /// `address . protocol . port` of these pods' ports of this name.
    Ports(PodSelector, Protocol, String),
    /// Addresses of these nodes.
    Nodes(Selector),
    /// Address ranges.
    Block(Ranges),
}

/// A set of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetSpec {
    /// What it holds.
    pub(super) content: Content,
    /// Of which family.
    pub(super) family: Family,
}

impl SetSpec {
    /// Its name: equal content has an equal name, on every node and after every restart.
    pub(super) fn name(&self) -> Name {
        let kind = match self.content {
            Content::Pods(_) => "sel",
            Content::Ports(..) => "np",
            Content::Nodes(_) => "node",
            Content::Block(_) => "cidr",
        };
        let family = if self.family == Family::V4 { "4" } else { "6" };
        Name::from(format!("{kind}{family}_{}", digest(&self.content)))
    }

    /// The selector of pods that its elements follow.
    pub(super) fn selector(&self) -> Option<&PodSelector> {
        match &self.content {
            Content::Pods(selector) | Content::Ports(selector, ..) => Some(selector),
            Content::Nodes(_) | Content::Block(_) => None,
        }
    }

    /// The set without elements of pods.
    pub(super) fn declare(&self) -> Set {
        let address = if self.family == Family::V4 { KeyType::V4 } else { KeyType::V6 };
        match &self.content {
            Content::Pods(selector) => Set::of([address]).comment(short(selector.to_string())),
            Content::Ports(selector, protocol, name) => Set::of([address, KeyType::Protocol, KeyType::Port])
                .comment(short(format!("port {name}/{protocol} of {selector}"))),
            Content::Nodes(selector) => Set::of([address]).comment(short(format!("nodes {selector}"))),
            Content::Block(ranges) => Set::of([address]).interval().with(range_elements(ranges, self.family)),
        }
    }

    /// What a pod with these addresses and ports contributes.
    pub(super) fn elements(&self, addresses: &[IpAddr], ports: &[NamedPort]) -> Vec<Key> {
        let mine = addresses.iter().filter(|a| a.is_ipv4() == (self.family == Family::V4));
        match &self.content {
            Content::Nodes(_) | Content::Block(_) => Vec::new(),
            Content::Pods(_) => mine.map(|a| Key::addr(*a)).collect(),
            Content::Ports(_, protocol, name) => {
                let named: Vec<u16> =
                    ports.iter().filter(|p| p.protocol == *protocol && p.name == *name).map(|p| p.port).collect();
                let key = |a: &IpAddr, port| Key::addr(*a).and_protocol(protocol.0).and_port(port);
                mine.flat_map(|a| named.iter().map(move |port| key(a, *port))).collect()
            }
        }
    }

    /// What all these pods contribute.
    pub(super) fn fill(&self, index: &Index, pods: impl Iterator<Item = ItemId>) -> BTreeMap<Key, Value> {
        pods.filter_map(|id| index.owned(id))
            .flat_map(|(pod, owned)| self.elements(&owned, &pod.ports))
            .map(|key| (key, Value::Plain))
            .collect()
    }

    /// Its elements if it is one of nodes' addresses.
    pub(super) fn of_nodes(&self, index: &Index) -> Option<BTreeMap<Key, Value>> {
        let Content::Nodes(selector) = &self.content else { return None };
        let nodes = index.nodes().iter().filter(|node| selector.matches(&node.labels));
        let mine = nodes.flat_map(|node| &node.known_as).filter(|a| a.is_ipv4() == (self.family == Family::V4));
        Some(mine.map(|address| (Key::addr(*address), Value::Plain)).collect())
    }

    /// The fields of a packet that are looked up in it, for its source or its destination.
    pub(super) fn key(&self, source: bool) -> Vec<Field> {
        let address = match (self.family, source) {
            (Family::V4, true) => Field::SourceV4,
            (Family::V4, false) => Field::DestinationV4,
            (Family::V6, true) => Field::SourceV6,
            (Family::V6, false) => Field::DestinationV6,
        };
        match self.content {
            Content::Ports(..) => vec![address, Field::Protocol, Field::DestinationPort],
            _ => vec![address],
        }
    }
}

/// Ranges of one family as elements of an interval set.
pub(super) fn range_elements(ranges: &Ranges, family: Family) -> BTreeMap<Key, Value> {
    match family {
        Family::V4 => ranges.v4().map(|(a, b)| Key::range(a.into(), b.into())).collect(),
        Family::V6 => ranges.v6().map(|(a, b)| Key::range(a.into(), b.into())).collect(),
    }
}

/// 16 hex digits that stand for a value: `Debug` quotes every string, so different values have different texts.
pub(super) fn digest(value: &impl Debug) -> String {
    let hash = Sha256::digest(format!("{value:?}").as_bytes());
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Cut to what the kernel keeps of a comment.
pub(super) fn short(mut text: String) -> String {
    const KEPT: usize = 120;
    if text.len() > KEPT {
        let end = (0..=KEPT).rev().find(|i| text.is_char_boundary(*i)).unwrap_or_default();
        text.truncate(end);
    }
    text
}
