//! Rules of BGPConfiguration and BGPPeer.

use super::{Problem, metadata, pool, selector};
use crate::add_path::AddPathSpec;
use crate::bgp::{
    AsRelation, BFD_INTERVALS, BfdSpec, NodeAsn, PasswordSource, PeerAsn, Remote, SecretKeyRef, asn_problem,
};
use crate::bgp_limit::{MaxPrefixesSpec, WhenExceeded};
use crate::bmp::{BmpStation, MAX_STATIONS};
use crate::definitions::schemas::PEER_RANGES;
use crate::topology::REFLECTORS;
use crate::{BGPConfiguration, BGPPeer, Object};
use std::net::IpAddr;

/// Filters that a peer names at most.
const FILTERS: usize = 16;

/// Rules of the cluster's configuration.
pub(super) fn configuration(new: &BGPConfiguration) -> Result<(), Problem> {
    if new.name() != "default" {
        let problem = format!("is \"{}\"; there is one BGPConfiguration, named default", new.name());
        return Err(Problem::new("metadata.name", problem));
    }
    match &new.spec.asn {
        NodeAsn::Number(number) => asn("spec.asn", *number)?,
        NodeAsn::Label(label) => metadata::label_key("spec.asn.nodeLabel", &label.node_label)?,
    }
    reflectors(new)?;
    services(new)?;
    port("spec.listenPort", Some(new.spec.listen_port))?;
    port("spec.vxlanPort", Some(new.spec.vxlan_port))?;
    stations(&new.spec.bmp)?;
    hold_time(new.spec.hold_time)
}

fn services(new: &BGPConfiguration) -> Result<(), Problem> {
    let services = &new.spec.services;
    let lists = [
        ("clusterIPs", &services.cluster_ips),
        ("externalIPs", &services.external_ips),
        ("loadBalancerIPs", &services.load_balancer_ips),
    ];
    for (name, ranges) in lists {
        let field = format!("spec.services.{name}");
        if ranges.len() > PEER_RANGES {
            return Err(Problem::new(field, format!("has {}, must have at most {PEER_RANGES}", ranges.len())));
        }
        for (n, range) in ranges.iter().enumerate() {
            pool::cidr(&format!("{field}[{n}]"), *range)?;
        }
    }
    Ok(())
}

fn stations(stations: &[BmpStation]) -> Result<(), Problem> {
    if stations.len() > MAX_STATIONS {
        let problem = format!("names {} stations; at most {MAX_STATIONS} are told", stations.len());
        return Err(Problem::new("spec.bmp", problem));
    }
    for (index, station) in stations.iter().enumerate() {
        port(&format!("spec.bmp[{index}].port"), Some(station.port))?;
        if station.address.is_unspecified() || station.address.is_multicast() {
            let problem = format!("{} is no address of a station; use a unicast one", station.address);
            return Err(Problem::new(format!("spec.bmp[{index}].address"), problem));
        }
        if stations[..index].contains(station) {
            return Err(Problem::new("spec.bmp", format!("names {} twice; one of them must go", station.socket())));
        }
    }
    Ok(())
}

fn reflectors(new: &BGPConfiguration) -> Result<(), Problem> {
    let Some(reflectors) = &new.spec.route_reflectors else { return Ok(()) };
    if let Some(count) = reflectors.count.filter(|count| !REFLECTORS.contains(count)) {
        return Err(Problem::new("spec.routeReflectors.count", format!("is {count}; use 1 to 16, or leave it out")));
    }
    selector::optional("spec.routeReflectors.nodeSelector", reflectors.node_selector.as_ref())
}

