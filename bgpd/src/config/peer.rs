//! One entry of `peers`.

use super::filters::{self, Filters};
use super::remote::Remote;
use super::{
    Count, FileAsn, FileExport, FileFamily, FileImport, FileNextHop, FilePeer, add_path, bfd, limit, reserved, role,
};
use crate::speaker::{Export, Import, Member, NextHopRule, Peer, PeerAsn};
use crate::wire::{Families, Family};
use twill_crds::names::BGP_PORT;

pub(super) fn peer(file: &FilePeer, remote: &Remote, own: u32, filters: &Filters) -> Result<Peer, String> {
    let shown = file.local_asn.unwrap_or(own);
    let asn = peer_asn(&file.asn, shown)?;
    if let Some(text) = file.local_asn.and_then(reserved) {
        return Err(format!("localASN {text}"));
    }
    if let Some(hold @ 1..=2) = file.hold_time {
        return Err(format!(
            "holdTime {hold} is too short; 0 switches it off, otherwise at least 3 (RFC 4271 section 4.2)"
        ));
    }
    if file.password.as_ref().is_some_and(|password| password.is_empty() || password.len() > 80) {
        return Err("password must have 1 to 80 octets (tcp(7), TCP_MD5SIG)".to_owned());
    }
    if file.source.is_some_and(|source| source.is_ipv6() != remote.is_ipv6()) {
        return Err("source and address are of different families".to_owned());
    }
    let restart = file.graceful_restart.as_ref().map(|restart| restart.restart_time);
    if restart.is_some_and(|seconds| seconds > 4095) {
        return Err("restartTime must be below 4096 (RFC 4724 section 3)".to_owned());
    }
    let long_lived = file.graceful_restart.as_ref().and_then(|restart| restart.long_lived_stale_time);
    if let Some(seconds @ (0 | 0x0100_0000..)) = long_lived {
        return Err(format!(
            "longLivedStaleTime {seconds} is out of range; use 1 to 16777215 (RFC 9494), or leave it out"
        ));
    }
    if file.multihop == Some(0) || file.port == Some(0) {
        return Err("multihop and port must not be 0; leave the key out for the default".to_owned());
    }
    distance(file)?;
    let families: Families = match &file.families {
        None => Families::ALL,
        Some(families) if families.is_empty() => return Err("families must name one at least".to_owned()),
        Some(families) => families.iter().map(family).collect(),
    };
    let external = asn != PeerAsn::Number(shown);
    if file.reflector_client && external {
        return Err("reflectorClient is for peers in our own AS (RFC 4456)".to_owned());
    }
    let (import_filter, export_filter) = filters::of(filters, &file.filters)?;
    let hops = bfd::usual(external, file.multihop.is_some(), file.ttl_security);
    Ok(Peer {
        address: remote.address(),
        interface: None,
        range: None,
        port: file.port.unwrap_or(BGP_PORT),
        asn,
        local_asn: file.local_asn,
        source: file.source,
        password: file.password.clone(),
        hold_time: file.hold_time.unwrap_or(90),
        ttl: file.multihop,
        ttl_security: file.ttl_security,
        passive: file.passive || matches!(remote, Remote::Range(..)),
        families,
        extended_next_hop: file.extended_next_hop.unwrap_or(remote.is_ipv6()),
        next_hop_v4: None,
        next_hop_v6: None,
        graceful_restart: restart,
        long_lived,
        import_filter,
        import: import(file, external),
        export_filter,
        export: export(file, external),
        allow_own_as: allow_own_as(file.allow_own_as.as_ref())?,
        as_override: file.as_override,
        reflector_client: file.reflector_client,
        member: Member::Apart,
        next_hop: match file.next_hop {
            None | Some(FileNextHop::Auto) => NextHopRule::Auto,
            Some(FileNextHop::Own) => NextHopRule::Own,
            Some(FileNextHop::Keep) => NextHopRule::Keep,
        },
        add_path: add_path::read(file.add_path.as_ref())?,
        bfd: file.bfd.as_ref().map(|bfd| bfd::bfd(bfd, hops)).transpose()?,
        max_prefixes: file.max_prefixes.as_ref().map(limit::max_prefixes).transpose()?,
        role: file.role.as_ref().map(|role| role::role(role, external)).transpose()?,
    })
}

/// What is said of how far the peer is.
fn distance(file: &FilePeer) -> Result<(), String> {
    if file.ttl_security.is_some() && file.multihop.is_some() {
        return Err("ttlSecurity and multihop exclude each other: both say how far the peer is; keep one".to_owned());
    }
    if let Some(hops @ (0 | 255)) = file.ttl_security {
        return Err(format!(
            "ttlSecurity {hops} is no number of hops; use 1 for a peer on the link, up to 254 (RFC 5082)"
        ));
    }
    Ok(())
}

fn peer_asn(asn: &FileAsn, shown: u32) -> Result<PeerAsn, String> {
    match asn {
        FileAsn::Number(number) => match u32::try_from(*number).map(|asn| (asn, reserved(asn))) {
            Ok((asn, None)) => Ok(PeerAsn::Number(asn)),
            Ok((_, Some(text))) => Err(format!("asn {text}")),
            Err(_) => Err(format!("asn {number} is no AS number; use 1 to 4294967295")),
        },
        FileAsn::Word(word) => match word.as_str() {
            "internal" => Ok(PeerAsn::Number(shown)),
            "external" => Ok(PeerAsn::External),
            _ => Err(format!("asn \"{word}\" is no AS; use a number, internal or external")),
        },
    }
}

fn allow_own_as(count: Option<&Count>) -> Result<u8, String> {
    match count {
        None => Ok(0),
        Some(Count::Flag(allowed)) => Ok(u8::from(*allowed)),
        Some(Count::Number(count)) => {
            u8::try_from(*count).map_err(|_| format!("allowOwnAS {count} is out of range; use true, false or 0 to 255"))
        }
    }
}

fn import(file: &FilePeer, external: bool) -> Import {
    match file.import {
        Some(FileImport::All) => Import::All,
        Some(FileImport::None) => Import::None,
        // RFC 8212: nothing crosses an AS boundary unasked.
        None if external => Import::None,
        None => Import::All,
    }
}

fn export(file: &FilePeer, external: bool) -> Export {
    match file.export {
        Some(FileExport::All) => Export::All,
        Some(FileExport::None) => Export::None,
        Some(FileExport::Own) => Export::Own,
        None if external => Export::None,
        None => Export::All,
    }
}

fn family(family: &FileFamily) -> Family {
    match family {
        FileFamily::Ipv4 => Family::Ipv4Unicast,
        FileFamily::Ipv6 => Family::Ipv6Unicast,
    }
}
