//! What rules do to attributes.

use crate::wire::{Attributes, Edits, Value};
use twill_crds::bgp_filter::FilterSet;
use twill_crds::community::{Community, CommunityPattern};

/// Changes to attributes; the default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Changes {
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often an AS is put before the path.
    pub prepend: u8,
    /// What is removed and added, in order.
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Remove(CommunityPattern),
    Add(Community),
}

/// The communities of a path once they are changed; borrowed by [`Edits`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Communities {
    pub(crate) standard: Vec<[u8; 4]>,
    large: Vec<[u8; 12]>,
    extended: Vec<[u8; 8]>,
}

impl Changes {
    pub(super) fn new(set: &FilterSet) -> Self {
        let removed = set.remove_communities.iter().filter_map(|text| text.parse().ok()).map(Step::Remove);
        let added = set.add_communities.iter().filter_map(|text| text.parse().ok()).map(Step::Add);
        Self {
            local_pref: set.local_pref,
            med: set.med,
            prepend: set.prepend.unwrap_or(0),
            steps: removed.chain(added).collect(),
        }
    }

    /// Whether everything stays.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `later` after these.
    pub(super) fn then(&mut self, later: &Self) {
        self.local_pref = later.local_pref.or(self.local_pref);
        self.med = later.med.or(self.med);
        self.prepend = self.prepend.saturating_add(later.prepend);
        self.steps.extend(later.steps.iter().cloned());
    }

    /// The communities that a path with `attributes` has then; none if they stay.
    #[must_use]
    pub fn communities(&self, attributes: &Attributes<'_>) -> Option<Communities> {
        if self.steps.is_empty() {
            return None;
        }
        let mut all = Communities {
            standard: attributes.communities.to_vec(),
            large: attributes.large_communities.to_vec(),
            extended: attributes.extended_communities.to_vec(),
        };
        for step in &self.steps {
            match step {
                Step::Remove(pattern) => all.remove(pattern),
                Step::Add(community) => all.add(*community),
            }
        }
        Some(all)
    }

    /// Adds the changes to `edits`, except for the path's. `communities` are those of [`Changes::communities`].
    pub fn apply<'a>(&self, communities: Option<&'a Communities>, edits: &mut Edits<'a>) {
        if let Some(value) = self.local_pref {
            edits.local_pref = Value::Set(value);
        }
        if let Some(value) = self.med {
            edits.med = Value::Set(value);
        }
        if let Some(communities) = communities {
            edits.communities = Value::Set(&communities.standard);
            edits.large_communities = Value::Set(&communities.large);
            edits.extended_communities = Value::Set(&communities.extended);
        }
    }
}

impl Communities {
    fn remove(&mut self, pattern: &CommunityPattern) {
        self.standard.retain(|octets| !pattern.matches(&Community::Standard(*octets)));
        self.large.retain(|octets| !pattern.matches(&Community::Large(*octets)));
        self.extended.retain(|octets| !pattern.matches(&Community::Extended(*octets)));
    }

    fn add(&mut self, community: Community) {
        match community {
            Community::Standard(octets) => add(&mut self.standard, octets),
            Community::Large(octets) => add(&mut self.large, octets),
            Community::Extended(octets) => add(&mut self.extended, octets),
        }
    }
}

fn add<const N: usize>(list: &mut Vec<[u8; N]>, octets: [u8; N]) {
    if !list.contains(&octets) {
        list.push(octets);
    }
}