/// Rules of a peer.
pub(super) fn peer(new: &BGPPeer) -> Result<(), Problem> {
    selector::optional("spec.nodeSelector", new.spec.node_selector.as_ref())?;
    remote(&new.spec.remote)?;
    port("spec.remote.port", new.spec.remote.port)?;
    if let PeerAsn::Number(number) = new.spec.asn {
        asn("spec.asn", number)?;
    }
    if let Some(number) = new.spec.local_asn {
        asn("spec.localASN", number)?;
    }
    if let Some(hops @ (0 | 255)) = new.spec.ttl_security {
        let problem = format!("is {hops}; use 1 for a peer on the link, up to 254 hops (RFC 5082)");
        return Err(Problem::new("spec.ttlSecurity", problem));
    }
    if new.spec.remote.interface.is_some() && new.spec.ttl_security.is_some_and(|hops| hops > 1) {
        let problem = "is above 1 for a peer on an interface, which is one hop away; use 1";
        return Err(Problem::new("spec.ttlSecurity", problem));
    }
    new.spec.password.as_ref().map_or(Ok(()), password)?;
    filters(&new.spec.filters)?;
    hold_time(new.spec.hold_time)?;
    new.spec.max_prefixes.as_ref().map_or(Ok(()), max_prefixes)?;
    if new.spec.role.is_some() && new.spec.asn == PeerAsn::Relation(AsRelation::Internal) {
        return Err(Problem::new("spec.role", "is for peers in another AS (RFC 9234); leave it out"));
    }
    if let Some((field, problem)) = new.spec.add_path.as_ref().and_then(AddPathSpec::problem) {
        let field = if field.is_empty() { "spec.addPath".to_owned() } else { format!("spec.addPath.{field}") };
        return Err(Problem::new(field, problem));
    }
    new.spec.bfd.as_ref().map_or(Ok(()), bfd)
}

fn max_prefixes(spec: &MaxPrefixesSpec) -> Result<(), Problem> {
    if spec.limit == 0 {
        return Err(Problem::new("spec.maxPrefixes.limit", "is 0, which takes nothing; use 1 or more"));
    }
    match (spec.retry_after, spec.when_exceeded) {
        (Some(_), WhenExceeded::Refuse | WhenExceeded::Warn) => Err(Problem::new(
            "spec.maxPrefixes.retryAfter",
            "means something with whenExceeded Close alone; leave it out",
        )),
        (Some(0), WhenExceeded::Close) => {
            Err(Problem::new("spec.maxPrefixes.retryAfter", "is 0; use 1 second or more"))
        }
        _ => Ok(()),
    }
}

/// Who the other side is.
fn remote(spec: &Remote) -> Result<(), Problem> {
    let named = [spec.address.is_some(), spec.interface.is_some(), spec.node_selector.is_some()];
    match named.into_iter().filter(|named| *named).count() {
        0 => return Err(Problem::new("spec.remote", "names nobody; set address, interface or nodeSelector")),
        1 => {}
        _ => {
            let problem = "says in two ways who it is; keep one of address, interface and nodeSelector";
            return Err(Problem::new("spec.remote", problem));
        }
    }
    if let Some(name) = spec.interface.as_ref().filter(|name| {
        // `linux/if.h`, IFNAMSIZ.
        name.is_empty() || name.chars().count() > 15 || name.contains(['/', ' '])
    }) {
        let problem = format!("\"{name}\" is no name of an interface; it has 1 to 15 characters");
        return Err(Problem::new("spec.remote.interface", problem));
    }
    selector::optional("spec.remote.nodeSelector", spec.node_selector.as_ref())?;
    spec.address.map_or(Ok(()), address)
}

fn password(source: &PasswordSource) -> Result<(), Problem> {
    let SecretKeyRef { name, key } = &source.secret_key_ref;
    for (field, text) in [("name", name), ("key", key)] {
        if text.is_empty() || text.chars().count() > 253 {
            let field = format!("spec.password.secretKeyRef.{field}");
            return Err(Problem::new(&field, "has no 1 to 253 characters; write what the Secret has"));
        }
    }
    Ok(())
}

fn bfd(spec: &BfdSpec) -> Result<(), Problem> {
    let (least, most) = (BFD_INTERVALS.start(), BFD_INTERVALS.end());
    for (field, millis) in [("spec.bfd.minTx", spec.min_tx), ("spec.bfd.minRx", spec.min_rx)] {
        if !BFD_INTERVALS.contains(&millis) {
            return Err(Problem::new(field, format!("is {millis}; use {least} to {most} milliseconds")));
        }
    }
    if spec.multiplier == 0 {
        return Err(Problem::new("spec.bfd.multiplier", "is 0; use 1 to 255"));
    }
    Ok(())
}

