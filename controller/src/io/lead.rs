//! Who leads: the holder of one Lease. Who cannot renew it stops well before it runs out, for everybody else.

use super::Clock;
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use twill_datastore::lease::{Claim, Held};
use twill_datastore::{Datastore, Error};

/// How long the last words of a leader may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A candidate.
pub struct Candidate {
    store: Datastore,
    claim: Claim,
    clock: Clock,
    /// For how long the Lease counts from its renewal.
    length: Duration,
}

/// How long it is sure that we lead. Who acts asks before each step: a process that was stopped goes on in the middle of something.
#[derive(Clone, Debug)]
pub struct Tenure(Rc<Cell<Instant>>);

impl Tenure {
    /// Whether it still is.
    #[must_use]
    pub fn lasts(&self) -> bool {
        Instant::now() < self.0.get()
    }
}

/// What a candidate knows of the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody holds it: maybe it has no name yet.
    Leader(String),
    /// The datastore does not answer.
    Unknown(String),
}

impl Candidate {
    /// `identity` differs between processes, also between two lives of one.
    #[must_use]
    pub fn new(store: Datastore, namespace: &str, name: &str, identity: &str, seconds: u16) -> Self {
        let claim = Claim::new(namespace, name, identity, seconds);
        Self { store, claim, clock: Clock::start(), length: Duration::from_secs(seconds.max(1).into()) }
    }

    /// Leads whenever it can, for ever: `term` runs from when the Lease is ours until that is no longer sure. `news` hears who leads
    /// while we do not.
    pub async fn run<F: Future<Output = ()>>(&mut self, mut term: impl FnMut(Tenure) -> F, mut news: impl FnMut(News)) {
        loop {
            let asked = Instant::now();
            match self.hold().await {
                Ok(Held::Ours) => {
                    tracing::info!("this controller leads");
                    let tenure = Tenure(Rc::new(Cell::new(asked + self.sure())));
                    tokio::select! {
                        () = term(tenure.clone()) => {}
                        () = self.keep(tenure) => {}
                    }
                    tracing::warn!("this controller no longer leads");
                    news(News::Unknown("the Lease was lost".to_owned()));
                }
                Ok(Held::Theirs { holder }) => news(News::Leader(holder)),
                Err(error) => {
                    tracing::warn!(%error, "whether anybody leads is not known");
                    news(News::Unknown(error.to_string()));
                }
            }
            sleep(self.length / 3).await;
        }
    }

    /// For how long after it was asked for the Lease is taken as ours; the last third is left for what is under way by then.
    fn sure(&self) -> Duration {
        self.length * 2 / 3
    }

    /// Renews the Lease until it is somebody else's, or could be soon.
    async fn keep(&mut self, tenure: Tenure) {
        let mut pause = self.length / 3;
        loop {
            let until = tenure.0.get();
            let held = async {
                sleep(pause).await;
                (Instant::now(), self.hold().await)
            };
            let (asked, held) = tokio::select! {
                held = held => held,
                () = sleep_until(until) => return,
            };
            match held {
                Ok(Held::Ours) => {
                    tenure.0.set(asked + self.sure());
                    pause = self.length / 3;
                }
                Ok(Held::Theirs { holder }) => {
                    tracing::warn!(%holder, "the Lease was taken");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "the Lease could not be renewed; trying again");
                    pause = self.length / 15;
                }
            }
        }
    }

    /// Lets the Lease go, so that nobody waits for it to run out.
    pub async fn release(&mut self) {
        match timeout(FAREWELL, self.claim.release(&self.store)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the Lease was not let go; it runs out"),
            Err(_) => tracing::warn!("the datastore does not answer; the Lease runs out"),
        }
    }

    async fn hold(&mut self) -> Result<Held, Error> {
        let slow = || Error::Unavailable("it did not answer within the Lease's time".to_owned());
        timeout(self.length / 3, self.claim.hold(&self.store, self.clock.steady()))
            .await
            .unwrap_or_else(|_| Err(slow()))
    }
}
