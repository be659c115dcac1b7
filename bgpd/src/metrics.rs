//! What Prometheus is told: every peer that somebody configured, and all nodes of the topology together.

use crate::fib;
use crate::probe::Report;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use twill_crds::control::PeerStatus;

/// A peer that somebody configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Peer {
    peer: String,
    address: String,
    asn: u32,
}

/// The page, as OpenMetrics has it. `problems` are those of sockets and prefixes; `fib`: none where routes go into no kernel.
pub(crate) fn page(
    peers: &[PeerStatus],
    fib: Option<&fib::Status>,
    problems: usize,
    probed: Option<&Report>,
) -> String {
    let mut registry = Registry::with_prefix("twill");
    let (members, configured): (Vec<_>, Vec<_>) = peers.iter().partition(|peer| !peer.role.is_empty());
    each(registry.sub_registry_with_prefix("bgp_peer"), &configured);
    together(registry.sub_registry_with_prefix("bgp_mesh"), &members);
    let filtered = probed.map_or(0, |probed| probed.filtered.len());
    let all = problems + fib.map_or(0, |fib| fib.problems.len()) + usize::from(filtered > 0);
    gauge(&mut registry, "bgp_problems", "What is wrong with the speaker, as twill status says", all as u64);
    if let Some(fib) = fib {
        gauge(&mut registry, "fib_routes", "Routes of ours in the kernel", fib.installed);
        let help = "Routes that others removed or changed, and that were put right";
        counter(&mut registry, "fib_repairs", help, fib.repairs);
        let help =
            "How often checksum offload of a tunnel device was turned off, at first and after others had turned it on";
        counter(&mut registry, "tunnel_offloads_disabled", help, fib.offloads_disabled);
        let help =
            "How often the kernel refused a setting of a tunnel device, or of a link under it, that tunnels need";
        counter(&mut registry, "tunnel_settings_refused", help, fib.settings_refused);
    }
    if let Some(probed) = probed {
        let registry = registry.sub_registry_with_prefix("ipip");
        gauge(registry, "probed_nodes", "Nodes that are asked whether IP protocol 4 reaches them", probed.asked as u64);
        gauge(
            registry,
            "filtered_nodes",
            "Of those, nodes that it does not reach although they are there",
            filtered as u64,
        );
        counter(registry, "probes", "Rounds of requests to such nodes", probed.rounds);
        counter(registry, "probes_lost", "Of those, rounds in which IP protocol 4 did not get through", probed.lost);
    }
    let mut text = String::new();
    // Writing into a String cannot fail.
    let written = encode(&mut text, &registry);
    debug_assert!(written.is_ok());
    text
}

fn each(registry: &mut Registry, peers: &[&PeerStatus]) {
    let family = |of: fn(&PeerStatus) -> u64| {
        let family = Family::<Peer, Gauge>::default();
        for peer in peers {
            family.get_or_create(&labels(peer)).set(i64::try_from(of(peer)).unwrap_or(i64::MAX));
        }
        family
    };
    registry.register("established", "1 while the session is Established", family(|peer| u64::from(is_up(peer))));
    registry.register(
        "received_prefixes",
        "Prefixes that the peer has told and that were taken",
        family(|peer| peer.received),
    );
    registry.register("advertised_prefixes", "Prefixes that the peer has been told", family(|peer| peer.advertised));
    registry.register(
        "rejected_prefixes",
        "Prefixes that the peer has told and that were not taken, as many as are kept",
        family(|peer| peer.rejected),
    );
    let help = "Prefixes that the peer is not told since their attributes do not fit into a message";
    registry.register("too_long_prefixes", help, family(|peer| peer.too_long));
    let since = family(|peer| peer.since);
    registry.register_with_unit("state", "How long the session has been in its state", Unit::Seconds, since);
    let sessions = Family::<Peer, Counter>::default();
    for peer in peers {
        sessions.get_or_create(&labels(peer)).inc_by(peer.sessions);
    }
    registry.register("sessions", "Sessions with the peer that became Established", sessions);
    let bfd = Family::<Peer, Gauge>::default();
    for (peer, state) in peers.iter().filter_map(|peer| Some((peer, peer.bfd.as_ref()?))) {
        bfd.get_or_create(&labels(peer)).set(i64::from(state == "Up"));
    }
    registry.register("bfd_up", "1 while BFD with the peer is Up", bfd);
}

