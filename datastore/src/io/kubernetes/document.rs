//! Documents as an API server gives them, and as everybody else here knows them.

use crate::{Error, Key, Revision};
use serde_json::{Map, Value};
use twill_crds::Kind;

/// A document as the engine tells it: with its type, which lists leave out, and without who wrote which field, which is often
/// half of it.
pub(super) fn told(kind: &Kind, mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
        fields.entry("kind").or_insert_with(|| kind.kind.clone().into());
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// A document as it is sent; its metadata is changed by `change`.
pub(super) fn sent(kind: &Kind, object: Value, change: impl FnOnce(&mut Map<String, Value>)) -> Value {
    let mut object = told(kind, object);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        change(metadata);
    }
    object
}

/// The key of a document.
pub(super) fn key_of(kind: &Kind, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let namespace = if kind.namespaced { text("namespace") } else { String::new() };
    Key { namespace, name: text("name") }
}

/// The revision of a document.
pub(super) fn revision_of(kind: &Kind, object: &Value) -> Result<Revision, Error> {
    revision(kind, object["metadata"]["resourceVersion"].as_str().unwrap_or_default())
}

/// A revision as an API server writes it.
pub(super) fn revision(kind: &Kind, text: &str) -> Result<Revision, Error> {
    let number = text.parse().map(Revision);
    number.map_err(|_| {
        Error::Unavailable(format!("the API server gives {} the revision {text:?}, which is no number", kind.kind))
    })
}
