//! Rules of IPReservation.

use super::{Placed, Rule, addresses};

const SPEC: &[Rule] = &[Rule::new(
    "reservation-of-something",
    "has(self.reservedCIDRs) && self.reservedCIDRs.size() > 0",
    "is empty; name at least one range, or delete the object",
)
.field(".reservedCIDRs")];

/// Rules of IPReservation.
pub(in crate::definitions) fn ip_reservation() -> Vec<Placed> {
    let mut rules = Placed::all("spec", SPEC);
    rules.extend(Placed::all("spec.reservedCIDRs[]", addresses::WRITTEN));
    rules
}
