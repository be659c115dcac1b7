//! Kubernetes' protobuf: how lists, events and refusals are wrapped. What is inside of them is [`super::trimmed`]'s.

use super::list::{Part, PartMetadata};
use super::status::Status;
use prost::Message;
use prost::bytes::Bytes;
use serde_json::json;

/// What it is called, and how an answer says that it is it.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every message begins with.
const MAGIC: &[u8] = b"k8s\0";
/// More than an API server takes for an object, or gives for one.
const FRAME: usize = 64 << 20;

/// `runtime.Unknown`.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

/// A list of any kind.
#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(message, required, tag = "1")]
    metadata: ListMeta,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    items: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct ListMeta {
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    next: String,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEvent {
    #[prost(string, tag = "1")]
    step: String,
    #[prost(message, required, tag = "2")]
    object: RawExtension,
}

#[derive(Clone, PartialEq, Message)]
struct RawExtension {
    #[prost(bytes = "bytes", tag = "1")]
    raw: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct StatusMessage {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(message, required, tag = "5")]
    details: StatusDetails,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StatusDetails {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(message, repeated, tag = "4")]
    causes: Vec<StatusCause>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusCause {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(string, tag = "3")]
    field: String,
}

/// The message in an envelope.
fn unwrapped(bytes: Bytes) -> Result<Bytes, String> {
    if !bytes.starts_with(MAGIC) {
        return Err("it does not begin as a message of Kubernetes does".into());
    }
    Ok(decode::<Envelope>(bytes.slice(MAGIC.len()..))?.raw)
}

fn decode<T: Message + Default>(bytes: Bytes) -> Result<T, String> {
    T::decode(bytes).map_err(|error| error.to_string())
}

/// A page of a list, each object read by `item`.
pub(super) fn page<T>(bytes: Vec<u8>, item: impl Fn(&[u8]) -> Result<T, String>) -> Result<Part<T>, String> {
    let List { metadata, items } = decode(unwrapped(bytes.into())?)?;
    let items = items.iter().map(|bytes| item(bytes)).collect::<Result<_, _>>()?;
    let metadata = PartMetadata { resource_version: metadata.resource_version, next: metadata.next };
    Ok(Part { metadata, items: Some(items) })
}

/// A frame of a watch: its step, and its object's message.
pub(super) fn event(frame: Vec<u8>) -> Result<(String, Bytes), String> {
    let WatchEvent { step, object } = decode(frame.into())?;
    Ok((step, unwrapped(object.raw)?))
}

/// A refusal, if these bytes are one in protobuf.
pub(super) fn status(bytes: &[u8]) -> Option<Status> {
    status_of(unwrapped(Bytes::copy_from_slice(bytes)).ok()?)
}

/// The refusal that a message is.
pub(super) fn status_of(message: Bytes) -> Option<Status> {
    let StatusMessage { message, reason, details, code } = decode(message).ok()?;
    let cause = |cause: &StatusCause| json!({"message": cause.message, "field": cause.field});
    let causes: Vec<_> = details.causes.iter().map(cause).collect();
    let details = json!({"name": details.name, "kind": details.kind, "causes": causes});
    serde_json::from_value(json!({"message": message, "reason": reason, "code": code, "details": details})).ok()
}

/// Puts frames together out of bytes as they come: each has its length before it, in four bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    /// The frames that are complete with these bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        self.rest.extend_from_slice(bytes);
        let (mut frames, mut begin) = (Vec::new(), 0);
        while let Some((length, rest)) = self.rest[begin..].split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > FRAME {
                return Err(format!("an event would be {length} bytes long"));
            }
            let Some(frame) = rest.get(..length) else { break };
            frames.push(frame.to_vec());
            begin += 4 + length;
        }
        self.rest.drain(..begin);
        Ok(frames)
    }
}
