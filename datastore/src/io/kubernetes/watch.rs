//! A watch: one stream of the server's events after another, from the same revision on.

use super::Shared;
use super::call::{Failure, Request, part};
use super::document::revision_of;
use super::protobuf::{self, Frames};
use super::representation::{Documents, Extent, Representation, is_protobuf, without_protobuf};
use super::selection::{Outside, Seen};
use super::status::{Asked, Status};
use crate::io::follow::rand_unit;
use crate::{Error, Filter, RawEvent, Revision};
use futures::stream::{BoxStream, StreamExt};
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use twill_crds::Kind;

/// The server ends a watch after this long, and up to as much again, so that not all come back at once.
const LENGTH: Duration = Duration::from_secs(300);
/// So much later it should have.
const GRACE: Duration = Duration::from_secs(30);
/// A server that ends watches faster than this, and has told nothing, is not there for us.
const SHORT: Duration = Duration::from_secs(1);

/// What happens after `from`. The server is asked when the stream is first polled.
pub(super) fn watch(
    shared: Arc<Shared>,
    kind: &Kind,
    filter: &Filter,
    extent: Extent,
    from: Revision,
) -> BoxStream<'static, Result<RawEvent, Error>> {
    let state = State::Closed { first: true };
    let (outside, queue) = (Outside::default(), VecDeque::new());
    let (kind, filter) = (kind.clone(), filter.clone());
    let watching = Watching { shared, kind, filter, extent, at: from, state, outside, queue };
    futures::stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(event) => Some((Ok(event), Some(watching))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Watching {
    shared: Arc<Shared>,
    kind: Kind,
    filter: Filter,
    extent: Extent,
    /// All up to here has been told, or is in the queue.
    at: Revision,
    state: State,
    outside: Outside,
    queue: VecDeque<RawEvent>,
}

enum State {
    Closed {
        /// Nothing was asked yet.
        first: bool,
    },
    Open(Box<Open>),
}

struct Open {
    body: Body,
    stream: Stream,
    documents: Documents,
    began: Instant,
    /// Until when the server means to end it.
    ends: Duration,
    heard: bool,
    /// What the server does not select by.
    rest: Filter,
}

impl Watching {
    async fn next(&mut self) -> Result<RawEvent, Error> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(event);
            }
            match std::mem::replace(&mut self.state, State::Closed { first: false }) {
                State::Closed { first: true } => self.begin().await?,
                State::Closed { first: false } => self.state = State::Open(Box::new(self.open().await?)),
                State::Open(open) => self.hear(open).await?,
            }
        }
    }

    /// From the beginning: all there is now is what has happened.
    async fn begin(&mut self) -> Result<(), Error> {
        if self.at == Revision(0) {
            let page = self.shared.list(&self.kind, &self.filter, self.extent).await?;
            let at = |item: &Value| revision_of(&self.kind, item);
            let mut items =
                page.items.into_iter().map(|item| Ok((at(&item)?, item))).collect::<Result<Vec<_>, Error>>()?;
            items.sort_by_key(|(at, _)| *at);
            self.queue.extend(items.into_iter().map(|(at, item)| RawEvent::Applied(item, at)));
            self.at = page.revision;
        }
        self.state = State::Open(Box::new(self.open().await?));
        self.queue.push_back(RawEvent::Bookmark(self.at));
        Ok(())
    }

    async fn open(&mut self) -> Result<Open, Error> {
        let ends = LENGTH + LENGTH.mul_f64(rand_unit());
        let asked = Asked::new("watch", &self.kind, None).within(&self.filter);
        loop {
            let selection = self.shared.selection(&self.kind, &self.filter);
            let query = selection.query.with("watch", "1").with("allowWatchBookmarks", "true");
            let query = query.with("resourceVersion", &self.at.0.to_string());
            let query = query.with("timeoutSeconds", &ends.as_secs().to_string());
            let path = format!("{}{query}", selection.path);
            let documents = self.shared.documents(&self.kind, self.extent, &selection.rest);
            let accept = documents.accept();
            let request = Request { compressed: false, accept, ..Request::get(asked.clone(), path) };
            match self.shared.access.send(&request).await {
                Ok(response) => {
                    let (stream, began) = (Stream::of(is_protobuf(&response)), Instant::now());
                    let body = response.into_body();
                    return Ok(Open { body, stream, documents, began, ends, heard: false, rest: selection.rest });
                }
                Err(Failure::Refused(status)) if self.shared.learns(&self.kind, &self.filter, &status) => {}
                Err(failure) => match without_protobuf(&failure).filter(|_| documents.takes_protobuf()) {
                    Some(why) => self.shared.give_up_protobuf(&self.kind, why),
                    None => return Err(failure.error(&asked)),
                },
            }
        }
    }

    /// The next bytes of the stream, and what they tell.
    async fn hear(&mut self, mut open: Box<Open>) -> Result<(), Error> {
        let left = (open.ends + GRACE).saturating_sub(open.began.elapsed());
        let Some(bytes) = part(&mut open.body, left.max(GRACE)).await? else {
            if !open.heard && open.began.elapsed() < SHORT {
                return Err(Error::Unavailable(format!("the API server ends a watch of {} at once", self.kind.kind)));
            }
            return Ok(());
        };
        open.heard = true;
        let before = self.queue.len();
        let taken = self.take_all(&mut open, &bytes);
        if self.queue.len() > before && !matches!(self.queue.back(), Some(RawEvent::Bookmark(_))) {
            self.queue.push_back(RawEvent::Bookmark(self.at));
        }
        match taken {
            Ok(()) => self.state = State::Open(open),
            // What could not be read is asked for once more, and what comes after it.
            Err(Failure::Unreadable(why)) if open.documents.takes_protobuf() => {
                self.shared.give_up_protobuf(&self.kind, &why);
            }
            Err(failure) => return Err(failure.error(&Asked::new("watch", &self.kind, None))),
        }
        Ok(())
    }

    fn take_all(&mut self, open: &mut Open, bytes: &[u8]) -> Result<(), Failure> {
        for part in open.stream.take(bytes).map_err(Failure::Unreadable)? {
            let read = match open.stream {
                Stream::Lines(_) => read_line(&self.kind, &open.documents, &part)?,
                Stream::Frames(_) => read_frame(&self.kind, &open.documents, part)?,
            };
            if let Some((step, object)) = read {
                self.take(step, object, &open.rest)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, step: Step, object: Value, rest: &Filter) -> Result<(), Error> {
        let at = revision_of(&self.kind, &object)?;
        // The server has another past than the one that was told, as after its storage was put back to an older state.
        if at < self.at {
            return Err(Error::Expired);
        }
        self.at = at;
        self.shared.tell(&self.kind, at);
        let seen = match step {
            Step::Bookmark => Seen::Nothing,
            Step::Added => self.outside.applied(rest, &object, true),
            Step::Modified => self.outside.applied(rest, &object, false),
            Step::Deleted => self.outside.deleted(rest, &object),
        };
        self.queue.push_back(match seen {
            Seen::Applied => RawEvent::Applied(object, at),
            Seen::Deleted => RawEvent::Deleted(object, at),
            Seen::Nothing => RawEvent::Bookmark(at),
        });
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    step: String,
    object: Value,
}

/// What a line tells; none if it is none of ours to understand, which must not stop those after it.
fn read_line(kind: &Kind, documents: &Documents, line: &[u8]) -> Result<Option<(Step, Value)>, Error> {
    let Line { step, object } = match serde_json::from_slice(line) {
        Ok(line) => line,
        Err(error) => {
            tracing::warn!(kind = %kind.kind, %error, "a line of a watch cannot be read, left out");
            return Ok(None);
        }
    };
    Ok(match step_of(kind, &step) {
        Told::Step(step) => Some((step, documents.of_json(object))),
        Told::Error => return Err(ended(kind, serde_json::from_value(object).unwrap_or_default())),
        Told::Nothing => None,
    })
}

/// What a frame tells. One that cannot be read is asked for as JSON, or an object would stay as it was told before.
fn read_frame(kind: &Kind, documents: &Documents, frame: Vec<u8>) -> Result<Option<(Step, Value)>, Failure> {
    let (step, message) = protobuf::event(frame).map_err(Failure::Unreadable)?;
    Ok(match step_of(kind, &step) {
        Told::Step(step) => Some((step, documents.of_protobuf(&message).map_err(Failure::Unreadable)?)),
        Told::Error => return Err(ended(kind, protobuf::status_of(message).unwrap_or_default()).into()),
        Told::Nothing => None,
    })
}

/// What a step's name says.
enum Told {
    Step(Step),
    Error,
    Nothing,
}

fn step_of(kind: &Kind, name: &str) -> Told {
    match name {
        "ADDED" => Told::Step(Step::Added),
        "MODIFIED" => Told::Step(Step::Modified),
        "DELETED" => Told::Step(Step::Deleted),
        "BOOKMARK" => Told::Step(Step::Bookmark),
        "ERROR" => Told::Error,
        other => {
            tracing::warn!(kind = %kind.kind, step = other, "an unknown step of a watch, left out");
            Told::Nothing
        }
    }
}

/// The server ended the watch, and says why.
fn ended(kind: &Kind, status: Status) -> Error {
    match status.error(&Asked::new("watch", kind, None)) {
        Error::Expired => Error::Expired,
        error @ (Error::Unavailable(_) | Error::Forbidden { .. }) => error,
        other => Error::Unavailable(format!("the API server ended the watch: {other}")),
    }
}

/// Puts together what came in pieces.
#[derive(Debug)]
enum Stream {
    /// JSON.
    Lines(Lines),
    /// Protobuf.
    Frames(Frames),
}

impl Stream {
    fn of(is_protobuf: bool) -> Self {
        if is_protobuf { Self::Frames(Frames::default()) } else { Self::Lines(Lines::default()) }
    }

    /// What is complete with these bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        match self {
            Self::Lines(lines) => Ok(lines.take(bytes)),
            Self::Frames(frames) => frames.take(bytes),
        }
    }
}

