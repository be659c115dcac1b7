//! The filters that BGPPeers name. The last ones that made sense stay in force, over a restart too: a BGPPeer that is heard before its new
//! BGPFilter, or a BGPFilter that somebody deletes, must not take all routes away.

use super::objects::Objects;
use crate::filter::{Filter, Part};
use crate::speaker::{Export, Import, Peer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::validate::filter_rules;
use twill_crds::{BGPFilter, BGPPeer, Object};
use twill_datastore::{Index, Key};

/// What made sense last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rules {
    /// By BGPPeer, the filters that it named when all of them were there.
    lists: BTreeMap<String, Vec<String>>,
    /// Those filters.
    filters: BTreeMap<String, BGPFilter>,
}

impl Rules {
    /// Peers or filters have changed.
    pub(super) fn learn(&mut self, peers: &Index<BGPPeer>, filters: &Index<BGPFilter>) {
        self.lists.retain(|peer, _| peers.get(&Key::cluster(peer)).is_some());
        let sound = |name: &String| filters.get(&Key::cluster(name)).filter(|filter| problem(filter).is_none());
        for (_, peer) in peers.iter() {
            if peer.spec.filters.iter().all(|name| sound(name).is_some()) {
                self.lists.insert(peer.name().to_owned(), peer.spec.filters.clone());
            }
        }
        let named: BTreeSet<&String> = self.lists.values().flatten().collect();
        self.filters.retain(|name, _| named.contains(name));
        for name in named {
            if let Some(filter) = sound(name) {
                self.filters.insert(name.clone(), BGPFilter::clone(filter));
            }
        }
    }

    /// Gives the peer the filters that its object names, or those that it had before.
    ///
    /// Returns why it has not what is asked for: a filter is missing or makes no sense. Without any that it had before, nothing is taken or told,
    /// since nobody knows what they would have kept out.
    pub(super) fn give(&self, peer: &mut Peer, object: &BGPPeer, objects: &Objects) -> Option<String> {
        let problem = object.spec.filters.iter().enumerate().find_map(|(index, name)| {
            let what = match objects.filters.get(&Key::cluster(name)) {
                None => format!("there is no BGPFilter {name}; create it, or leave it out"),
                Some(filter) => format!("BGPFilter {name}: {}; mend it", problem(filter)?),
            };
            Some(format!("filters[{index}]: {what}"))
        });
        let list = match problem {
            None => Some(&object.spec.filters),
            Some(_) => self.lists.get(object.name()),
        };
        let known: Option<Vec<&BGPFilter>> =
            list.and_then(|names| names.iter().map(|name| self.filters.get(name)).collect());
        let until = if let Some(filters) = known {
            (peer.import_filter, peer.export_filter) = compiled(&filters);
            "until then its former filters stay in force"
        } else {
            (peer.import, peer.export) = (Import::None, Export::None);
            "no route is taken or told until then"
        };
        problem.map(|problem| format!("{problem}; {until}"))
    }
}

/// Why the filter cannot be obeyed, with the field.
fn problem(filter: &BGPFilter) -> Option<String> {
    let rules = [("import", &filter.spec.import, true), ("export", &filter.spec.export, false)];
    rules.into_iter().find_map(|(direction, rules, is_import)| {
        let problem = filter_rules(&format!("spec.{direction}"), rules, is_import).err()?;
        Some(format!("{}: {}", problem.field, problem.problem))
    })
}

fn compiled(filters: &[&BGPFilter]) -> (Filter, Filter) {
    let titles = |direction: &str| -> Vec<String> {
        filters.iter().map(|filter| format!("BGPFilter {}: spec.{direction}", filter.name())).collect()
    };
    let (import, export) = (titles("import"), titles("export"));
    let parts = |titles: &[String], is_import: bool| {
        let rules =
            |filter: &&BGPFilter| if is_import { filter.spec.import.clone() } else { filter.spec.export.clone() };
        let all: Vec<_> = filters.iter().map(rules).collect();
        let parts: Vec<Part<'_>> = titles.iter().zip(&all).map(|(name, rules)| Part { name, rules }).collect();
        Filter::new(&parts, !is_import)
    };
    (parts(&import, true), parts(&export, false))
}
