//! What a restart starts from, and when all is known.

use super::*;

#[test]
fn sync_is_all_kinds_and_the_revision_is_that_of_the_slowest() {
    fn synced<K>(revision: u64) -> Followed<K> {
        Followed::Synced { items: Vec::new(), revision: Revision(revision) }
    }
    let mut objects = Objects::of("a1", "twill-system");
    objects.apply(Heard::Node(Box::new(synced(7))));
    let others = [Heard::Pool(synced(7)), Heard::Block(synced(7)), Heard::Peer(synced(7)), Heard::Filter(synced(7))];
    for heard in others.into_iter().chain([Heard::Network(synced(7)), Heard::Secret(Box::new(synced(7)))]) {
        objects.apply(heard);
    }
    assert!(!objects.in_sync());
    assert!(objects.apply(Heard::Configuration(synced(5))), "the first word of a kind is news even if it says nothing");
    assert!(objects.in_sync() && objects.revision() == Revision(5));
    assert!(!objects.apply(Heard::Configuration(Followed::Bookmark(Revision(9)))));
    assert_eq!(objects.revision(), Revision(7));
}

#[test]
fn a_snapshot_means_the_same_after_a_restart_and_holds_no_more_than_is_read() {
    let objects = cluster();
    let text = serde_json::to_string(&snapshot_of(&objects)).unwrap();
    assert!(!text.contains("large"), "{text}");
    let back = Objects::remembered("a1", "twill-system", serde_json::from_str(&text).unwrap());
    assert_eq!(desired("a1", &back), desired("a1", &objects));
    assert!(!back.in_sync());
}

#[test]
fn a_snapshot_of_another_release_is_read() {
    let mut value = serde_json::to_value(snapshot_of(&cluster())).unwrap();
    value.as_object_mut().unwrap().remove("network");
    value["later"] = json!([1]);
    let back = Objects::remembered("a1", "twill-system", serde_json::from_value(value).unwrap());
    assert_eq!(desired("a1", &back), desired("a1", &cluster()));
}
