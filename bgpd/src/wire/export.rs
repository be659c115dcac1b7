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
    /// EXTENDED COMMUNITIES; an empty list removes them.
    pub extended_communities: Value<&'a [[u8; 8]]>,
    /// Only to Customer (RFC 9234).
    pub only_to_customer: Value<u32>,
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
const EDITABLE: [u8; 13] = [
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
    kind::ONLY_TO_CUSTOMER,
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
            kind::ONLY_TO_CUSTOMER => {
                if let Some(asn) = edits.only_to_customer.apply(attributes.only_to_customer) {
                    put(self.out, flags, kind, &asn.to_be_bytes());
                }
            }
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
        let present = Some(self.attributes.extended_communities);
        let all = self.edits.extended_communities.apply(present).unwrap_or(&[]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Origin;

    /// ORIGIN, AS_PATH 65001 {65002}, MED, LOCAL_PREF, COMMUNITIES, an unknown one.
    const SET: &[u8] = &[
        0x40, 1, 1, 2, 0x40, 2, 12, 2, 1, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0xfd, 0xea, 0x80, 4, 4, 0, 0, 0, 7, 0x40, 5, 4,
        0, 0, 0, 100, 0xc0, 8, 4, 0xfd, 0xe9, 0, 1, 0xc0, 16, 16, 0, 2, 0, 1, 0, 0, 0, 1, 0x43, 0, 0, 1, 0, 0, 0, 2,
        0xe0, 250, 1, 9,
    ];

    fn export(set: &[u8], edits: &Edits<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        Attributes::from_canonical(set).export(edits, true, &mut out);
        out
    }

    #[test]
    fn without_edits_nothing_changes() {
        assert_eq!(export(SET, &Edits::default()), SET);
    }

    #[test]
    fn to_an_ebgp_peer_goes_our_as_and_nothing_internal() {
        let out = export(SET, &Edits::to_ebgp(4_200_000_000));
        let read = Attributes::from_canonical(&out);
        assert_eq!(read.as_path.to_string(), "4200000000 65001 {65002}");
        assert_eq!((read.med, read.local_pref), (None, None));
        assert_eq!(read.extended_communities, [[0, 2, 0, 1, 0, 0, 0, 1]], "0x43 is not transitive");
        assert_eq!((read.communities, &out[out.len() - 4..]), (&[[0xfd, 0xe9, 0, 1]][..], &[0xe0, 250, 1, 9][..]));
        let kept = export(SET, &Edits { med: Value::Keep, ..Edits::to_ebgp(1) });
        assert_eq!(Attributes::from_canonical(&kept).med, Some(7));
    }

    #[test]
    fn to_an_ibgp_peer_goes_local_pref_always() {
        assert_eq!(export(SET, &Edits::to_ibgp(200)), SET);
        let own = Attributes { origin: Origin::Igp, ..Attributes::default() };
        let mut out = Vec::new();
        own.export(&Edits::to_ibgp(200), true, &mut out);
        assert_eq!(out, [0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 200]);
    }

    #[test]
    fn prepending_begins_a_new_segment_before_a_set_and_before_a_full_one() {
        let path = |asns: usize| {
            let mut path = vec![2, u8::try_from(asns).expect("short")];
            (0..asns).for_each(|_| path.extend_from_slice(&[0, 0, 0, 9]));
            path
        };
        let prepended = |path: &[u8], times| {
            let mut out = Vec::new();
            edited_path(AsPath(path), &Edits { prepend: Some((5, times)), ..Edits::default() }, &mut out);
            out
        };
        assert_eq!(prepended(&[], 1), [2, 1, 0, 0, 0, 5]);
        assert_eq!(prepended(&[1, 1, 0, 0, 0, 9], 1), [2, 1, 0, 0, 0, 5, 1, 1, 0, 0, 0, 9]);
        assert_eq!(prepended(&path(254), 1)[..2], [2, 255]);
        let full = prepended(&path(255), 1);
        assert_eq!(full[..8], [2, 1, 0, 0, 0, 5, 2, 255]);
        assert_eq!(AsPath(&prepended(&path(250), 6)).segments().map(|s| s.asns.len()).collect::<Vec<_>>(), [6, 250]);
        assert_eq!(prepended(&path(3), 0), path(3));
    }

    #[test]
    fn as_override_replaces_every_occurrence_of_the_peers_as() {
        let edits = Edits { replace_as: Some((65002, 65000)), ..Edits::to_ebgp(65000) };
        assert_eq!(Attributes::from_canonical(&export(SET, &edits)).as_path.to_string(), "65000 65001 {65000}");
    }

    #[test]
    fn reflection_adds_the_originator_once_and_every_cluster() {
        let add = |originator: u8, cluster: u8| Edits {
            reflection: Reflection::Add {
                originator: [1, 1, 1, originator].into(),
                cluster: [2, 2, 2, cluster].into(),
            },
            ..Edits::default()
        };
        let once = export(SET, &add(1, 1));
        let twice = export(&once, &add(2, 2));
        let read = Attributes::from_canonical(&twice);
        assert_eq!(read.originator_id, Some([1, 1, 1, 1].into()));
        assert_eq!(read.cluster_list, [[2, 2, 2, 2], [2, 2, 2, 1]]);
        assert_eq!(export(&twice, &Edits { reflection: Reflection::Remove, ..Edits::default() }), SET);
    }

    #[test]
    fn a_two_octet_peer_gets_as_trans_and_the_truth_beside_it() {
        let aggregated = [SET, &[]].concat();
        let mut out = Vec::new();
        let edits = Edits { prepend: Some((70000, 1)), ..Edits::default() };
        Attributes::from_canonical(&aggregated).export(&edits, false, &mut out);
        assert_eq!(out[4..17], [0x40, 2, 10, 2, 2, 0x5b, 0xa0, 0xfd, 0xe9, 1, 1, 0xfd, 0xea]);
        let as4 = [0xc0, 17, 16, 2, 2, 0, 1, 0x11, 0x70, 0, 0, 0xfd, 0xe9, 1, 1, 0, 0, 0xfd, 0xea];
        assert!(out.windows(as4.len()).any(|window| window == as4));
        // Where two octets suffice there is no AS4_PATH.
        out.clear();
        Attributes::from_canonical(&aggregated).export(&Edits::default(), false, &mut out);
        assert!(!out.windows(2).any(|window| window == [0xc0, 17]));
    }

    #[test]
    fn communities_are_set_and_removed() {
        let edits = Edits {
            communities: Value::Set(&[[0, 1, 0, 2]]),
            large_communities: Value::Set(&[[7; 12]]),
            ..Edits::default()
        };
        let out = export(SET, &edits);
        let read = Attributes::from_canonical(&out);
        assert_eq!((read.communities, read.large_communities), (&[[0, 1, 0, 2]][..], &[[7; 12]][..]));
        let kinds: Vec<u8> = Walk::new(&out).flatten().map(|attribute| attribute.kind).collect();
        assert!(kinds.is_sorted(), "{kinds:?}");
        let gone =
            export(&out, &Edits { communities: Value::Remove, large_communities: Value::Remove, ..Edits::default() });
        assert!(Attributes::from_canonical(&gone).communities.is_empty());
    }
}
