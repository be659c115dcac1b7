//! Attribute sets on their way out: the canonical form, edited, in the width of AS numbers that the peer understands.

use super::AS_TRANS;
use super::as_path::{AsPath, two_octet};
use super::attributes::Attributes;
use super::block::{Attribute, Walk, class, flag, kind, put, put_head};
use std::net::Ipv4Addr;

/// What becomes of an optional value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Value<T> {
    /// Stays as it is, absent or present.
    #[default]
    Keep,
    /// Is this.
    Set(T),
    /// Is this unless there is one.
    Default(T),
    /// Is left out.
    Remove,
}

impl<T> Value<T> {
    fn apply(self, present: Option<T>) -> Option<T> {
        match self {
            Value::Keep => present,
            Value::Set(value) => Some(value),
            Value::Default(value) => present.or(Some(value)),
            Value::Remove => None,
        }
    }
}

/// What becomes of ORIGINATOR_ID and CLUSTER_LIST (RFC 4456 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Reflection {
    /// They stay.
    #[default]
    Keep,
    /// They are left out: to eBGP peers.
    Remove,
    /// The route is reflected: ORIGINATOR_ID is added unless present, `cluster` is put before CLUSTER_LIST.
    Add {
        /// BGP Identifier of the peer that sent the route.
        originator: Ipv4Addr,
        /// Our cluster.
        cluster: Ipv4Addr,
    },
}

/// Changes to an attribute set. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'a> {
    /// First, every occurrence of the former AS becomes the latter (as-override).
    pub replace_as: Option<(u32, u32)>,
    /// Then this AS is put before the path, so many times.
    pub prepend: Option<(u32, u8)>,
    /// MULTI_EXIT_DISC.
    pub med: Value<u32>,
    /// LOCAL_PREF.
    pub local_pref: Value<u32>,
    /// COMMUNITIES; an empty list removes them.
    pub communities: Value<&'a [[u8; 4]]>,
    /// LARGE_COMMUNITY; an empty list removes them.
    pub large_communities: Value<&'a [[u8; 12]]>,
    /// ORIGINATOR_ID and CLUSTER_LIST.
    pub reflection: Reflection,
    /// Leave out extended communities that do not cross an AS boundary (RFC 4360 section 2: bit 0x40 of the type).
    pub drop_non_transitive: bool,
}

impl Edits<'_> {
    /// To an eBGP peer, with our `asn` before the path (RFC 4271 sections 5.1.2 to 5.1.5).
    #[must_use]
    pub fn to_ebgp(asn: u32) -> Self {
        Edits {
            prepend: Some((asn, 1)),
            med: Value::Remove,
            local_pref: Value::Remove,
            reflection: Reflection::Remove,
            drop_non_transitive: true,
            ..Edits::default()
        }
    }

    /// To an iBGP peer: LOCAL_PREF is always there.
    #[must_use]
    pub fn to_ibgp(local_pref: u32) -> Self {
        Edits { local_pref: Value::Default(local_pref), ..Edits::default() }
    }
}

impl Attributes<'_> {
    /// Appends the edited set as an attribute block for [`super::UpdateBuilder`]. With `four_octet_as` the block is
    /// canonical itself, so this also makes the set of an own route: edits of [`Attributes::default`].
    pub fn export(&self, edits: &Edits<'_>, four_octet_as: bool, out: &mut Vec<u8>) {
        let mut writer = Writer { attributes: self, edits, path: Vec::new(), four_octet_as, out };
        edited_path(self.as_path, edits, &mut writer.path);
        let mut rest = Walk::new(self.bytes).map_while(Result::ok).peekable();
        for kind in EDITABLE {
            while let Some(other) = rest.next_if(|attribute| attribute.kind < kind) {
                writer.out.extend_from_slice(other.whole);
            }
            let existing = rest.next_if(|attribute| attribute.kind == kind);
            writer.attribute(kind, existing.as_ref());
        }
        for other in rest {
            writer.out.extend_from_slice(other.whole);
        }
    }
}

/// Attributes that an edit, or the width of AS numbers, may change, ascending.
const EDITABLE: [u8; 12] = [
    kind::ORIGIN,
    kind::AS_PATH,
    kind::MULTI_EXIT_DISC,
    kind::LOCAL_PREF,
    kind::AGGREGATOR,
    kind::COMMUNITIES,
    kind::ORIGINATOR_ID,
    kind::CLUSTER_LIST,
    kind::EXTENDED_COMMUNITIES,
    kind::AS4_PATH,
    kind::AS4_AGGREGATOR,
    kind::LARGE_COMMUNITIES,
];

struct Writer<'a, 'b> {
    attributes: &'a Attributes<'a>,
    edits: &'a Edits<'a>,
    /// The edited AS_PATH, four octets a number.
    path: Vec<u8>,
    four_octet_as: bool,
    out: &'b mut Vec<u8>,
}

