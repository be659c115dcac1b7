//! How long the elements of an expiring set last: the kernel's own clock, which goes on without us.

use super::Error;
use super::connection::Connection;
use super::set::{ELEMENT_EXPIRATION, LIST_ELEMENTS, elements_header};
use super::wire::{Attributes, message};
use std::time::Duration;

/// The shortest time that any element of this set of table `inet twill` lasts; none if it has no element, or there is no such set.
///
/// # Errors
/// The kernel could not be read.
pub fn lasts(set: &str) -> Result<Option<Duration>, Error> {
    let mut least: Option<u64> = None;
    Connection::open()?.dump(message::GET_ELEMENTS, |w| elements_header(w, set), &mut |m| {
        let Some(list) = m.attributes().nested(LIST_ELEMENTS) else { return };
        for (_, element) in list {
            let left = Attributes(element).u64(ELEMENT_EXPIRATION).unwrap_or_default();
            least = Some(least.map_or(left, |least| least.min(left)));
        }
    })?;
    Ok(least.filter(|left| *left > 0).map(Duration::from_millis))
}