/// Puts lines together out of bytes as they come.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are complete with these bytes.
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&bytes[..end]);
            if !line.is_empty() {
                lines.push(line);
            }
            bytes = &bytes[end + 1..];
        }
        self.rest.extend_from_slice(bytes);
        lines
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::{Object, Pod};

    #[test]
    fn lines_are_put_together_wherever_they_were_cut() {
        let text = b"one\ntwo\n\nthree\nfo";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let taken: Vec<Vec<u8>> = text.chunks(size).flat_map(|chunk| lines.take(chunk)).collect();
            assert_eq!(taken, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
            assert_eq!(lines.rest, b"fo");
        }
    }

    #[test]
    fn an_error_among_the_events_ends_the_watch_and_nonsense_does_not() {
        let documents = Documents::whole(&Pod::kind());
        let line = |text: &str| read_line(&Pod::kind(), &documents, text.as_bytes());
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#;
        assert!(matches!(line(gone), Err(Error::Expired)));
        let other = r#"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is away"}}"#;
        assert!(matches!(line(other), Err(Error::Unavailable(text)) if text.contains("etcd is away")));
        assert!(line("{ no json").unwrap().is_none());
        assert!(line(r#"{"type":"NEWS","object":{}}"#).unwrap().is_none());
        let added = line(r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"}}}"#).unwrap();
        assert!(matches!(added, Some((Step::Added, _))));
    }
}
