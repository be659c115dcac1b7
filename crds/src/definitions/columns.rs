//! What `kubectl get` shows of each kind beside the name.

use crate::Kind;
use serde_json::{Value, json};

/// Head, type, path in the object, and whether only `-o wide` shows it.
type Column = (&'static str, &'static str, &'static str, bool);

const AGE: Column = ("Age", "date", ".metadata.creationTimestamp", false);

/// The columns of a kind of ours, as a definition has them.
pub(super) fn of(kind: &Kind) -> Value {
    let columns: &[Column] = match kind.kind.as_ref() {
        "IPPool" => &[
            ("CIDR", "string", ".spec.cidr", false),
            ("Encapsulation", "string", ".spec.encapsulation.protocol", false),
            ("When", "string", ".spec.encapsulation.when", true),
            ("NAT", "boolean", ".spec.natOutgoing", false),
            ("Disabled", "boolean", ".spec.disabled", false),
            ("Blocks", "integer", ".status.blocks.claimed", false),
            ("Of", "integer", ".status.blocks.total", true),
            ("Used", "integer", ".status.addresses.used", false),
            ("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status", false),
            ("Nearly Full", "string", ".status.conditions[?(@.type==\"NearlyFull\")].status", true),
        ],
        "IPBlock" => &[
            ("CIDR", "string", ".spec.cidr", false),
            ("Node", "string", ".spec.node", false),
            ("Used", "integer", ".status.used", false),
            ("Claimant", "string", ".spec.claimant", true),
            ("Releasing", "boolean", ".status.releasing", true),
        ],
        "IPReservation" => &[
            ("Ranges", "string", ".spec.reservedCIDRs", false),
            ("Addresses", "string", ".spec.addresses", false),
            ("Namespace", "string", ".spec.pod.namespace", false),
            ("Pod", "string", ".spec.pod.name", false),
            ("Node", "string", ".status.holder.node", false),
            ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", true),
        ],
        "BGPConfiguration" => &[
            ("AS", "string", ".spec.asn", false),
            ("Topology", "string", ".spec.topology", false),
            ("In Force", "string", ".status.sessions.topology", false),
            ("Reflectors", "string", ".status.sessions.routeReflectors", true),
            ("Port", "integer", ".spec.listenPort", false),
            ("Hold Time", "integer", ".spec.holdTime", true),
            ("VXLAN Port", "integer", ".spec.vxlanPort", true),
            ("Nodes", "integer", ".status.nodes", false),
            ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", false),
        ],
        "BGPPeer" => &[
            ("Remote", "string", ".spec.remote.address", false),
            ("Interface", "string", ".spec.remote.interface", false),
            ("AS", "string", ".spec.asn", false),
            ("Nodes", "integer", ".status.nodes", false),
            ("Established", "integer", ".status.established", false),
            ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", true),
        ],
        "NodeNetwork" => &[
            ("Address", "string", ".status.bgp.addresses[0]", false),
            ("AS", "integer", ".status.bgp.asn", false),
            ("Tunnel", "string", ".status.bgp.tunnelAddresses[0]", true),
            ("Routing", "string", ".status.bgp.conditions[?(@.type==\"BGPReady\")].status", false),
            ("Pods", "string", ".status.felix.conditions[?(@.type==\"NetworkReady\")].status", false),
            ("Policy", "string", ".status.felix.conditions[?(@.type==\"PolicySynced\")].status", false),
            ("Drain", "boolean", ".spec.drain", true),
        ],
        "NamespaceIsolation" => &[
            ("Directions", "string", ".spec.directions", false),
            ("Allow", "string", ".spec.allow", false),
            ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", false),
        ],
        "BGPFilter" => &[
            ("Peers", "integer", ".status.peers", false),
            ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", false),
        ],
        "HostPolicy" => &[
            ("Priority", "integer", ".spec.priority", false),
            ("Directions", "string", ".spec.directions", false),
            ("Interfaces", "string", ".spec.interfaces", false),
            ("Failsafes", "string", ".spec.failsafes", true),
            ("Confirmation", "string", ".spec.confirmation.mode", false),
        ],
        _ => &[],
    };
    columns.iter().chain([&AGE]).map(column).collect()
}

fn column((name, kind, path, wide): &Column) -> Value {
    let mut column = json!({"name": name, "type": kind, "jsonPath": path});
    if *wide {
        column["priority"] = 1.into();
    }
    column
}
