//! What every engine must do, as cases over the typed handle of an empty datastore. with `#[macro_use] mod suite`, `every_case!(setup)` makes a test of each;
//! [`CASES`] lists them for an engine whose server all cases share in turn.
#![allow(dead_code, unreachable_pub)]

mod freshness;
mod history;
mod holding;
mod objects;
mod watching;

use futures::StreamExt;
use serde_json::json;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;
use twill_crds::{IPPool, Node, Pod};
use twill_datastore::Datastore;

/// A case: it is given an empty datastore, and panics where it is wrong.
pub type Case = fn(Datastore) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        /// All cases by name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($case), |store| Box::pin($module::$case(store)))),*];

        /// One case by name.
        pub fn case(name: &str) -> Case {
            CASES.iter().find(|(known, _)| *known == name).expect("a case of that name").1
        }

        /// A test for each case: `setup` is an async function without arguments that gives what must be kept, and the datastore.
        #[allow(unused_macros)]
        macro_rules! every_case {
            ($setup:path) => {
                $(#[tokio::test]
                async fn $case() {
                    let (_kept, store) = $setup().await;
                    suite::case(stringify!($case))(store).await;
                })*
            };
        }
    };
}

cases! {
    objects::they_carry_the_metadata_of_an_api_server,
    objects::of_two_who_read_the_same_revision_one_writes_and_the_other_reads_again,
    objects::an_update_without_revision_replaces_what_is_there,
    objects::status_changes_by_its_own_call_alone,
    objects::a_delete_holds_to_its_preconditions,
    objects::what_breaks_a_rule_is_refused_with_object_and_field,
    objects::lists_are_ordered_and_filtered,
    objects::a_long_list_is_whole,
    watching::a_watch_tells_all_in_order,
    watching::an_object_that_enters_or_leaves_the_filter_is_applied_or_deleted,
    watching::a_follower_that_was_far_behind_catches_up_in_order,
    watching::two_handles_hear_each_other,
    freshness::a_mark_is_reached_once_everything_before_it_was_heard,
    freshness::a_deletion_counts,
    freshness::nothing_at_all_is_reached_at_once,
    holding::a_lease_has_one_holder_and_is_free_once_released,
    holding::events_are_stored_counted_and_swept,
    history::a_list_and_the_events_after_it_are_the_later_list,
}

pub fn node(name: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

pub fn labelled(name: &str, key: &str, value: &str) -> Node {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {key: value}}})).unwrap()
}

/// A pod that runs nowhere, or it would be there until its kubelet lets it go.
pub fn pod(name: &str, app: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": "none"}]}
    }))
    .unwrap()
}

pub fn pool(name: &str, cidr: &str) -> IPPool {
    serde_json::from_value(json!({
        "apiVersion": "twill.network/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": {"cidr": cidr}
    }))
    .unwrap()
}

/// The next item, within a time that only a hang exceeds.
pub async fn next<S: futures::Stream + Unpin>(stream: &mut S) -> S::Item {
    timeout(Duration::from_secs(20), stream.next()).await.expect("the stream is silent").expect("the stream ended")
}
