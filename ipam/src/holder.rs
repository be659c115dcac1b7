//! Who has the addresses that an IPReservation keeps for one pod. In flow who has them as the datastore says, who asks, and what was seen of
//! the one who has them; out flows one step at a time.
//!
//! `status.holder` is written by compare-and-swap alone, so of two nodes that ask one is first. It is written before a node's own store has the
//! addresses, and taken back after nothing of the node has them any more; so whoever is killed in between leaves a holder too many, never one
//! too few. Such a one is passed over when its pod is gone for certain and nothing is routed to its node.

use twill_crds::ip_reservation::Holder;

/// What was seen of a holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// This node has the addresses for its pod.
    pub attached: bool,
    /// There is a Pod with its UID, as the datastore has it now.
    pub exists: bool,
    /// A route to one of the addresses leads to another node: its own, or, where it lies in a block of the holder's node, that block's.
    pub routed: bool,
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
    /// Not now, because of what was seen of the holder; words that follow the pod.
    Wait(&'static str),
}

/// What a node does that wants the addresses for a pod of its own.
#[must_use]
pub fn take(holder: Option<&Holder>, me: &Holder, seen: Option<Signs>) -> Next {
    match holder {
        Some(holder) if holder == me => Next::Stays,
        None => Next::Write,
        Some(_) => pass_over(seen),
    }
}

/// What a node does whose name the holder bears. `ended`: it had them itself, and has them no more.
#[must_use]
pub fn give_up(ended: bool, seen: Option<Signs>) -> Next {
    if ended { Next::Write } else { pass_over(seen) }
}

fn pass_over(seen: Option<Signs>) -> Next {
    match seen {
        None => Next::Look,
        Some(Signs { attached: true, .. }) => Next::Wait("is attached there"),
        Some(Signs { exists: true, .. }) => Next::Wait("still exists"),
        Some(Signs { routed: true, .. }) => Next::Wait("is gone, but its address is still routed to that node"),
        Some(_) => Next::Write,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(node: &str, uid: &str) -> Holder {
        Holder { node: node.into(), pod_uid: uid.into() }
    }

    const NOTHING: Signs = Signs { attached: false, exists: false, routed: false };

    #[test]
    fn what_is_nobodys_is_taken_and_what_is_ours_stays() {
        let me = holder("n2", "u2");
        assert_eq!(take(None, &me, None), Next::Write);
        assert_eq!(take(Some(&me), &me, None), Next::Stays);
    }

    #[test]
    fn another_is_passed_over_only_when_its_pod_is_gone_and_nothing_leads_there() {
        let me = holder("n2", "u2");
        // Also one of this node: a pod of the same name before, or another machine under the name.
        for other in [holder("n1", "u1"), holder("n2", "u1"), holder("n1", "u2")] {
            let then = |seen| take(Some(&other), &me, seen);
            assert_eq!(then(None), Next::Look);
            assert_eq!(then(Some(NOTHING)), Next::Write);
            let signs = [
                Signs { attached: true, ..NOTHING },
                Signs { exists: true, ..NOTHING },
                Signs { routed: true, ..NOTHING },
            ];
            assert!(signs.into_iter().all(|seen| matches!(then(Some(seen)), Next::Wait(_))));
        }
    }

    #[test]
    fn who_had_them_gives_them_up_at_once_and_who_does_not_know_looks() {
        assert_eq!(give_up(true, None), Next::Write);
        assert_eq!(give_up(false, None), Next::Look);
        assert_eq!(give_up(false, Some(NOTHING)), Next::Write);
        assert!(matches!(give_up(false, Some(Signs { exists: true, ..NOTHING })), Next::Wait(_)));
    }
}
