//! Connections that an earlier felix cut: read back from the sets that hold their packets, so that what is allowed again is released.

use super::Agent;
use crate::base;
use crate::cut::{Flow, OPENED};
use crate::io::nft::{Error, Expiring, Table};
use crate::ruleset::Delta;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

impl Agent {
    /// After a comparison with the kernel: what is in the sets is what is held, whoever put it there, and what policy allows again is
    /// released. Tried again with the next tick if it fails.
    pub(super) async fn take_back_held(&mut self) {
        let Some(table) = self.table.clone().filter(|_| self.equal && self.recall.is_none()) else { return };
        if !std::mem::take(&mut self.cutting.unread) {
            return;
        }
        match self.held_by_kernel(&table).await {
            Ok(released) if released.is_empty() => {}
            Ok(released) => {
                let connections = released.elements.values().map(|change| change.remove.len()).sum::<usize>() / 2;
                tracing::info!(connections, "connections that were cut are allowed again; released");
                if let Err(error) = table.commit(released).await {
                    self.read_again(&error);
                }
            }
            Err(error) => self.read_again(&error),
        }
    }

    fn read_again(&mut self, error: &Error) {
        tracing::warn!(%error, "connections that were cut are not read back; tried again");
        self.cutting.unread = true;
    }

    /// Takes in what the kernel holds; what must go from it.
    async fn held_by_kernel(&mut self, table: &Table) -> Result<Delta, Error> {
        let now = Instant::now();
        let mut held: BTreeMap<Flow, Instant> = BTreeMap::new();
        for set in [base::CUT_V4, base::CUT_V6] {
            held.extend(
                connections(&table.expiring(base::name(set)).await?).into_iter().map(|(f, left)| (f, now + left)),
            );
        }
        let ours = &mut self.cutting.held;
        ours.retain(|_, until| *until > now);
        // Somebody emptied them: what is missing is put in again.
        self.cutting.again |= ours.keys().any(|flow| !held.contains_key(flow));
        ours.extend(held);
        Ok(self.with_released(Delta::default()))
    }
}

/// The connections that elements hold, each as it was opened, and for how long. One whose elements do not say who opened it is held until
/// they expire: it may be opened from the wrong side.
fn connections(elements: &[Expiring]) -> BTreeMap<Flow, Duration> {
    let opened = elements.iter().filter(|element| element.timeout == Some(base::CUT_FOR + OPENED));
    opened.filter_map(|element| Some((Flow::of_element(&element.key)?, element.left))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ruleset::Value;

    #[test]
    fn who_opened_a_connection_is_told_by_what_holds_it() {
        let at = |text: &str| text.parse().unwrap();
        let flow = Flow { source: at("10.0.0.1:4000"), destination: at("10.0.0.2:80"), protocol: 17 };
        let element = |key, value| Expiring {
            key,
            left: Duration::from_secs(9),
            timeout: if let Value::Expires(timeout) = value { Some(timeout) } else { None },
        };
        let held: Vec<Expiring> = flow.held().map(|(_, key, value)| element(key, value)).collect();
        assert!(connections(&held).into_keys().eq([flow.clone()]));
        let old: Vec<Expiring> = flow.elements().map(|(_, key)| element(key, Value::Plain)).collect();
        assert!(connections(&old).is_empty());
    }
}
