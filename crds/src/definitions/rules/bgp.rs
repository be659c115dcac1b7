//! Rules of BGPConfiguration and BGPPeer.

use super::{Placed, Rule, addresses, selectors};

const SINGLETON: Rule = Rule::new(
    "configuration-name",
    "self.metadata.name == 'default'",
    "there is one BGPConfiguration; metadata.name must be default",
)
.detail("'metadata.name is \"' + self.metadata.name + '\"; there is one BGPConfiguration, named default'");

const HOLD_TIME: Rule = Rule::new(
    "hold-time",
    "self == 0 || self >= 3",
    "is 1 or 2; use 0 (never) or at least 3 seconds (RFC 4271 section 4.2)",
)
.detail("(self == 1 ? 'is 1' : 'is 2') + '; use 0 (never) or at least 3 seconds (RFC 4271 section 4.2)'");

const PEER_ASN: &[Rule] = &[
    Rule::new(
        "peer-as-form",
        "type(self) == string ? self in ['internal', 'external'] : self >= 1 && self <= 4294967295",
        "must be internal, external or an AS number from 1 to 4294967295",
    ),
    Rule::new(
        "peer-as-not-reserved",
        "type(self) == string || self != 23456",
        "is 23456, which is reserved (AS_TRANS, RFC 6793); use another number",
    ),
];

const LOCAL_ASN: Rule = Rule::new(
    "local-as-not-reserved",
    "self != 23456",
    "is 23456, which is reserved (AS_TRANS, RFC 6793); use another number",
);

const FILTERS: Rule = Rule::new(
    "peer-filters-once",
    "self.all(name, self.exists_one(other, other == name))",
    "names a filter twice; the second one decides nothing",
);

const RETRY: Rule = Rule::new(
    "peer-limit-retry",
    "!has(self.retryAfter) || !has(self.whenExceeded) || self.whenExceeded == 'Close'",
    "means something with whenExceeded Close alone; leave it out",
)
.field(".retryAfter");

const ROLE: Rule = Rule::new(
    "peer-role-outside",
    "!has(self.role) || self.asn != 'internal'",
    "is for peers in another AS (RFC 9234); leave it out",
)
.field(".role");
const STATION: Rule = Rule::new(
    "station-somewhere",
    "!isIP(self) || !(ip(self).isUnspecified() || ['224.0.0.0/4', 'ff00::/8'].exists(group, cidr(group).containsIP(ip(self))))",
    "is no address of a station; use a unicast one",
)
.detail("self + ' is no address of a station; use a unicast one'");

const STATIONS: Rule = Rule::new(
    "stations-once",
    "self.all(one, self.exists_one(other, other == one))",
    "names a station twice; one of them must go",
);

const ADD_PATH: Rule = Rule::new(
    "add-path-some-way",
    "has(self.send) || has(self.receive) && self.receive",
    "says neither receive nor send; set one of them, or leave it out",
);

const PATH_COUNT: Rule = Rule::new(
    "add-path-count",
    "type(self) == string ? self == 'all' : self >= 1 && self <= 64",
    "must be all or a number of paths from 1 to 64",
);

const REMOTE: &[Rule] = &[
    Rule::new(
        "remote-names-somebody",
        "has(self.address) || has(self.interface) || has(self.nodeSelector)",
        "names nobody; set address, interface or nodeSelector",
    ),
    Rule::new(
        "remote-names-one",
        "(has(self.address) ? 1 : 0) + (has(self.interface) ? 1 : 0) + (has(self.nodeSelector) ? 1 : 0) < 2",
        "says in two ways who it is; keep one of address, interface and nodeSelector",
    ),
];

const INTERFACE: Rule =
    Rule::new("interface-name", "!self.contains('/') && !self.contains(' ')", "is no name of an interface");

const NEAR: Rule = Rule::new(
    "interface-is-near",
    "!has(self.remote.interface) || !has(self.ttlSecurity) || self.ttlSecurity == 1",
    "is above 1 for a peer on an interface, which is one hop away; use 1",
)
.field(".ttlSecurity");

/// Rules of BGPConfiguration.
pub(in crate::definitions) fn bgp_configuration() -> Vec<Placed> {
    let mut rules = Placed::all("", &[SINGLETON]);
    rules.extend(Placed::all("spec.bmp", &[STATIONS]));
    rules.extend(Placed::all("spec.bmp[].address", &[addresses::SYNTAX, STATION]));
    rules.extend(Placed::all("spec.holdTime", &[HOLD_TIME]));
    rules.extend(selectors::at("spec.routeReflectors.nodeSelector"));
    for list in ["clusterIPs", "externalIPs", "loadBalancerIPs"] {
        rules.extend(Placed::all(&format!("spec.services.{list}[]"), addresses::RANGE));
    }
    rules
}

/// Rules of BGPPeer.
pub(in crate::definitions) fn bgp_peer() -> Vec<Placed> {
    let mut rules = Placed::all("spec", &[NEAR]);
    rules.extend(Placed::all("spec.remote", REMOTE));
    rules.extend(Placed::all("spec.remote.address", addresses::ROUTER));
    rules.extend(Placed::all("spec.remote.interface", &[INTERFACE]));
    rules.extend(selectors::at("spec.remote.nodeSelector"));
    rules.extend(Placed::all("spec.asn", PEER_ASN));
    rules.extend(Placed::all("spec.localASN", &[LOCAL_ASN]));
    rules.extend(Placed::all("spec.filters", &[FILTERS]));
    rules.extend(Placed::all("spec.addPath", &[ADD_PATH]));
    rules.extend(Placed::all("spec.addPath.send", &[PATH_COUNT]));
    rules.extend(Placed::all("spec.holdTime", &[HOLD_TIME]));
    rules.extend(Placed::all("spec.maxPrefixes", &[RETRY]));
    rules.extend(Placed::all("spec", &[ROLE]));
    rules.extend(selectors::at("spec.nodeSelector"));
    rules
}
