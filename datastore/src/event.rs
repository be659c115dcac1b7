//! Events for people: `events.k8s.io/v1`, counted instead of repeated, and never a flood.
//!
//! In flows what happened and when; out flow at most a few writes. The same thing about the same object within ten minutes is
//! one Event with a count; an object has ten writes at once and then one per ten seconds, and what is not written is counted
//! by the next write.

use crate::{Datastore, Error, Filter, Key, Preconditions};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use std::collections::BTreeMap;
use twill_crds::Object;

/// The same thing after this long begins a new Event.
const SERIES: SignedDuration = SignedDuration::from_secs(600);
/// Events older than this are removed, as API servers do.
const KEPT: SignedDuration = SignedDuration::from_secs(3600);
/// Writes that an object has at once.
const BURST: i64 = 10;
/// After that, one write per so many seconds.
const REFILL: i64 = 10;
/// An API server takes no longer note.
const NOTE: usize = 1024;

/// Whether a person should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Normal,
    /// Something is wrong.
    Warning,
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    /// The object; by `api_version`, `kind`, `name` and, where it has one, `namespace` and `uid`.
    pub regarding: ObjectReference,
    /// Whether a person should worry.
    pub severity: Severity,
    /// One word in CamelCase, e.g. `PeerDown`.
    pub reason: String,
    /// What was done or tried, one word in CamelCase, e.g. `Repair`.
    pub action: String,
    /// One sentence.
    pub note: String,
}

/// A reference to an object.
#[must_use]
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::kind().api_version()),
        kind: Some(K::kind().kind.into_owned()),
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        uid: object.meta().uid.clone(),
        ..ObjectReference::default()
    }
}

/// Records what one daemon has to tell.
#[derive(Debug)]
pub struct Recorder {
    controller: String,
    instance: String,
    series: BTreeMap<Subject, Series>,
    buckets: BTreeMap<String, Bucket>,
}

/// What makes two occurrences the same thing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    object: String,
    severity: Severity,
    reason: String,
    note: String,
}

#[derive(Clone, Debug)]
struct Series {
    event: Event,
    count: i32,
    last: Timestamp,
    stored: bool,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: i64,
    since: Timestamp,
}

impl Recorder {
    /// `controller` is a component such as `twill.network/felix`, `instance` its node.
    pub fn new(controller: &str, instance: &str) -> Self {
        let (series, buckets) = (BTreeMap::new(), BTreeMap::new());
        Self { controller: controller.to_owned(), instance: instance.to_owned(), series, buckets }
    }

    /// Tells an occurrence. `id` is random; it makes the Event's name unique.
    ///
    /// # Errors
    /// As the datastore's; the occurrence is then counted by the next write.
    pub async fn record(
        &mut self,
        store: &Datastore,
        occurrence: &Occurrence,
        now: Timestamp,
        id: u64,
    ) -> Result<(), Error> {
        let Some((subject, series)) = self.note(occurrence, now, id) else { return Ok(()) };
        let written =
            if series.stored { rewrite(store, &series.event).await } else { store.create(&series.event).await };
        let event = written?;
        if let Some(series) = self.series.get_mut(&subject) {
            series.event = event;
            series.stored = true;
        }
        Ok(())
    }

