//! Who has the addresses that an IPReservation keeps for one pod. In flow who has them as the datastore says, who asks, and what was seen of
//! the one who has them and of the addresses; out flows one step at a time.
//!
//! `status.holder` is written by compare-and-swap alone, so of two nodes that ask one is first. It names the addresses, and is written before a
//! node's own store has one of them, and taken back after nothing of the node has them any more; so whoever is killed in between leaves a holder
//! too many, never one too few. Such a one is passed over when its pod has been gone for a while and nothing is routed to its node: by then that
//! node has heard of it, or hears nothing; in either case it attaches no such pod any more. What a holder names counts, not what the reservation
//! says by now: an edit takes nothing away, and gives nothing before somebody looked.

use twill_crds::ip_reservation::Holder;

/// What was seen of a holder, and of the addresses that are wanted and that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Signs {
    /// This node has the addresses for the holder's pod.
    pub attached: bool,
    /// Whether there is a Pod with the holder's UID, as the datastore has it now; none: not read yet.
    pub exists: Option<bool>,
    /// A route to one of the addresses leads to another node: its own, or one for a block around it that somebody may still have.
    pub routed: bool,
    /// This node's bgpd has not written its own routes, so that it may lack those of others, too.
    pub blind: bool,
    /// One of the addresses lies in another node's block, and it is kept, or the block there, for so short a time that the node may have given it to a
    /// pod before it heard, or has a pod with it that it has not written down.
    pub young: bool,
    /// The holder is another machine's, and its pod is gone for so short a time that the machine may not have heard, or was attaching the pod.
    pub fresh: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is as it should be.
    Stays,
    /// Whether there still is a Pod with the holder's UID must be read, consistently.
    Look,
    /// The holder is to be written, if nobody else has written meanwhile.
    Write,
    /// Not now, because of what was seen.
    Wait(Hindrance),
}

/// What is in the way. Of the pod that a holder names, words that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// The holder's pod is attached at this node.
    #[error("is attached there")]
    Attached,
    /// The holder's pod is in the datastore.
    #[error("still exists")]
    Exists,
    /// The holder's pod is gone, and something has its address.
    #[error("is gone, but its address is still routed to that node")]
    Lingers,
    /// Nobody is said to have the addresses, and somebody has.
    #[error("an address is still routed to another node; look who advertises it: twill routes")]
    Routed,
    /// Nothing can be said of routes.
    #[error(
        "bgpd has not written the routes of this node's own blocks, so whether others have the addresses is not known; look at bgpd: twill peers"
    )]
    Blind,
    /// The block's owner may have given one away.
    #[error(
        "an address lies in another node's block, and that was claimed, or the address reserved, less than 30 s ago: the node may have a pod with it"
    )]
    Young,
    /// The holder's node may still attach the pod.
    #[error("is gone for less than 30 s, in which its node may still attach it")]
    Fresh,
}

impl Hindrance {
    /// Whether the look that found it, also found that the holder's pod is gone.
    #[must_use]
    pub fn is_of_the_gone(self) -> bool {
        !matches!(self, Self::Attached | Self::Exists)
    }
}

/// Whether two are the same pod on the same machine, whatever it has.
#[must_use]
pub fn is_same(holder: &Holder, me: &Holder) -> bool {
    let unknown = holder.claimant.is_none() || me.claimant.is_none();
    holder.node == me.node && holder.pod_uid == me.pod_uid && (unknown || holder.claimant == me.claimant)
}

/// Whether a pod is written to have all that it wants.
#[must_use]
pub fn holds(holder: Option<&Holder>, me: &Holder) -> bool {
    holder.is_some_and(|holder| is_same(holder, me) && me.addresses.iter().all(|one| holder.addresses.contains(one)))
}

/// What a node does that wants addresses for a pod of its own; those that it is written to have and does not want are given up.
#[must_use]
pub fn take(holder: Option<&Holder>, me: &Holder, seen: Signs) -> Next {
    match holder {
        Some(holder) if !is_same(holder, me) => {
            // A Pod is on one node: of another machine of the same name with this very Pod only routes tell.
            let exists = if holder.pod_uid == me.pod_uid { Some(false) } else { seen.exists };
            pass_over(Signs { exists, ..seen })
        }
        Some(holder) if holds(Some(holder), me) => {
            if holder.addresses.len() == me.addresses.len() {
                Next::Stays
            } else {
                Next::Write
            }
        }
        _ => hindrance(seen, Hindrance::Routed).map_or(Next::Write, Next::Wait),
    }
}

/// What a node does whose name the holder bears. `ended`: it had them itself, and has them no more.
#[must_use]
pub fn give_up(ended: bool, seen: Signs) -> Next {
    if ended { Next::Write } else { pass_over(seen) }
}

fn pass_over(seen: Signs) -> Next {
    match seen {
        Signs { attached: true, .. } => Next::Wait(Hindrance::Attached),
        Signs { exists: None, .. } => Next::Look,
        Signs { exists: Some(true), .. } => Next::Wait(Hindrance::Exists),
        _ => hindrance(seen, Hindrance::Lingers).map_or(Next::Write, Next::Wait),
    }
}

