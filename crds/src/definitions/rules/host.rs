//! Rules of HostPolicy.

use super::{Placed, Rule, addresses, selectors};

const INTERFACES: &[Rule] = &[
    Rule::new(
        "interface-name",
        "self.matches('^([A-Za-z0-9._@+-]+[*]?|[*])$')",
        "is no name of an interface; write one like eth0, or a beginning like bond*",
    )
    .detail("'\"' + self + '\" is no name of an interface; write one like eth0, or a beginning like bond*'"),
    Rule::new(
        "interface-of-the-host",
        "!(self in ['lo', 'twill-vxlan', 'twill-ipip']) && !self.startsWith('twl')",
        "is the loopback interface, a pod's or Twill's own, which no HostPolicy closes; leave it out",
    )
    .detail(
        "self + ' is the loopback interface, a pod\\'s or Twill\\'s own, which no HostPolicy closes; leave it out'",
    ),
];

const SPEC: &[Rule] = &[
    Rule::new(
        "ingress-needs-direction",
        "self.ingress.size() == 0 || self.directions.exists(d, d in ['Ingress', 'Forwarded'])",
        "lacks Ingress, so spec.ingress would mean nothing; add it, or take the rules away",
    )
    .field(".directions"),
    Rule::new(
        "egress-needs-direction",
        "self.egress.size() == 0 || 'Egress' in self.directions",
        "lacks Egress, so spec.egress would mean nothing; add it, or take the rules away",
    )
    .field(".directions"),
    Rule::new(
        "no-failsafes-is-a-risk",
        "self.failsafes != 'None' || has(self.lockoutRisk)",
        "is None, and a mistake can cost access to the nodes; leave it Computed, or set spec.lockoutRisk to Accepted",
    )
    .field(".failsafes"),
];

const PEER: Rule = Rule::new(
    "peer-of-one-kind",
    "[has(self.cidrs) && self.cidrs.size() > 0, has(self.nodes), has(self.pods)].filter(is, is).size() == 1",
    "must have exactly one of cidrs, nodes and pods; write one peer for each",
);

const PORT: &[Rule] = &[
    Rule::new(
        "port-of-protocol",
        "self.protocol != 'ICMP' || !(has(self.port) || has(self.endPort))",
        "has a port, and ICMP has none; leave port and endPort out",
    ),
    Rule::new(
        "port-begins-range",
        "self.protocol == 'ICMP' || !has(self.endPort) || has(self.port)",
        "has endPort without port; set port to the first of the range",
    ),
    Rule::new(
        "port-range",
        "self.protocol == 'ICMP' || !has(self.port) || !has(self.endPort) || self.endPort >= self.port",
        "has an endPort below port; exchange the two",
    ),
];

/// Rules of HostPolicy.
pub(in crate::definitions) fn host_policy() -> Vec<Placed> {
    let mut rules = selectors::at("spec.nodeSelector");
    rules.extend(Placed::all("spec.interfaces[]", INTERFACES));
    rules.extend(Placed::all("spec", SPEC));
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        let peer = format!("spec.{direction}[].{side}[]");
        rules.extend(Placed::all(&peer, &[PEER]));
        rules.extend(Placed::all(&format!("{peer}.cidrs[]"), addresses::WRITTEN));
        for place in ["nodes", "pods.namespaceSelector", "pods.podSelector"] {
            rules.extend(selectors::at(&format!("{peer}.{place}")));
        }
        rules.extend(Placed::all(&format!("spec.{direction}[].ports[]"), PORT));
    }
    rules
}