fn filters(names: &[String]) -> Result<(), Problem> {
    if names.len() > FILTERS {
        let problem = format!("names {} filters; at most {FILTERS} are taken", names.len());
        return Err(Problem::new("spec.filters", problem));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(Problem::new("spec.filters", format!("names {name} twice; the second one decides nothing")));
        }
    }
    Ok(())
}

fn address(address: IpAddr) -> Result<(), Problem> {
    let is_broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || is_broadcast {
        return Err(Problem::new(
            "spec.remote.address",
            format!("{address} is no address of a single router; write the peer's own"),
        ));
    }
    if matches!(address, IpAddr::V6(a) if a.is_unicast_link_local()) {
        let problem = format!("{address} is link-local and says nothing without an interface; give a global address");
        return Err(Problem::new("spec.remote.address", problem));
    }
    Ok(())
}

fn asn(field: &str, number: u32) -> Result<(), Problem> {
    asn_problem(number).map_or(Ok(()), |problem| Err(Problem::new(field, problem)))
}

fn hold_time(seconds: u16) -> Result<(), Problem> {
    match seconds {
        1 | 2 => Err(Problem::new(
            "spec.holdTime",
            format!("is {seconds}; use 0 (never) or at least 3 seconds (RFC 4271 section 4.2)"),
        )),
        _ => Ok(()),
    }
}