    /// Removes this daemon's Events of more than an hour ago; to be called now and then on engines that keep them for ever.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn sweep(&mut self, store: &Datastore, now: Timestamp) -> Result<(), Error> {
        if !store.engine().keeps_events() {
            return Ok(());
        }
        let mine = vec![
            ("reportingController".to_owned(), self.controller.clone()),
            ("reportingInstance".to_owned(), self.instance.clone()),
        ];
        let events = store.list::<Event>(&Filter { fields: mine, ..Filter::default() }).await?;
        for event in events.items.iter().filter(|event| now.duration_since(last_seen(event, now)) > KEPT) {
            let key = Key::namespaced(event.namespace(), event.name());
            let preconditions = Preconditions { uid: event.metadata.uid.clone(), revision: None };
            match store.delete::<Event>(&key, &preconditions).await {
                Ok(()) | Err(Error::NotFound(_) | Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts an occurrence; out comes what to write now, if anything.
    fn note(&mut self, occurrence: &Occurrence, now: Timestamp, id: u64) -> Option<(Subject, Series)> {
        self.series.retain(|_, series| now.duration_since(series.last) < SERIES);
        self.buckets.retain(|_, bucket| now.duration_since(bucket.since).as_secs() < BURST * REFILL);
        let subject = subject(occurrence);
        let new = || Series { event: self.event(occurrence, now, id), count: 0, last: now, stored: false };
        let mut series = self.series.get(&subject).cloned().unwrap_or_else(new);
        series.count += 1;
        series.last = now;
        if series.count > 1 {
            series.event.series = Some(EventSeries { count: series.count, last_observed_time: MicroTime(now) });
        }
        let object = subject.object.clone();
        self.series.insert(subject.clone(), series.clone());
        self.has_token(object, now).then_some((subject, series))
    }

    fn has_token(&mut self, object: String, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(object).or_insert(Bucket { tokens: BURST, since: now });
        let refilled = now.duration_since(bucket.since).as_secs().max(0) / REFILL;
        bucket.tokens = (bucket.tokens + refilled).min(BURST);
        bucket.since += SignedDuration::from_secs(refilled * REFILL);
        let has = bucket.tokens > 0;
        bucket.tokens -= i64::from(has);
        has
    }

    fn event(&self, occurrence: &Occurrence, now: Timestamp, id: u64) -> Event {
        let regarding = occurrence.regarding.clone();
        let name = format!("{}.{id:016x}", regarding.name.as_deref().unwrap_or("unknown"));
        // An Event lives with its object; of an object without namespace, in `default`.
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let note = occurrence.note.char_indices().take_while(|(at, c)| at + c.len_utf8() <= NOTE).map(|(_, c)| c);
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            event_time: Some(MicroTime(now)),
            action: Some(occurrence.action.clone()),
            reason: Some(occurrence.reason.clone()),
            note: Some(note.collect()),
            type_: Some(match occurrence.severity {
                Severity::Normal => "Normal".to_owned(),
                Severity::Warning => "Warning".to_owned(),
            }),
            regarding: Some(regarding),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// Writes a longer series; anew if somebody has removed the Event.
async fn rewrite(store: &Datastore, event: &Event) -> Result<Event, Error> {
    let mut event = event.clone();
    event.metadata.resource_version = None;
    match store.update(&event).await {
        Err(Error::NotFound(_)) => {
            event.metadata.uid = None;
            store.create(&event).await
        }
        done => done,
    }
}

fn subject(occurrence: &Occurrence) -> Subject {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let object = &occurrence.regarding;
    let (kind, namespace, name) = (text(&object.kind), text(&object.namespace), text(&object.name));
    Subject {
        object: format!("{kind}/{namespace}/{name}"),
        severity: occurrence.severity,
        reason: occurrence.reason.clone(),
        note: occurrence.note.clone(),
    }
}

fn last_seen(event: &Event, now: Timestamp) -> Timestamp {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    series.or(event.event_time.as_ref().map(|time| time.0)).unwrap_or(now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn occurrence(name: &str, note: &str) -> Occurrence {
        Occurrence {
            regarding: ObjectReference {
                kind: Some("Node".into()),
                name: Some(name.into()),
                ..ObjectReference::default()
            },
            severity: Severity::Warning,
            reason: "PeerDown".into(),
            action: "Wait".into(),
            note: note.into(),
        }
    }

    #[test]
    fn the_same_thing_is_one_event_with_a_count() {
        let mut recorder = Recorder::new("twill.network/bgpd", "n1");
        let (_, first) = recorder.note(&occurrence("n1", "down"), at(0), 1).unwrap();
        assert_eq!((first.event.series, first.event.metadata.namespace.as_deref()), (None, Some("default")));
        let (_, again) = recorder.note(&occurrence("n1", "down"), at(5), 2).unwrap();
        assert_eq!(again.event.metadata.name, first.event.metadata.name);
        assert_eq!(again.event.series.unwrap().count, 2);
        let (_, other) = recorder.note(&occurrence("n1", "other"), at(5), 3).unwrap();
        assert_eq!(other.count, 1);
        let (_, later) = recorder.note(&occurrence("n1", "down"), at(700), 4).unwrap();
        assert_eq!(later.count, 1);
    }

    #[test]
    fn a_flood_is_counted_and_written_rarely() {
        let mut recorder = Recorder::new("twill.network/bgpd", "n1");
        let mut last = None;
        let writes = (0..1000)
            .filter_map(|n| recorder.note(&occurrence("n1", "down"), at(n / 10), n as u64))
            .inspect(|(_, series)| last = Some(series.count))
            .count();
        assert_eq!(writes, 10 + 9, "ten at once and one per ten seconds of the hundred");
        assert!(last.unwrap() > 900, "the count goes on: {last:?}");
        assert!(recorder.note(&occurrence("n2", "down"), at(100), 0).is_some(), "others have their own");
    }

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let recorder = Recorder::new("c", "i");
        let event = recorder.event(&occurrence("n1", &"ä".repeat(600)), at(0), 1);
        assert_eq!(event.note.unwrap().chars().count(), 512);
    }
}
