//! The sets that rules look into, named by what they hold.
//!
//! What follows pods or nodes has a set of its own, which people can read with `nft list set`, as long as there are few: the kernel finds
//! sets of a table by walking a list. Where there are many, all of a kind and family share one set, whose keys begin with a number that
//! stands for the content ([`Layout`]).

use crate::index::{Index, ItemId};
use crate::model::{NamedPort, PodSelector, Protocol, Ranges, Selector};
use crate::ruleset::{Family, Field, Key, KeyType, Name, Set, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Addresses of these pods.
    Pods(PodSelector),
    /// `address . protocol . port` of these pods' ports of this name.
    Ports(PodSelector, Protocol, String),
    /// Addresses of these nodes.
    Nodes(Selector),
    /// Those and the addresses from which they speak into tunnels.
    SentByNodes(Selector),
    /// Address ranges.
    Block(Ranges),
    /// Ranges of ports, of whichever protocol and family.
    Numbers(Vec<RangeInclusive<u16>>),
}

/// Whether contents share sets. Blocks never do: ranges beside another field of the key cost the kernel far more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each has its own.
    #[default]
    Own,
    /// All of a kind and family share one.
    Shared,
}

/// Where elements of one content stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// The kernel's set.
    pub(super) set: Name,
    /// What their keys begin with, in a set that contents share.
    pub(super) selector: Option<u64>,
}

impl Slot {
    /// All of a set.
    pub(super) fn whole(set: Name) -> Slot {
        Slot { set, selector: None }
    }
}

/// A content of one family, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetSpec {
    content: Content,
    family: Family,
    slot: Slot,
}

impl SetSpec {
    /// Equal content has an equal place, on every node and after every restart.
    pub(super) fn new(content: Content, family: Family, layout: Layout) -> SetSpec {
        let kind = match content {
            Content::Pods(_) => "sel",
            Content::Ports(..) => "np",
            Content::Nodes(_) | Content::SentByNodes(_) => "node",
            Content::Block(_) => "cidr",
            Content::Numbers(_) => "ports",
        };
        let digit = if family == Family::V4 { 4 } else { 6 };
        let number = number(&content);
        let slot = match (layout, &content) {
            (_, Content::Numbers(_)) => Slot::whole(Name::from(format!("{kind}_{number:016x}"))),
            (Layout::Own, _) | (Layout::Shared, Content::Block(_)) => {
                Slot::whole(Name::from(format!("{kind}{digit}_{number:016x}")))
            }
            (Layout::Shared, _) => Slot { set: Name::from(format!("{kind}{digit}_all")), selector: Some(number) },
        };
        SetSpec { content, family, slot }
    }

    /// Of ports, for both families.
    pub(super) fn numbers(ranges: Vec<RangeInclusive<u16>>) -> SetSpec {
        Self::new(Content::Numbers(ranges), Family::V4, Layout::Own)
    }

    /// Of which family its addresses are.
    pub(super) fn family(&self) -> Family {
        self.family
    }

    /// Where its elements stand.
    pub(super) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Whether it could share a set with others.
    pub(super) fn may_share(&self) -> bool {
        !matches!(self.content, Content::Block(_) | Content::Numbers(_))
    }

    /// The selector of pods that its elements follow.
    pub(super) fn selector(&self) -> Option<&PodSelector> {
        match &self.content {
            Content::Pods(selector) | Content::Ports(selector, ..) => Some(selector),
            Content::Nodes(_) | Content::SentByNodes(_) | Content::Block(_) | Content::Numbers(_) => None,
        }
    }

    /// The set that it stands in, without elements of pods and nodes.
    pub(super) fn declare(&self) -> Set {
        let address = if self.family == Family::V4 { KeyType::V4 } else { KeyType::V6 };
        let mut key = vec![address];
        if let Content::Ports(..) = self.content {
            key.extend([KeyType::Protocol, KeyType::Port]);
        }
        if self.slot.selector.is_some() {
            key.insert(0, KeyType::Selector);
            return Set::of(key).comment("keys begin with which selector it is");
        }
        match &self.content {
            Content::Pods(selector) => Set::of(key).comment(short(selector.to_string())),
            Content::Ports(selector, protocol, name) => {
                Set::of(key).comment(short(format!("port {name}/{protocol} of {selector}")))
            }
            Content::Nodes(selector) => Set::of(key).comment(short(format!("nodes {selector}"))),
            Content::SentByNodes(selector) => Set::of(key).comment(short(format!("nodes {selector}, also by tunnel"))),
            Content::Block(ranges) => Set::of(key).interval().with(range_elements(ranges, self.family)),
            Content::Numbers(ranges) => Set::of([KeyType::Port]).interval().with(ranges.iter().map(Key::ports)),
        }
    }

