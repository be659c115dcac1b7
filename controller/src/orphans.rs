//! Reservations that are to be freed of their holder, a few at once. In flow those whose time is over, and what is known; out flow those that are
//! next, as they are by now.

use crate::world::World;
use std::collections::BTreeMap;
use twill_crds::ip_reservation::Holder;
use twill_crds::{IPReservation, Object};
use twill_datastore::Key;

/// Those whose turn has not come yet, by name, each with the holder that is gone.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    waiting: BTreeMap<String, Holder>,
}

impl Orphans {
    /// Takes in more of them and returns the next, `most` at most. What has another holder by now, or one whose node is back, is none any more.
    pub(crate) fn next(&mut self, found: Vec<IPReservation>, world: &World, most: usize) -> Vec<IPReservation> {
        let more = found.iter().filter_map(|one| Some((one.name().to_owned(), one.holder()?.clone())));
        self.waiting.extend(more);
        let current = |name: &str| world.reservations.get(&Key::cluster(name));
        self.waiting.retain(|name, holder| {
            !world.has_node(&holder.node) && current(name).is_some_and(|one| one.holder() == Some(&*holder))
        });
        let next = std::iter::from_fn(|| self.waiting.pop_first()).take(most);
        next.filter_map(|(name, _)| current(&name).cloned()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::world::Fact;
    use serde_json::json;
    use twill_datastore::{Followed, Revision};

    fn reservation(name: &str, node: &str) -> IPReservation {
        serde_json::from_value(
            json!({"apiVersion": "twill.network/v1", "kind": "IPReservation", "metadata": {"name": name},
            "spec": {"addresses": ["10.0.0.7"], "pod": {"namespace": "shop", "name": name}},
            "status": {"holder": {"node": node, "podUID": "u"}}}),
        )
        .unwrap()
    }

    #[test]
    fn all_have_their_turn_but_those_that_somebody_holds_by_then() {
        let all: Vec<IPReservation> = ["a", "b", "c", "d", "e"].map(|name| reservation(name, "gone")).into();
        let mut world = World::default();
        let revision = Revision(1);
        world.hear(Fact::Reservation(Followed::Synced { items: all.clone(), revision }));
        let mut orphans = Orphans::default();
        let mut next = |found, world: &World| -> Vec<String> {
            orphans.next(found, world, 2).iter().map(|one| one.name().to_owned()).collect()
        };
        assert_eq!(next(all.clone(), &world), ["a", "b"]);
        world.hear(Fact::Reservation(Followed::Applied(reservation("c", "n2"), revision)));
        assert_eq!(next(Vec::new(), &world), ["d", "e"]);
        assert!(next(Vec::new(), &world).is_empty());
        let node = serde_json::from_value(json!({"metadata": {"name": "gone"}})).unwrap();
        world.hear(Fact::node(Followed::Synced { items: vec![node], revision }));
        assert!(next(all, &world).is_empty(), "it is back");
    }
}
