//! Rules of IPReservation.

use super::{Placed, Rule, addresses};

const SPEC: &[Rule] = &[
    Rule::new(
        "reservation-of-something",
        "has(self.reservedCIDRs) && self.reservedCIDRs.size() > 0 || has(self.addresses) && self.addresses.size() > 0 || has(self.pod)",
        "is empty, and so is spec.addresses; name what is reserved, or delete the object",
    )
    .field(".reservedCIDRs"),
    Rule::new(
        "kept-for-a-pod",
        "!has(self.addresses) || self.addresses.size() == 0 || has(self.pod)",
        "is left out; name the pod that spec.addresses are kept for",
    )
    .field(".pod"),
    Rule::new(
        "pod-of-addresses",
        "!has(self.pod) || has(self.addresses) && self.addresses.size() > 0",
        "is empty; name the addresses that are kept for spec.pod, or leave that out",
    )
    .field(".addresses"),
];

const FAMILIES: Rule = Rule::new(
    "kept-one-of-a-family",
    "self.size() != 2 || !self.all(one, isIP(one)) || ip(self[0]).family() != ip(self[1]).family()",
    "has two of one family; a pod has one of each, so leave one out",
);

const NAME: Rule = Rule::new(
    "pod-name",
    "!format.dns1123Subdomain().validate(self).hasValue()",
    "is no name in Kubernetes; use lower-case letters, digits, '-' or '.'",
)
.detail("'\"' + self + '\" is no name in Kubernetes; use lower-case letters, digits, \\'-\\' or \\'.\\''");

/// Rules of IPReservation.
pub(in crate::definitions) fn ip_reservation() -> Vec<Placed> {
    let mut rules = Placed::all("spec", SPEC);
    rules.extend(Placed::all("spec.reservedCIDRs[]", addresses::WRITTEN));
    rules.extend(Placed::all("spec.addresses", &[FAMILIES]));
    rules.extend(Placed::all("spec.addresses[]", &[addresses::SYNTAX]));
    rules.extend(Placed::all("spec.pod.namespace", &[NAME]));
    rules.extend(Placed::all("spec.pod.name", &[NAME]));
    rules
}
