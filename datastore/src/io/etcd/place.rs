//! Transactions that hold only in the datastore that the handle began with.

use super::Shared;
use super::connection::Repeat;
use super::failure::Failure;
use super::layout::{Keys, number_of};
use super::past::{Head, Past};
use crate::{Filter, Revision};
use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse};

/// What etcd answers to a transaction.
pub(super) struct Answer {
    /// Whether the comparisons held.
    pub(super) held: bool,
    /// etcd's revision then; of a write, its own.
    pub(super) revision: i64,
    /// What each read found, in their order.
    pub(super) found: Vec<GetResponse>,
}

/// What to do if the comparisons hold, and what to read if not.
#[derive(Default)]
pub(super) struct Deal {
    pub(super) compare: Vec<Compare>,
    pub(super) then: Vec<TxnOp>,
    pub(super) otherwise: Vec<TxnOp>,
}

impl Shared {
    /// One read of what there is now, in one revision. Linearizable: it shows every write that had been answered before.
    pub(super) async fn read(&self, then: Vec<TxnOp>) -> Result<Answer, Failure> {
        self.transaction(Repeat::Always, Deal { then, ..Deal::default() }).await
    }

    /// One transaction, in this datastore or not at all.
    pub(super) async fn transaction(&self, repeat: Repeat, deal: Deal) -> Result<Answer, Failure> {
        let (key, identity) = (self.layout.identity(), self.identity().await?);
        let mut compare = vec![Compare::value(key.as_str(), CompareOp::Equal, identity.as_str())];
        compare.extend(deal.compare);
        let mut otherwise = vec![TxnOp::get(key, None)];
        otherwise.extend(deal.otherwise);
        let transaction = Txn::new().when(compare).and_then(deal.then).or_else(otherwise);
        let send = |mut live: super::connection::Live| {
            let transaction = transaction.clone();
            async move { live.kv.txn(transaction).await }
        };
        let mut response = self.connection.call(repeat, send).await?;
        let revision = response.take_header().map_or(0, |header| header.revision());
        let gets = |op| if let TxnOpResponse::Get(found) = op { Some(found) } else { None };
        let mut found: Vec<GetResponse> = response.op_responses().into_iter().filter_map(gets).collect();
        if !response.succeeded() {
            self.check(identity, &found.remove(0))?;
        }
        Ok(Answer { held: response.succeeded(), revision, found })
    }

    /// What tells this datastore from others; read once, and what the handle holds to from then on.
    pub(super) async fn identity(&self) -> Result<&String, Failure> {
        let read = || async {
            let key = self.layout.identity();
            let get = |mut live: super::connection::Live| {
                let key = key.clone();
                async move { live.kv.get(key, None).await }
            };
            let found = self.connection.call(Repeat::Always, get).await?;
            identity_in(&found).ok_or_else(|| {
                Failure::Place(format!(
                    "there is no datastore of Twill under {} yet; twill apply with the same URL makes it",
                    self.layout.prefix()
                ))
            })
        };
        self.identity.get_or_try_init(read).await
    }

    /// Whether a watch may go on from a revision: etcd still shows the head that was told. If not, all is to be listed again.
    pub(super) async fn go_on(&self, keys: &Keys, filter: &Filter, from: Revision) -> Result<(), Failure> {
        let (head, told) = (keys.head(), self.pasts.of(&keys.head(), filter));
        // From the very beginning there is nothing that was told.
        let asked: Vec<Revision> = [Some(from), told.as_ref().map(|told| told.up_to)].into_iter().flatten().collect();
        let asked: Vec<Revision> = asked.into_iter().filter(|at| *at > Revision(0)).collect();
        let get = |at: &Revision| TxnOp::get(head.as_str(), Some(GetOptions::new().with_revision(number_of(*at))));
        let answer = self.read(asked.iter().map(get).collect()).await?;
        let shown = |at: Revision| {
            let found = asked.iter().position(|asked| *asked == at).and_then(|n| answer.found.get(n));
            found.and_then(|found| found.kvs().first()).map(head_of).unwrap_or_default()
        };
        if told.as_ref().is_some_and(|told| shown(told.up_to) != told.head) {
            return Err(Failure::Compacted);
        }
        if from > Revision(0) && told.is_none_or(|told| told.up_to < from) {
            self.pasts.begin(&head, filter, Past { up_to: from, head: shown(from) });
        }
        Ok(())
    }

    /// Makes the identity if there is none.
    pub(super) async fn make(&self) -> Result<(), Failure> {
        match self.identity().await {
            Err(Failure::Place(_)) => {}
            done => return done.map(drop),
        }
        let (key, identity) = (self.layout.identity(), uuid::Uuid::new_v4().to_string());
        let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let transaction = Txn::new().when([absent]).and_then([TxnOp::put(key, identity, None)]);
        let send = |mut live: super::connection::Live| {
            let transaction = transaction.clone();
            async move { live.kv.txn(transaction).await }
        };
        self.connection.call(Repeat::Always, send).await?;
        self.identity().await.map(drop)
    }

    fn check(&self, identity: &str, found: &GetResponse) -> Result<(), Failure> {
        let prefix = self.layout.prefix();
        match identity_in(found) {
            Some(found) if found == identity => Ok(()),
            Some(_) => Err(Failure::Place(format!(
                "under {prefix} there is another datastore than before; put that one, or a copy of it, back, or start this \
                 process again to go on with the new one"
            ))),
            None => Err(Failure::Place(format!(
                "the datastore that was under {prefix} is gone; put it, or a copy of it, back there"
            ))),
        }
    }
}

/// A head as etcd gives it.
pub(super) fn head_of(kv: &KeyValue) -> Head {
    Head { revision: kv.mod_revision(), value: kv.value().to_vec() }
}

fn identity_in(found: &GetResponse) -> Option<String> {
    found.kvs().first().and_then(|kv| kv.value_str().ok()).map(str::to_owned)
}