/// A look at a holder, and the write after it: what is decided on what was heard, to be performed call by call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settling {
    /// Who has the addresses, as it was heard; the write is a compare-and-swap on that.
    pub holder: Option<Holder>,
    /// Whom to write; none: nobody.
    pub wanted: Option<Holder>,
    /// What was seen so far.
    pub seen: Signs,
    /// See [`give_up`].
    pub ended: bool,
}

impl Settling {
    /// What comes next. Asking twice changes nothing.
    #[must_use]
    pub fn next(&self) -> Next {
        match &self.wanted {
            Some(me) => take(self.holder.as_ref(), me, self.seen),
            None => give_up(self.ended, self.seen),
        }
    }

    /// Answers [`Next::Look`].
    pub fn looked(&mut self, exists: bool) {
        self.seen.exists = Some(exists);
    }
}

fn hindrance(seen: Signs, routed: Hindrance) -> Option<Hindrance> {
    let all = [
        (seen.routed, routed),
        (seen.blind, Hindrance::Blind),
        (seen.young, Hindrance::Young),
        (seen.fresh, Hindrance::Fresh),
    ];
    all.into_iter().find_map(|(is_so, hindrance)| is_so.then_some(hindrance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn holder(node: &str, claimant: &str, uid: &str, addresses: &[u8]) -> Holder {
        let address = |last: &u8| IpAddr::V4(Ipv4Addr::new(10, 42, 0, *last));
        let addresses = addresses.iter().map(address).collect();
        Holder { node: node.into(), claimant: Some(claimant.into()), pod_uid: uid.into(), addresses }
    }

    fn me() -> Holder {
        holder("n2", "b", "u2", &[7])
    }

    const NOTHING: Signs =
        Signs { attached: false, exists: None, routed: false, blind: false, young: false, fresh: false };
    const GONE: Signs = Signs { exists: Some(false), ..NOTHING };

    #[test]
    fn what_is_nobodys_is_taken_unless_it_is_routed_or_that_is_not_known_or_its_blocks_owner_may_not_know() {
        assert_eq!(take(None, &me(), NOTHING), Next::Write);
        let signs = [
            (Signs { routed: true, ..NOTHING }, Hindrance::Routed),
            (Signs { blind: true, ..NOTHING }, Hindrance::Blind),
            (Signs { young: true, ..NOTHING }, Hindrance::Young),
        ];
        assert!(signs.into_iter().all(|(seen, why)| take(None, &me(), seen) == Next::Wait(why)));
    }

    #[test]
    fn what_is_ours_stays_and_what_an_edit_added_is_looked_at_as_if_nobody_had_it() {
        let routed = Signs { routed: true, ..NOTHING };
        assert_eq!(take(Some(&me()), &me(), routed), Next::Stays);
        let more = holder("n2", "b", "u2", &[7, 8]);
        assert!(!holds(Some(&me()), &more) && holds(Some(&more), &me()));
        assert_eq!(take(Some(&me()), &more, routed), Next::Wait(Hindrance::Routed));
        assert_eq!(take(Some(&me()), &more, NOTHING), Next::Write);
        assert_eq!(take(Some(&more), &me(), routed), Next::Write, "less is given up without a look");
    }

    #[test]
    fn another_is_passed_over_only_when_its_pod_is_gone_and_nothing_leads_there() {
        // Also one of this node: a pod of the same name before.
        for other in [holder("n1", "a", "u1", &[7]), holder("n2", "b", "u1", &[7])] {
            let then = |seen| take(Some(&other), &me(), seen);
            assert_eq!((then(NOTHING), then(GONE)), (Next::Look, Next::Write));
            let signs = [
                (Signs { attached: true, ..GONE }, Hindrance::Attached),
                (Signs { exists: Some(true), ..GONE }, Hindrance::Exists),
                (Signs { routed: true, ..GONE }, Hindrance::Lingers),
                (Signs { blind: true, ..GONE }, Hindrance::Blind),
                (Signs { young: true, ..GONE }, Hindrance::Young),
                (Signs { fresh: true, ..GONE }, Hindrance::Fresh),
            ];
            assert!(signs.into_iter().all(|(seen, why)| then(seen) == Next::Wait(why)));
        }
    }

    #[test]
    fn of_another_machine_of_this_name_with_the_same_pod_only_routes_tell() {
        let other = holder("n2", "a", "u2", &[7]);
        assert!(!holds(Some(&other), &me()));
        let exists = Signs { exists: Some(true), ..NOTHING };
        assert_eq!((take(Some(&other), &me(), NOTHING), take(Some(&other), &me(), exists)), (Next::Write, Next::Write));
        assert_eq!(take(Some(&other), &me(), Signs { routed: true, ..exists }), Next::Wait(Hindrance::Lingers));
    }

    #[test]
    fn who_had_them_gives_them_up_at_once_and_who_does_not_know_looks() {
        assert_eq!(give_up(true, NOTHING), Next::Write);
        assert_eq!(give_up(false, NOTHING), Next::Look);
        assert_eq!(give_up(false, GONE), Next::Write);
        assert_eq!(give_up(false, Signs { exists: Some(true), ..NOTHING }), Next::Wait(Hindrance::Exists));
    }
}
