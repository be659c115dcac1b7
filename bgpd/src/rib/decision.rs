//! Which of a prefix's paths are used: RFC 4271 section 9.1.2.2 with the tie-breaks of RFC 4456 section 9.
//!
//! The result depends on the paths alone, never on the order in which they came: MED eliminates, within one neighbour
//! AS, before the later steps are looked at.

use super::attributes::Rank;
use std::cmp::{Ordering, Reverse};
use std::net::IpAddr;

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A prefix of our own.
    Own,
    /// A peer in another AS.
    Ebgp,
    /// A peer in our AS.
    Ibgp,
}

/// What of a peer decision compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRank {
    /// Kind of session.
    pub source: Source,
    /// BGP identifier.
    pub router_id: u32,
    /// Its address.
    pub address: IpAddr,
}

/// One path as decision sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) rank: &'a Rank,
    pub(super) peer: &'a PeerRank,
    /// Kept only because its peer restarts (RFC 4724): used while there is no fresh one.
    pub(super) stale: bool,
    /// Interior cost to the next hop.
    pub(super) cost: u32,
    /// The identifier that its sender gave it (RFC 7911).
    pub(super) identifier: u32,
    /// Number of the path.
    pub(super) path: u32,
}

/// Removes all paths that may not share load with the best, and puts the best first.
pub(super) fn choose(candidates: &mut Vec<Candidate<'_>>) {
    let Some(degree) = candidates.iter().map(preference).min() else { return };
    candidates.retain(|candidate| preference(candidate) == degree);
    if candidates.len() > 1 {
        eliminate_by_med(candidates);
    }
    let nearness = |candidate: &Candidate<'_>| (candidate.peer.source, candidate.cost);
    let Some(nearest) = candidates.iter().map(nearness).min() else { return };
    candidates.retain(|candidate| nearness(candidate) == nearest);
    candidates.sort_unstable_by(tie_break);
}

/// Paths in order of preference, taken out of candidates choice by choice.
#[derive(Debug)]
pub(super) struct Ranked<'a> {
    left: Vec<Candidate<'a>>,
    chosen: std::vec::IntoIter<Candidate<'a>>,
}

impl<'a> Ranked<'a> {
    pub(super) fn new(left: Vec<Candidate<'a>>) -> Self {
        Self { left, chosen: Vec::new().into_iter() }
    }
}

impl Iterator for Ranked<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.chosen.as_slice().is_empty() && !self.left.is_empty() {
            let mut chosen = self.left.clone();
            choose(&mut chosen);
            self.left.retain(|candidate| chosen.iter().all(|other| other.path != candidate.path));
            self.chosen = chosen.into_iter();
        }
        self.chosen.next().map(|candidate| candidate.path)
    }
}

/// Steps before MED: own first, then what nobody keeps in its sender's long absence, fresh first, LOCAL_PREF, AS_PATH length, ORIGIN. Smaller is better.
fn preference(candidate: &Candidate<'_>) -> (bool, bool, bool, Reverse<u32>, u16, u8) {
    let rank = candidate.rank;
    let learned = candidate.peer.source != Source::Own;
    (learned, rank.long_stale, candidate.stale, Reverse(rank.local_pref), rank.as_path_length, rank.origin)
}

/// RFC 4271 section 9.1.2.2 c: a path goes if one of the same neighbour AS has a lower MED.
fn eliminate_by_med(candidates: &mut Vec<Candidate<'_>>) {
    candidates.sort_unstable_by_key(|candidate| (candidate.rank.neighbour_as, candidate.rank.med));
    let mut lowest = None;
    candidates.retain(|candidate| match lowest {
        Some((neighbour, med)) if neighbour == candidate.rank.neighbour_as => candidate.rank.med == med,
        _ => {
            lowest = Some((candidate.rank.neighbour_as, candidate.rank.med));
            true
        }
    });
}

