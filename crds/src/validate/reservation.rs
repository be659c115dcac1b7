//! Rules of IPReservation.

use super::{Problem, pool};
use crate::IPReservation;
use crate::definitions::schemas::RESERVED_RANGES;

pub(super) fn check(reservation: &IPReservation) -> Result<(), Problem> {
    let ranges = &reservation.spec.reserved_cidrs;
    if ranges.is_empty() {
        return Err(Problem::new("spec.reservedCIDRs", "is empty; name at least one range, or delete the object"));
    }
    if ranges.len() > RESERVED_RANGES {
        let found = ranges.len();
        let problem = format!("has {found} entries, must have at most {RESERVED_RANGES}; write a second IPReservation");
        return Err(Problem::new("spec.reservedCIDRs", problem));
    }
    ranges.iter().enumerate().try_for_each(|(n, range)| pool::masked(&format!("spec.reservedCIDRs[{n}]"), *range))
}