fn port(field: &str, port: Option<u16>) -> Result<(), Problem> {
    if port == Some(0) { Err(Problem::new(field, "is 0; use 1 to 65535")) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::Object;
    use crate::validate::admit;
    use serde_json::{Value, json};

    fn peer(spec: Value) -> Option<String> {
        let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
        admit(&crate::BGPPeer::kind(), &mut object, None).err().map(|invalid| invalid.field)
    }

    fn configuration(name: &str, spec: Value) -> Option<String> {
        let mut object = json!({"metadata": {"name": name}, "spec": spec});
        admit(&crate::BGPConfiguration::kind(), &mut object, None).err().map(|invalid| invalid.field)
    }

    #[test]
    fn numbers_and_relations_of_a_peer() {
        let with = |asn: Value| peer(json!({"remote": {"address": "10.0.0.1"}, "asn": asn}));
        for good in [json!(1), json!(4_294_967_295_u32), json!("internal"), json!("external")] {
            assert_eq!(with(good.clone()), None, "{good}");
        }
        for bad in [json!(0), json!(23456), json!(-1), json!(4_294_967_296_u64), json!("others")] {
            assert_eq!(with(bad.clone()).as_deref(), Some("spec.asn"), "{bad}");
        }
    }

    #[test]
    fn a_peer_has_one_remote_that_is_a_router() {
        let with = |remote: Value| peer(json!({"remote": remote, "asn": "external"}));
        assert_eq!(with(json!({"address": "fd00::1", "port": 1790})), None);
        assert_eq!(with(json!({})).as_deref(), Some("spec.remote"));
        assert_eq!(with(json!({"address": "10.0.0.1", "port": 0})).as_deref(), Some("spec.remote.port"));
        assert_eq!(with(json!({"interface": "eth0"})), None);
        assert_eq!(with(json!({"nodeSelector": {}})), None);
        assert_eq!(with(json!({"interface": "eth0", "nodeSelector": {}})).as_deref(), Some("spec.remote"));
        for bad in ["", "a/b", "abcdefghijklmnop"] {
            assert_eq!(with(json!({"interface": bad})).as_deref(), Some("spec.remote.interface"), "{bad}");
        }
        for bad in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1", "::", "tor", "10.0.0.1/32"] {
            assert_eq!(with(json!({"address": bad})).as_deref(), Some("spec.remote.address"), "{bad}");
        }
    }

    #[test]
    fn bfd_of_a_peer_has_times_that_can_be_kept() {
        let with = |bfd: Value| peer(json!({"remote": {"address": "10.0.0.1"}, "asn": "external", "bfd": bfd}));
        let whole = json!({"minTx": 10, "minRx": 60000, "multiplier": 255, "multihop": "Never"});
        for good in [json!({}), whole, json!(null)] {
            assert_eq!(with(good.clone()), None, "{good}");
        }
        for (field, bad) in [("minTx", 9), ("minRx", 60001), ("multiplier", 0), ("multiplier", 256)] {
            assert_eq!(with(json!({field: bad})).unwrap(), format!("spec.bfd.{field}"));
        }
        assert_eq!(with(json!({"multihop": "Sometimes"})).as_deref(), Some("spec.bfd.multihop"));
    }

    #[test]
    fn stations_are_somewhere_and_different() {
        let with = |bmp: Value| configuration("default", json!({"bmp": bmp}));
        let station = |address: &str, port: u16| json!({"address": address, "port": port});
        assert_eq!(with(json!([station("10.0.0.9", 11019), station("fd00::9", 11019)])), None);
        for (bad, field) in [
            (json!([station("10.0.0.9", 0)]), "spec.bmp[0].port"),
            (json!([station("0.0.0.0", 1)]), "spec.bmp[0].address"),
            (json!([station("fd00::9", 1), station("fd00::9", 1)]), "spec.bmp"),
            (json!((1..10).map(|port| station("fd00::9", port)).collect::<Vec<_>>()), "spec.bmp"),
        ] {
            assert_eq!(with(bad.clone()).as_deref(), Some(field), "{bad}");
        }
    }

    #[test]
    fn several_paths_go_one_way_at_least_and_have_a_number() {
        let with =
            |add_path: Value| peer(json!({"remote": {"address": "10.0.0.1"}, "asn": "external", "addPath": add_path}));
        for good in [json!({"receive": true}), json!({"send": 64}), json!({"receive": true, "send": "all"})] {
            assert_eq!(with(good.clone()), None, "{good}");
        }
        for bad in [json!({}), json!({"receive": false})] {
            assert_eq!(with(bad.clone()).as_deref(), Some("spec.addPath"), "{bad}");
        }
        for bad in [json!(0), json!(65), json!(256), json!(-1), json!("many")] {
            assert_eq!(with(json!({"send": bad})).as_deref(), Some("spec.addPath.send"), "{bad}");
        }
    }

    #[test]
    fn hold_times_are_none_or_three_and_more() {
        let with = |seconds: u16| configuration("default", json!({"holdTime": seconds}));
        assert_eq!([0, 3, 90, 65535].map(with), [const { None }; 4]);
        assert_eq!([1, 2].map(with), [(), ()].map(|()| Some("spec.holdTime".to_owned())));
    }

    #[test]
    fn there_is_one_configuration() {
        assert_eq!(configuration("default", json!({})), None);
        assert_eq!(configuration("other", json!({})).as_deref(), Some("metadata.name"));
        assert_eq!(configuration("default", json!({"asn": 0})).as_deref(), Some("spec.asn"));
        assert_eq!(configuration("default", json!({"asn": 65001})), None);
        assert_eq!(configuration("default", json!({"asn": {"nodeLabel": "example.org/asn"}})), None);
        let odd = json!({"asn": {"nodeLabel": "-"}});
        assert_eq!(configuration("default", odd).as_deref(), Some("spec.asn.nodeLabel"));
        assert_eq!(configuration("default", json!({"asn": "64512"})).as_deref(), Some("spec.asn"));
        for bad in [json!({}), json!({"label": "x"})] {
            assert_eq!(configuration("default", json!({"asn": bad})).as_deref(), Some("spec.asn.nodeLabel"), "{bad}");
        }
        assert_eq!(configuration("default", json!({"listenPort": 0})).as_deref(), Some("spec.listenPort"));
        assert_eq!(configuration("default", json!({"topology": "Star"})).as_deref(), Some("spec.topology"));
    }
}