/// RFC 4271 section 9.1.2.2 f and g, RFC 4456 section 9; of several paths of one peer the one with the lowest identifier.
fn tie_break(one: &Candidate<'_>, other: &Candidate<'_>) -> Ordering {
    let key = |candidate: &Candidate<'_>| {
        let router_id = candidate.rank.originator.unwrap_or(candidate.peer.router_id);
        (router_id, candidate.rank.cluster_length, candidate.peer.address, candidate.identifier)
    };
    key(one).cmp(&key(other))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rank(local_pref: u32, as_path_length: u16, neighbour_as: u32, med: u32) -> Rank {
        Rank { local_pref, as_path_length, neighbour_as, med, ..Rank::default() }
    }

    fn peer(source: Source, id: u8) -> PeerRank {
        PeerRank { source, router_id: u32::from(id), address: [10, 0, 0, id].into() }
    }

    fn chosen(paths: &[(Rank, PeerRank, bool)]) -> Vec<u32> {
        chosen_at_cost(paths, &[0; 8])
    }

    fn chosen_at_cost(paths: &[(Rank, PeerRank, bool)], costs: &[u32]) -> Vec<u32> {
        let run = |reversed: bool| {
            let mut candidates: Vec<_> = (0u32..)
                .zip(paths.iter().zip(costs))
                .map(|(path, ((rank, peer, stale), cost))| Candidate {
                    rank,
                    peer,
                    stale: *stale,
                    cost: *cost,
                    identifier: 9 - path,
                    path,
                })
                .collect();
            if reversed {
                candidates.reverse();
            }
            choose(&mut candidates);
            candidates.iter().map(|candidate| candidate.path).collect::<Vec<_>>()
        };
        assert_eq!(run(false), run(true), "the order of arrival must not matter");
        run(false)
    }

    #[test]
    fn each_step_outranks_the_next() {
        let fresh = |rank, peer| (rank, peer, false);
        let ebgp = |id| peer(Source::Ebgp, id);
        let own = fresh(rank(100, 0, 0, 0), peer(Source::Own, 9));
        assert_eq!(chosen(&[fresh(rank(900, 0, 1, 0), ebgp(1)), own]), [1]);
        assert_eq!(chosen(&[(rank(900, 1, 1, 0), ebgp(1), true), fresh(rank(100, 9, 1, 0), ebgp(2))]), [1]);
        assert_eq!(chosen(&[fresh(rank(100, 1, 1, 0), ebgp(1)), fresh(rank(200, 9, 1, 0), ebgp(2))]), [1]);
        assert_eq!(chosen(&[fresh(rank(100, 2, 1, 0), ebgp(1)), fresh(rank(100, 1, 1, 9), ebgp(2))]), [1]);
        let worse_origin = Rank { origin: 2, ..rank(100, 1, 1, 0) };
        assert_eq!(chosen(&[fresh(worse_origin, ebgp(1)), fresh(rank(100, 1, 1, 9), ebgp(2))]), [1]);
        assert_eq!(chosen(&[fresh(rank(100, 1, 1, 5), ebgp(1)), fresh(rank(100, 1, 1, 4), ebgp(2))]), [1]);
        assert_eq!(
            chosen(&[fresh(rank(100, 1, 1, 0), peer(Source::Ibgp, 1)), fresh(rank(100, 1, 2, 0), ebgp(2))]),
            [1]
        );
    }

    #[test]
    fn paths_across_ases_share_load_and_the_lowest_identifier_is_best() {
        let path = |neighbour, id| (rank(100, 1, neighbour, 0), peer(Source::Ebgp, id), false);
        assert_eq!(chosen(&[path(65002, 3), path(65001, 2), path(65001, 1)]), [2, 1, 0]);
    }

    #[test]
    fn of_one_peers_equal_paths_the_lowest_identifier_is_best() {
        // Identifiers fall with the place here.
        let path = (rank(100, 1, 65001, 0), peer(Source::Ebgp, 1), false);
        assert_eq!(chosen(&[path, path, path]), [2, 1, 0]);
    }

    #[test]
    fn all_paths_are_ranked_choice_by_choice() {
        let peers: Vec<_> = (1..=4).map(|id| peer(Source::Ebgp, id)).collect();
        // The second loses to the first by MED alone, and so comes before the third, whose LOCAL_PREF is lower.
        let ranks = [rank(200, 1, 1, 5), rank(200, 1, 1, 10), rank(100, 1, 2, 0), rank(200, 1, 2, 0)];
        let all = (0u32..).zip(ranks.iter().zip(&peers)).map(|(path, (rank, peer))| Candidate {
            rank,
            peer,
            stale: false,
            cost: 0,
            identifier: 0,
            path,
        });
        assert_eq!(Ranked::new(all.collect()).collect::<Vec<_>>(), [0, 3, 1, 2]);
        assert_eq!(Ranked::new(Vec::new()).next(), None);
    }

    #[test]
    fn the_nearer_next_hop_wins_but_not_over_ebgp() {
        let path = |source, id| (rank(100, 1, 1, 0), peer(source, id), false);
        assert_eq!(chosen_at_cost(&[path(Source::Ibgp, 1), path(Source::Ibgp, 2)], &[20, 10]), [1]);
        assert_eq!(chosen_at_cost(&[path(Source::Ibgp, 1), path(Source::Ebgp, 2)], &[0, 10]), [1]);
    }

    /// RFC 3345's order dependence: MED is compared only within an AS, and before the identifier.
    #[test]
    fn med_eliminates_within_its_neighbour_as_before_the_identifier_is_compared() {
        let a = (rank(100, 1, 1, 10), peer(Source::Ebgp, 1), false);
        let b = (rank(100, 1, 1, 5), peer(Source::Ebgp, 3), false);
        let c = (rank(100, 1, 2, 100), peer(Source::Ebgp, 2), false);
        assert_eq!(chosen(&[a, b, c]), [2, 1]);
        assert_eq!(chosen(&[c, a, b]), [0, 2]);
    }

    #[test]
    fn a_reflected_path_is_compared_by_its_originator_then_by_cluster_list() {
        let reflected = |originator, cluster_length, id| {
            let rank = Rank { originator: Some(originator), cluster_length, ..rank(100, 1, 1, 0) };
            (rank, peer(Source::Ibgp, id), false)
        };
        assert_eq!(chosen(&[reflected(7, 1, 1), reflected(6, 9, 2)]), [1, 0]);
        assert_eq!(chosen(&[reflected(7, 2, 1), reflected(7, 1, 2)]), [1, 0]);
        assert_eq!(chosen(&[reflected(7, 1, 2), reflected(7, 1, 1)]), [1, 0]);
    }
}
