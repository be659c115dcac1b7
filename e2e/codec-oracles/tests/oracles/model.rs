//! A generator of meanings.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use twill_bgpd::wire::{V4, V6};
pub(crate) use twill_codec_oracles::model::{Hop, Nlri, Set, Update};

fn v4() -> impl Strategy<Value = V4> {
    (any::<u32>(), 0..=32_u8).prop_map(|(address, len)| {
        // Unicast only: netgauze takes multicast prefixes for errors.
        let address = address % 0xdf00_0000;
        (address & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0), len)
    })
}

fn v6() -> impl Strategy<Value = V6> {
    (any::<u128>(), 0..=128_u8).prop_map(|(address, len)| {
        let address = address >> 3 | 1 << 125;
        (address & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0), len)
    })
}

pub(crate) fn nlri() -> impl Strategy<Value = Nlri> {
    prop_oneof![vec(v4(), 1..60).prop_map(Nlri::V4), vec(v6(), 1..40).prop_map(Nlri::V6)]
}

pub(crate) fn hop(nlri: &Nlri) -> BoxedStrategy<Hop> {
    match nlri {
        Nlri::V4(_) => (0x0100_0000..0x7f00_0000_u32).prop_map(|a| Hop::V4(a.into())).boxed(),
        Nlri::V6(_) => (any::<u64>(), option::of(any::<u64>()))
            .prop_map(|(global, local)| {
                let base = 0x2001_0db8_u128 << 96 | 1;
                let local = local.map(|local| Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(local)));
                Hop::V6((base | u128::from(global) << 1).into(), local)
            })
            .boxed(),
    }
}

fn path() -> impl Strategy<Value = Vec<(bool, Vec<u32>)>> {
    let asn = prop_oneof![1..65536_u32, 65536..=u32::MAX];
    vec((prop::bool::weighted(0.2), vec(asn, 1..12)), 0..4)
}

prop_compose! {
    fn optional()(
        med in option::of(any::<u32>()),
        local_pref in option::of(any::<u32>()),
        atomic in any::<bool>(),
        aggregator in option::of((1..=u32::MAX, any::<u32>())),
        communities in vec(any::<u32>(), 0..80),
        originator in option::of(any::<u32>()),
        clusters in vec(any::<u32>(), 0..5),
        extended in vec(any::<u32>(), 0..5),
        large in btree_set(any::<(u32, u32, u32)>(), 0..5),
        unknown in btree_set(210..=250_u8, 0..4),
        bytes in vec(any::<u8>(), 0..300),
    ) -> Set {
        Set {
            med,
            local_pref,
            atomic,
            aggregator: aggregator.map(|(asn, address)| (asn, address.into())),
            communities,
            originator: originator.map(Ipv4Addr::from),
            clusters: clusters.into_iter().map(Ipv4Addr::from).collect(),
            // Route targets of a two-octet AS: a type that everybody passes through.
            extended: extended.into_iter().map(|value| 0x0002_fde8_0000_0000 | u64::from(value)).collect(),
            large: large.into_iter().collect(),
            unknown: unknown.into_iter().map(|kind| (kind, bytes.clone())).collect(),
            ..Set::default()
        }
    }
}

/// Any attribute set of an iBGP session.
pub(crate) fn set() -> impl Strategy<Value = Set> {
    (optional(), 0..3_u8, path()).prop_map(|(set, origin, path)| Set { origin, path, ..set })
}

/// Any UPDATE of an iBGP session.
pub(crate) fn update() -> impl Strategy<Value = Update> {
    let announce = (nlri(), set())
        .prop_flat_map(|(nlri, set)| (hop(&nlri), Just(nlri), Just(set)))
        .prop_map(|(hop, nlri, set)| Update::Announce { hop, nlri, set });
    prop_oneof![4 => announce, 1 => nlri().prop_map(Update::Withdraw)]
}
