//! Rules of IPReservation.

use super::{Problem, metadata, pool};
use crate::IPReservation;
use crate::definitions::schemas::RESERVED_RANGES;

pub(super) fn check(reservation: &IPReservation) -> Result<(), Problem> {
    let spec = &reservation.spec;
    let (ranges, addresses) = (&spec.reserved_cidrs, &spec.addresses);
    if ranges.is_empty() && addresses.is_empty() && spec.pod.is_none() {
        let problem = "is empty, and so is spec.addresses; name what is reserved, or delete the object";
        return Err(Problem::new("spec.reservedCIDRs", problem));
    }
    if ranges.len() > RESERVED_RANGES {
        let found = ranges.len();
        let problem = format!("has {found} entries, must have at most {RESERVED_RANGES}; write a second IPReservation");
        return Err(Problem::new("spec.reservedCIDRs", problem));
    }
    for (n, range) in ranges.iter().enumerate() {
        pool::masked(&format!("spec.reservedCIDRs[{n}]"), *range)?;
    }
    if addresses.len() > 2 {
        let problem = format!("has {} entries, must have at most 2: one of each family", addresses.len());
        return Err(Problem::new("spec.addresses", problem));
    }
    if let [one, other] = addresses[..]
        && one.is_ipv4() == other.is_ipv4()
    {
        return Err(Problem::new("spec.addresses", "has two of one family; a pod has one of each, so leave one out"));
    }
    let Some(pod) = &spec.pod else {
        if addresses.is_empty() {
            return Ok(());
        }
        return Err(Problem::new("spec.pod", "is left out; name the pod that spec.addresses are kept for"));
    };
    if addresses.is_empty() {
        let problem = "is empty; name the addresses that are kept for spec.pod, or leave that out";
        return Err(Problem::new("spec.addresses", problem));
    }
    let named = |field: &str, name: &str| {
        let problem = || format!("\"{name}\" is no name in Kubernetes; use lower-case letters, digits, '-' or '.'");
        if metadata::is_dns_subdomain(name) { Ok(()) } else { Err(Problem::new(field, problem())) }
    };
    named("spec.pod.namespace", &pod.namespace)?;
    named("spec.pod.name", &pod.name)
}