    /// In a shared set, what says that this content stands there, even if it is empty; no packet has this address.
    pub(super) fn marker(&self) -> Option<Key> {
        self.slot.selector?;
        let nobody: IpAddr =
            if self.family == Family::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let key = self.of_address(nobody);
        Some(if let Content::Ports(..) = self.content { key.and_protocol(0).and_port(0) } else { key })
    }

    fn of_address(&self, address: IpAddr) -> Key {
        match self.slot.selector {
            Some(selector) => Key::selector(selector).and_addr(address),
            None => Key::addr(address),
        }
    }

    /// What a pod with these addresses and ports contributes.
    pub(super) fn elements(&self, addresses: &[IpAddr], ports: &[NamedPort]) -> Vec<Key> {
        let mine = addresses.iter().filter(|a| a.is_ipv4() == (self.family == Family::V4));
        match &self.content {
            Content::Nodes(_) | Content::SentByNodes(_) | Content::Block(_) | Content::Numbers(_) => Vec::new(),
            Content::Pods(_) => mine.map(|a| self.of_address(*a)).collect(),
            Content::Ports(_, protocol, name) => {
                let named: Vec<u16> =
                    ports.iter().filter(|p| p.protocol == *protocol && p.name == *name).map(|p| p.port).collect();
                let key = |a: &IpAddr, port| self.of_address(*a).and_protocol(protocol.0).and_port(port);
                mine.flat_map(|a| named.iter().map(move |port| key(a, *port))).collect()
            }
        }
    }

    /// What all these pods contribute.
    pub(super) fn fill(&self, index: &Index, pods: impl Iterator<Item = ItemId>) -> BTreeMap<Key, Value> {
        pods.filter_map(|id| index.owned(id))
            .flat_map(|(pod, owned)| self.elements(&owned, &pod.ports))
            .chain(self.marker())
            .map(|key| (key, Value::Plain))
            .collect()
    }

    /// Its elements if it is one of nodes' addresses.
    pub(super) fn of_nodes(&self, index: &Index) -> Option<BTreeMap<Key, Value>> {
        let (selector, sent) = match &self.content {
            Content::Nodes(selector) => (selector, false),
            Content::SentByNodes(selector) => (selector, true),
            Content::Pods(_) | Content::Ports(..) | Content::Block(_) | Content::Numbers(_) => return None,
        };
        let nodes = index.nodes().iter().filter(|node| selector.matches(&node.labels));
        let all = nodes.flat_map(|node| node.known_as.iter().chain(node.tunnels.iter().filter(move |_| sent)));
        let mine = all.filter(|a| a.is_ipv4() == (self.family == Family::V4));
        let keys = mine.map(|address| self.of_address(*address)).chain(self.marker());
        Some(keys.map(|key| (key, Value::Plain)).collect())
    }

    /// The fields of a packet that are looked up in it, for its source or its destination.
    pub(super) fn key(&self, source: bool) -> Vec<Field> {
        let address = match (self.family, source) {
            (Family::V4, true) => Field::SourceV4,
            (Family::V4, false) => Field::DestinationV4,
            (Family::V6, true) => Field::SourceV6,
            (Family::V6, false) => Field::DestinationV6,
        };
        let mut key: Vec<Field> = self.slot.selector.map(Field::Selector).into_iter().collect();
        key.push(address);
        if let Content::Ports(..) = self.content {
            key.extend([Field::Protocol, Field::DestinationPort]);
        }
        key
    }
}

/// Ranges of one family as elements of an interval set.
pub(super) fn range_elements(ranges: &Ranges, family: Family) -> BTreeMap<Key, Value> {
    match family {
        Family::V4 => ranges.v4().map(|(a, b)| Key::range(a.into(), b.into())).collect(),
        Family::V6 => ranges.v6().map(|(a, b)| Key::range(a.into(), b.into())).collect(),
    }
}

/// A number that stands for a value: `Debug` quotes every string, so different values have different texts.
fn number(value: &impl Debug) -> u64 {
    let hash = Sha256::digest(format!("{value:?}").as_bytes());
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The same as 16 hex digits.
pub(super) fn digest(value: &impl Debug) -> String {
    format!("{:016x}", number(value))
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