fn together(registry: &mut Registry, members: &[&PeerStatus]) {
    let sum = |of: fn(&PeerStatus) -> u64| members.iter().map(|peer| of(peer)).sum::<u64>();
    gauge(registry, "peers", "Nodes that are peers by the topology", members.len() as u64);
    let established = sum(|peer| u64::from(is_up(peer)));
    gauge(registry, "peers_established", "Of those, with an Established session", established);
    gauge(
        registry,
        "received_prefixes",
        "Prefixes that those have told and that were taken",
        sum(|peer| peer.received),
    );
    gauge(registry, "advertised_prefixes", "Prefixes that those have been told", sum(|peer| peer.advertised));
    counter(registry, "sessions", "Sessions with those that became Established", sum(|peer| peer.sessions));
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn is_up(peer: &PeerStatus) -> bool {
    peer.state == "Established"
}

fn labels(peer: &PeerStatus) -> Peer {
    Peer {
        peer: peer.name.clone(),
        address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        asn: peer.asn,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::probe::Filtered;

    fn peer(name: &str, state: &str, member: bool) -> PeerStatus {
        let json = serde_json::json!({
            "name": name, "address": "10.0.0.1", "asn": 65001, "state": state, "since": 7, "received": 3, "advertised": 2, "rejected": 1,
            "tooLong": 5, "sessions": 4, "role": if member { "node" } else { "" }, "bfd": if member { None } else { Some("Up") },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_configured_peer_has_lines_of_its_own_and_nodes_are_counted_together() {
        let peers = [peer("tor", "Established", false), peer("n1", "Established", true), peer("n2", "Active", true)];
        let fib = fib::Status {
            installed: 9,
            repairs: 2,
            offloads_disabled: 3,
            settings_refused: 4,
            ..fib::Status::default()
        };
        let one = Filtered { node: "n3".to_owned(), address: [10, 0, 0, 3].into(), refused_by: None };
        let probed = Report { asked: 8, filtered: vec![one.clone(), one], rounds: 7, lost: 6, ..Report::default() };
        let page = page(&peers, Some(&fib), 1, Some(&probed));
        let tor = "{peer=\"tor\",address=\"10.0.0.1\",asn=\"65001\"}";
        for (name, value) in [
            ("established", 1),
            ("received_prefixes", 3),
            ("advertised_prefixes", 2),
            ("rejected_prefixes", 1),
            ("too_long_prefixes", 5),
            ("state_seconds", 7),
            ("sessions_total", 4),
            ("bfd_up", 1),
        ] {
            let line = format!("twill_bgp_peer_{name}{tor} {value}\n");
            assert!(page.contains(&line), "{line} in\n{page}");
        }
        for line in [
            "twill_bgp_mesh_peers 2",
            "twill_bgp_mesh_peers_established 1",
            "twill_bgp_mesh_received_prefixes 6",
            "twill_bgp_mesh_sessions_total 8",
            "twill_bgp_problems 2",
            "twill_ipip_probed_nodes 8",
            "twill_ipip_filtered_nodes 2",
            "twill_ipip_probes_total 7",
            "twill_ipip_probes_lost_total 6",
            "twill_fib_routes 9",
            "twill_fib_repairs_total 2",
            "twill_tunnel_offloads_disabled_total 3",
            "twill_tunnel_settings_refused_total 4",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in\n{page}");
        }
        assert!(!page.contains("n1") && page.ends_with("\n# EOF\n"));
    }
}
