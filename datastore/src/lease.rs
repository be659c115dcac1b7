//! Who may do what only one may do: a `coordination.k8s.io/v1` Lease, taken and kept by compare-and-swap.
//!
//! In flow what the datastore has and the time; out flows whether the lease is ours. Clocks of different machines are never
//! compared: a lease of somebody else has run out when *we* have not seen it change for its whole duration.

use crate::{Datastore, Error, Key, Preconditions};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

/// A lease that this process wants.
#[derive(Debug)]
pub struct Claim {
    key: Key,
    identity: String,
    seconds: i32,
    seen: Option<Seen>,
}

/// Somebody's lease, and when we first saw it as it is.
#[derive(Debug)]
struct Seen {
    revision: Option<String>,
    since: Timestamp,
}

/// Whose a lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Ours until its duration from now; renew it well before.
    Ours,
    /// Somebody else's.
    Theirs {
        /// The holder; empty if it was just let go and another was faster.
        holder: String,
    },
}

#[derive(Debug, PartialEq)]
enum Step {
    Create(Lease),
    Update(Lease),
    Wait { holder: String },
}

impl Claim {
    /// `identity` differs between processes, also between two lives of one. A lease counts `seconds` from its renewal.
    pub fn new(namespace: &str, name: &str, identity: &str, seconds: u16) -> Self {
        let key = Key::namespaced(namespace, name);
        Self { key, identity: identity.to_owned(), seconds: i32::from(seconds.max(1)), seen: None }
    }

    /// Takes the lease if it is free or has run out, renews it if it is ours. To be called again and again, every third of
    /// the duration.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Full`]: whether the lease is ours is then unknown; it is while the duration since the
    /// last [`Held::Ours`] lasts.
    pub async fn hold(&mut self, store: &Datastore, now: Timestamp) -> Result<Held, Error> {
        let current = store.get::<Lease>(&self.key).await?;
        let done = match self.step(current.as_ref(), now) {
            Step::Wait { holder } => return Ok(Held::Theirs { holder }),
            Step::Create(lease) => store.create(&lease).await.map(drop),
            Step::Update(lease) => store.update(&lease).await.map(drop),
        };
        match done {
            Ok(()) => Ok(Held::Ours),
            Err(Error::AlreadyExists(_) | Error::Conflict(_) | Error::NotFound(_)) => {
                Ok(Held::Theirs { holder: String::new() })
            }
            Err(error) => Err(error),
        }
    }

    /// Lets the lease go if it is ours, so that nobody has to wait for it to run out.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn release(&mut self, store: &Datastore) -> Result<(), Error> {
        let Some(lease) = store.get::<Lease>(&self.key).await? else { return Ok(()) };
        if holder(&lease) != self.identity {
            return Ok(());
        }
        let uid = lease.metadata.uid.clone();
        let revision = lease.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).map(crate::Revision);
        match store.delete::<Lease>(&self.key, &Preconditions { uid, revision }).await {
            Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(()),
            done => done,
        }
    }

    fn step(&mut self, current: Option<&Lease>, now: Timestamp) -> Step {
        let Some(current) = current else {
            self.seen = None;
            let (namespace, name) = (self.key.namespace.clone(), self.key.name.clone());
            let metadata = ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() };
            return Step::Create(self.taken(Lease { metadata, spec: None }, now));
        };
        let holder = holder(current);
        if holder == self.identity || holder.is_empty() || self.has_run_out(current, now) {
            return Step::Update(self.taken(current.clone(), now));
        }
        Step::Wait { holder: holder.to_owned() }
    }

    /// Whether this state of the lease has been there for the whole duration that its holder promised to renew it in.
    fn has_run_out(&mut self, current: &Lease, now: Timestamp) -> bool {
        let revision = current.metadata.resource_version.clone();
        let since = match &self.seen {
            Some(seen) if seen.revision == revision => seen.since,
            _ => now,
        };
        self.seen = Some(Seen { revision, since });
        let seconds = current.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(self.seconds);
        now.duration_since(since) > SignedDuration::from_secs(i64::from(seconds))
    }

    fn taken(&self, mut lease: Lease, now: Timestamp) -> Lease {
        let ours = holder(&lease) == self.identity;
        let old = lease.spec.take().unwrap_or_default();
        let changes_hands = !ours && old.acquire_time.is_some();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.seconds),
            renew_time: Some(MicroTime(now)),
            acquire_time: if ours { old.acquire_time } else { Some(MicroTime(now)) },
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(changes_hands)),
            ..old
        });
        lease
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// What the datastore would hold after the step.
    fn stored(step: Step, revision: u32) -> Lease {
        let (Step::Create(mut lease) | Step::Update(mut lease)) = step else { panic!("{step:?}") };
        lease.metadata.resource_version = Some(revision.to_string());
        lease
    }

    #[test]
    fn a_free_lease_is_taken_and_renewed_by_its_holder_alone() {
        let mut a = Claim::new("kube-system", "twill", "a", 15);
        let mut b = Claim::new("kube-system", "twill", "b", 15);
        let lease = stored(a.step(None, at(0)), 1);
        assert_eq!(b.step(Some(&lease), at(1)), Step::Wait { holder: "a".into() });
        let renewed = stored(a.step(Some(&lease), at(5)), 2);
        let spec = renewed.spec.unwrap();
        assert_eq!((spec.acquire_time, spec.renew_time), (Some(MicroTime(at(0))), Some(MicroTime(at(5)))));
        assert_eq!(spec.lease_transitions, Some(0));
    }

    #[test]
    fn a_lease_runs_out_only_after_its_duration_without_change_seen_by_oneself() {
        let mut a = Claim::new("kube-system", "twill", "a", 15);
        let mut b = Claim::new("kube-system", "twill", "b", 15);
        let first = stored(a.step(None, at(0)), 1);
        // b looks for the first time long after: its clock may be wrong, so it waits the duration all the same.
        assert!(matches!(b.step(Some(&first), at(1000)), Step::Wait { .. }));
        let renewed = stored(a.step(Some(&first), at(10)), 2);
        assert!(matches!(b.step(Some(&renewed), at(1014)), Step::Wait { .. }));
        assert!(matches!(b.step(Some(&renewed), at(1029)), Step::Wait { .. }));
        let taken = stored(b.step(Some(&renewed), at(1030)), 3);
        let spec = taken.spec.as_ref().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
        assert!(matches!(a.step(Some(&taken), at(12)), Step::Wait { holder } if holder == "b"));
    }
}
