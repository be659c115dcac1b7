//! All kinds that a leader follows, in one stream. It ends with its last reader: who does not lead, watches nothing.

use crate::world::Fact;
use futures::stream::{BoxStream, StreamExt, select_all};
use twill_crds::Object;
use twill_datastore::{Datastore, Filter, Followed, follow};

/// Facts at once at most.
const BATCH: usize = 4096;

/// Follows everything. Facts of one kind come in order.
#[must_use]
pub fn follow_all(store: &Datastore) -> BoxStream<'static, Vec<Fact>> {
    select_all([
        one(store, Fact::node),
        one(store, Fact::Network),
        one(store, Fact::Block),
        one(store, Fact::Pool),
        one(store, Fact::Reservation),
        one(store, Fact::Peer),
        one(store, Fact::Filter),
        one(store, Fact::Policy),
        one(store, Fact::ClusterPolicy),
        one(store, Fact::isolation),
        one(store, Fact::Configuration),
    ])
    .ready_chunks(BATCH)
    .boxed()
}

fn one<K: Object>(store: &Datastore, fact: fn(Followed<K>) -> Fact) -> BoxStream<'static, Fact> {
    follow::<K>(store, Filter::default()).map(fact).boxed()
}