impl Writer<'_, '_> {
    /// Writes the attribute of `kind`, if the edited set has it. `existing` is what the canonical bytes have.
    fn attribute(&mut self, kind: u8, existing: Option<&Attribute<'_>>) {
        let Writer { attributes, edits, four_octet_as, .. } = *self;
        let flags = class(kind) | existing.map_or(0, |attribute| attribute.flags & flag::PARTIAL);
        match kind {
            kind::ORIGIN => put(self.out, flags, kind, &[attributes.origin as u8]),
            kind::AS_PATH if four_octet_as => put(self.out, flags, kind, &self.path),
            kind::AS_PATH => put(self.out, flags, kind, &two_octet::shorten(AsPath(&self.path)).0),
            kind::MULTI_EXIT_DISC => self.number(kind, edits.med.apply(attributes.med)),
            kind::LOCAL_PREF => self.number(kind, edits.local_pref.apply(attributes.local_pref)),
            kind::AGGREGATOR => self.aggregator(flags),
            kind::COMMUNITIES => {
                let list = edits.communities.apply(Some(attributes.communities)).unwrap_or(&[]);
                self.list(flags, kind, list.as_flattened());
            }
            kind::LARGE_COMMUNITIES => {
                let list = edits.large_communities.apply(Some(attributes.large_communities)).unwrap_or(&[]);
                self.list(flags, kind, list.as_flattened());
            }
            kind::EXTENDED_COMMUNITIES => self.extended_communities(flags),
            kind::ORIGINATOR_ID | kind::CLUSTER_LIST => self.reflection(kind),
            // RFC 6793 section 4.2.2: only where two octets lose something.
            kind::AS4_PATH if !four_octet_as && two_octet::shorten(AsPath(&self.path)).1 => {
                put(self.out, flags, kind, &self.path);
            }
            kind::AS4_AGGREGATOR if !four_octet_as => {
                if let Some(aggregator) = attributes.aggregator.filter(|a| a.asn > u32::from(u16::MAX)) {
                    put_head(self.out, flags, kind, 8);
                    self.out.extend_from_slice(&aggregator.asn.to_be_bytes());
                    self.out.extend_from_slice(&aggregator.address.octets());
                }
            }
            _ => {}
        }
    }

    fn number(&mut self, kind: u8, value: Option<u32>) {
        if let Some(value) = value {
            put(self.out, class(kind), kind, &value.to_be_bytes());
        }
    }

    fn list(&mut self, flags: u8, kind: u8, list: &[u8]) {
        if !list.is_empty() {
            put(self.out, flags, kind, list);
        }
    }

    fn aggregator(&mut self, flags: u8) {
        let Some(aggregator) = self.attributes.aggregator else { return };
        put_head(self.out, flags, kind::AGGREGATOR, if self.four_octet_as { 8 } else { 6 });
        if self.four_octet_as {
            self.out.extend_from_slice(&aggregator.asn.to_be_bytes());
        } else {
            self.out.extend_from_slice(&u16::try_from(aggregator.asn).unwrap_or(AS_TRANS).to_be_bytes());
        }
        self.out.extend_from_slice(&aggregator.address.octets());
    }

    fn extended_communities(&mut self, flags: u8) {
        let all = self.attributes.extended_communities;
        let stays = |community: &&[u8; 8]| !self.edits.drop_non_transitive || community[0] & 0x40 == 0;
        let length = all.iter().filter(stays).count() * 8;
        if length == 0 {
            return;
        }
        put_head(self.out, flags, kind::EXTENDED_COMMUNITIES, length);
        for community in all.iter().filter(stays) {
            self.out.extend_from_slice(community);
        }
    }

    fn reflection(&mut self, kind: u8) {
        let Writer { attributes, edits, .. } = *self;
        let present = attributes.originator_id.map(u32::from);
        match (kind, edits.reflection) {
            (_, Reflection::Remove) => {}
            (kind::ORIGINATOR_ID, Reflection::Keep) => self.number(kind, present),
            (kind::ORIGINATOR_ID, Reflection::Add { originator, .. }) => {
                self.number(kind, present.or(Some(u32::from(originator))));
            }
            (_, Reflection::Keep) => self.list(class(kind), kind, attributes.cluster_list.as_flattened()),
            (_, Reflection::Add { cluster, .. }) => {
                let list = attributes.cluster_list.as_flattened();
                put_head(self.out, class(kind), kind, 4 + list.len());
                self.out.extend_from_slice(&cluster.octets());
                self.out.extend_from_slice(list);
            }
        }
    }
}

/// Appends the path with its edits. A sequence takes 255 numbers; what is put before a full one begins a new one (RFC
/// 4271 section 5.1.2).
fn edited_path(path: AsPath<'_>, edits: &Edits<'_>, out: &mut Vec<u8>) {
    let mut segments = path.segments().peekable();
    if let Some((asn, times)) = edits.prepend.filter(|(_, times)| *times > 0) {
        let times = usize::from(times);
        let joined = segments.next_if(|segment| !segment.set && segment.asns.len() + times <= 255);
        let behind = joined.map_or(&[][..], |segment| segment.asns);
        out.extend_from_slice(&[2, u8::try_from(times + behind.len()).unwrap_or(u8::MAX)]);
        for _ in 0..times {
            out.extend_from_slice(&asn.to_be_bytes());
        }
        put_asns(behind, edits.replace_as, out);
    }
    for segment in segments {
        let count = u8::try_from(segment.asns.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[if segment.set { 1 } else { 2 }, count]);
        put_asns(segment.asns, edits.replace_as, out);
    }
}

fn put_asns(asns: &[[u8; 4]], replace: Option<(u32, u32)>, out: &mut Vec<u8>) {
    let Some((old, new)) = replace else { return out.extend_from_slice(asns.as_flattened()) };
    for asn in asns {
        let asn = u32::from_be_bytes(*asn);
        out.extend_from_slice(&(if asn == old { new } else { asn }).to_be_bytes());
    }
}
