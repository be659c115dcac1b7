//! What is written.

use super::Shared;
use super::call::{Failure, Request};
use super::document::{key_of, sent, told};
use super::path;
use super::status::Asked;
use crate::document::check_current;
use crate::{Error, Key, Preconditions};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::PoisonError;
use twill_crds::{Kind, names};

/// How often an update that may replace anything is tried while others write.
const ATTEMPTS: usize = 10;

/// Which part of an object an update is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status.
    Main,
    /// The status alone.
    Status,
}

impl Shared {
    pub(super) async fn get(&self, kind: &Kind, key: &Key) -> Result<Option<Value>, Error> {
        let asked = Asked::new("get", kind, Some(key));
        let request = Request::get(asked, path::object(kind, key)?);
        match self.access.call(&request).await.map_err(|failure| failure.error(&request.asked)) {
            Ok(object) => Ok(Some(told(kind, object))),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create(&self, kind: &Kind, object: Value) -> Result<Value, Error> {
        let key = key_of(kind, &object);
        path::object(kind, &key)?;
        let object = sent(kind, object, |metadata| {
            for given in ["resourceVersion", "uid", "creationTimestamp", "deletionTimestamp", "selfLink"] {
                metadata.remove(given);
            }
        });
        let asked = Asked::new("create", kind, Some(&key));
        self.write(Request::write(asked, Method::POST, path::collection(kind, Some(&key.namespace)), &object)).await
    }

    pub(super) async fn update(&self, kind: &Kind, object: Value, part: Part) -> Result<Value, Error> {
        let key = key_of(kind, &object);
        let versioned = object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty());
        let apart = self.has_status_apart(kind).await?;
        for _ in 1..ATTEMPTS {
            match self.replace(kind, &key, &object, part, apart, versioned).await {
                // Whoever names no revision wants theirs to be the last.
                Err(Error::Conflict(_)) if !versioned => {}
                done => return done,
            }
        }
        self.replace(kind, &key, &object, part, apart, versioned).await
    }

    /// One try. The server does it alone if it keeps status apart and a revision is named; else the stored document is read first.
    async fn replace(
        &self,
        kind: &Kind,
        key: &Key,
        object: &Value,
        part: Part,
        apart: bool,
        versioned: bool,
    ) -> Result<Value, Error> {
        let object = if apart && versioned {
            sent(kind, object.clone(), |_| ())
        } else {
            let what = Error::what(kind, key);
            let current = self.get(kind, key).await?.ok_or_else(|| Error::NotFound(what.clone()))?;
            check_current(&what, &current, object)?;
            sent(kind, merged(current, object, part), |_| ())
        };
        let subresource = apart && part == Part::Status;
        let asked = Asked::new("update", kind, Some(key)).of_status(subresource);
        let path = path::object(kind, key)?;
        let path = if subresource { format!("{path}/status") } else { path };
        self.write(Request::write(asked, Method::PUT, path, &object)).await
    }

    async fn write(&self, request: Request) -> Result<Value, Error> {
        let stored = self.access.call(&request).await.map_err(|failure| failure.error(&request.asked))?;
        Ok(told(&request.asked.kind, stored))
    }

    /// `grace` is what a Pod's containers get to end; none is what the Pod asks for.
    pub(super) async fn delete(
        &self,
        kind: &Kind,
        key: &Key,
        preconditions: &Preconditions,
        grace: Option<u32>,
    ) -> Result<(), Error> {
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        if let Some(seconds) = grace {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(uid) = &preconditions.uid {
            options["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(revision) = preconditions.revision {
            options["preconditions"]["resourceVersion"] = revision.0.to_string().into();
        }
        let asked = Asked::new("delete", kind, Some(key));
        let request = Request::write(asked, Method::DELETE, path::object(kind, key)?, &options);
        self.access.call::<Value>(&request).await.map(drop).map_err(|failure| failure.error(&request.asked))
    }

    /// Whether an update of objects of this kind leaves their status alone. Kubernetes' own kinds and ours have it so, or have
    /// no status; of others their group tells.
    async fn has_status_apart(&self, kind: &Kind) -> Result<bool, Error> {
        let group = kind.group.as_ref();
        let known = !group.contains('.') || group == names::GROUP || twill_crds::known::of(group, &kind.kind).is_some();
        if known {
            return Ok(true);
        }
        let remembered = |shared: &Self| {
            let apart = shared.apart.lock().unwrap_or_else(PoisonError::into_inner);
            apart.get(kind).copied()
        };
        if let Some(apart) = remembered(self) {
            return Ok(apart);
        }
        let asked = Asked::new("get", kind, None);
        let request = Request::get(asked, path::root(kind));
        let served: Served =
            self.access.call(&request).await.map_err(|failure: Failure| failure.error(&request.asked))?;
        let apart = served.resources.iter().any(|resource| resource.name == format!("{}/status", kind.plural));
        self.apart.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.clone(), apart);
        Ok(apart)
    }
}

/// `metav1.APIResourceList`, as far as we need it.
#[derive(Deserialize)]
struct Served {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

/// The document to store: the stored one with one part replaced.
fn merged(current: Value, object: &Value, part: Part) -> Value {
    let (mut next, from) = match part {
        Part::Main => (object.clone(), &current),
        Part::Status => (current.clone(), object),
    };
    match from.get("status") {
        Some(status) if !status.is_null() => next["status"] = status.clone(),
        _ => drop(next.as_object_mut().map(|fields| fields.remove("status"))),
    }
    for field in ["resourceVersion", "uid"] {
        next["metadata"][field] = current["metadata"][field].clone();
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_of_a_document_is_replaced_at_its_revision() {
        let current = json!({"metadata": {"name": "o", "uid": "u", "resourceVersion": "7"}, "spec": 1, "status": 2});
        let object = json!({"metadata": {"name": "o", "labels": {"a": "b"}}, "spec": 3, "status": 4});
        let main = merged(current.clone(), &object, Part::Main);
        assert_eq!(
            (&main["spec"], &main["status"], &main["metadata"]["labels"]["a"]),
            (&json!(3), &json!(2), &json!("b"))
        );
        assert_eq!((&main["metadata"]["uid"], &main["metadata"]["resourceVersion"]), (&json!("u"), &json!("7")));
        let status = merged(current.clone(), &object, Part::Status);
        assert_eq!((&status["spec"], &status["status"]), (&json!(1), &json!(4)));
        assert!(status["metadata"].get("labels").is_none());
        let none = merged(current, &json!({"metadata": {}}), Part::Status);
        assert!(none.get("status").is_none());
    }
}
