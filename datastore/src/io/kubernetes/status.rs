//! What an API server says when it refuses, in the words a caller acts on.

use super::protobuf;
use crate::{Error, Key};
use serde::Deserialize;
use serde_json::json;
use twill_crds::validate::{Invalid, Problem};
use twill_crds::{Kind, names};

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) verb: &'static str,
    pub(super) kind: Kind,
    /// One object, or none for many.
    pub(super) key: Option<Key>,
    /// Of many: only those in this namespace.
    namespace: Option<String>,
    subresource: bool,
}

/// `metav1.Status`, as far as we act on it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) reason: String,
    pub(super) code: u16,
    details: Option<Box<Details>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    name: String,
    kind: String,
    causes: Vec<Cause>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    message: String,
    field: String,
}

impl Status {
    /// Out of the body of an answer that is no success.
    pub(super) fn read(code: u16, body: &[u8]) -> Self {
        let text = || String::from_utf8_lossy(body).trim().chars().take(300).collect();
        let status = protobuf::status(body).or_else(|| serde_json::from_slice(body).ok()).unwrap_or_default();
        let message = if status.message.is_empty() { text() } else { status.message };
        Self { message, code, ..status }
    }

    /// The field that the server cannot select by, if that is what it says.
    pub(super) fn refused_field(&self) -> Option<&str> {
        let by_scheme = self.message.strip_prefix("field label not supported: ").map(str::trim);
        let by_kind =
            || self.message.strip_prefix('"')?.split_once("\" is not a known field selector").map(|(field, _)| field);
        by_scheme.or_else(by_kind).filter(|_| self.code == 400)
    }

    /// The words of a failed call.
    pub(super) fn error(self, asked: &Asked) -> Error {
        match (self.code, self.reason.as_str()) {
            (_, "AlreadyExists") => Error::AlreadyExists(asked.what()),
            (410, _) | (_, "Expired" | "Gone") => Error::Expired,
            // An update may create objects of some kinds, but not under the identity of one that is gone.
            (_, "Conflict") if self.message.ends_with("UID in object meta: ") => Error::NotFound(asked.what()),
            (_, "Conflict") | (409, _) => Error::Conflict(asked.what()),
            (404, _) => self.not_found(asked),
            (403, _) => self.forbidden(asked),
            (422, _) | (_, "Invalid") => Error::Invalid(self.invalid(asked)),
            (400 | 405 | 406 | 413 | 415, _) => {
                Error::Invalid(Problem::new("the document", self.message).of(&asked.kind, &asked.named()))
            }
            _ if self.code == 507 || self.message.contains("database space exceeded") => Error::Full(self.message),
            _ => {
                Error::Unavailable(format!("the API server says {} to {}: {}", self.code, asked.action(), self.message))
            }
        }
    }

    fn not_found(self, asked: &Asked) -> Error {
        let details = self.details.unwrap_or_default();
        if details.name.is_empty() {
            return Error::UnknownKind(asked.unknown());
        }
        if details.kind == asked.kind.plural || asked.key.as_ref().is_some_and(|key| key.name == details.name) {
            return Error::NotFound(asked.what());
        }
        let kind = twill_crds::known::named(&details.kind).map_or(details.kind, |kind| kind.kind.into_owned());
        Error::NotFound(format!("{kind} {}", details.name))
    }

    /// A right that is missing, or an object that some admission does not let in.
    fn forbidden(self, asked: &Asked) -> Error {
        let who = self.message.split_once("User \"").and_then(|(_, rest)| rest.split_once("\" cannot "));
        match who {
            Some((who, _)) => Error::Forbidden { what: asked.right(), who: who.to_owned() },
            None => {
                let message = self.message.split_once(" is forbidden: ").map_or(self.message.as_str(), |(_, why)| why);
                Error::Invalid(Problem::new("the document", message).of(&asked.kind, &asked.named()))
            }
        }
    }

    fn invalid(self, asked: &Asked) -> Invalid {
        let causes = self.details.unwrap_or_default().causes;
        // What could not be checked because of the rest is no news.
        let told = causes.iter().filter(|cause| cause.field != "<nil>" && !cause.field.is_empty());
        let mut told = told.map(|cause| (cause.field.clone(), plain(&cause.message)));
        let (field, mut problem) = told.next().unwrap_or_else(|| ("the document".into(), self.message));
        for (field, more) in told {
            problem = format!("{problem}; {field}: {more}");
        }
        Problem { field, problem }.of(&asked.kind, &asked.named())
    }
}

/// A cause without what only repeats the type of the value that a rule refused.
fn plain(message: &str) -> String {
    let types = ["object", "string", "integer", "array", "boolean", "number"];
    let rule = types.iter().find_map(|kind| message.strip_prefix(&format!("Invalid value: \"{kind}\": ")));
    rule.unwrap_or(message).to_owned()
}

impl Asked {
    pub(super) fn new(verb: &'static str, kind: &Kind, key: Option<&Key>) -> Self {
        Self { verb, kind: kind.clone(), key: key.cloned(), namespace: None, subresource: false }
    }

    /// Of these objects.
    pub(super) fn within(mut self, filter: &crate::Filter) -> Self {
        self.namespace.clone_from(&filter.namespace);
        self
    }

    /// Of the status alone.
    pub(super) fn of_status(mut self, subresource: bool) -> Self {
        self.subresource = subresource;
        self
    }

    /// `Kind name`, or the resource.
    pub(super) fn what(&self) -> String {
        self.key.as_ref().map_or_else(|| self.resource(), |key| Error::what(&self.kind, key))
    }

    /// For people: what was being done.
    pub(super) fn action(&self) -> String {
        format!("{} {}", self.verb, self.what())
    }

    fn named(&self) -> serde_json::Value {
        let key = self.key.clone().unwrap_or_else(|| Key::cluster(""));
        json!({"metadata": {"name": key.name, "namespace": key.namespace}})
    }

    /// As a role names it.
    fn resource(&self) -> String {
        let status = if self.subresource { "/status" } else { "" };
        let (plural, group) = (&self.kind.plural, &self.kind.group);
        if group.is_empty() { format!("{plural}{status}") } else { format!("{plural}{status}.{group}") }
    }

    fn right(&self) -> String {
        let namespace = self.key.as_ref().map(|key| key.namespace.as_str()).or(self.namespace.as_deref());
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        format!("{} {}{place}", self.verb, self.resource())
    }

    fn unknown(&self) -> String {
        let kind = &self.kind.kind;
        if self.kind.group == names::GROUP {
            return format!(
                "the API server does not know {kind}; install Twill's CRDs: twill crds | kubectl apply --server-side -f -"
            );
        }
        let part = if self.subresource { "a status of " } else { "" };
        format!("the API server does not know {part}{} {kind}; install what serves it", self.kind.api_version())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::{IPPool, Object, Pod};

    fn asked<K: Object>(verb: &'static str, key: Option<Key>) -> Asked {
        Asked::new(verb, &K::kind(), key.as_ref())
    }

    fn said<K: Object>(verb: &'static str, key: Option<Key>, code: u16, body: &serde_json::Value) -> String {
        Status::read(code, body.to_string().as_bytes()).error(&asked::<K>(verb, key)).to_string()
    }

    #[test]
    fn a_missing_right_is_named_with_its_user() {
        let message = "pods is forbidden: User \"system:serviceaccount:twill:felix\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
        let body = json!({"message": message, "reason": "Forbidden"});
        let text = said::<Pod>("list", None, 403, &body);
        assert_eq!(text, "system:serviceaccount:twill:felix may not list pods; grant it that right");
        let one = Status::read(403, body.to_string().as_bytes());
        let mut asked = asked::<IPPool>("update", Some(Key::cluster("p")));
        asked.subresource = true;
        assert!(one.error(&asked).to_string().contains("may not update ippools/status.twill.network"));
        let quota = json!({"message": "pods \"p\" is forbidden: exceeded quota: q", "reason": "Forbidden"});
        let text = said::<Pod>("create", Some(Key::namespaced("a", "p")), 403, &quota);
        assert_eq!(text, "Pod a/p: the document: exceeded quota: q");
    }

    #[test]
    fn refused_fields_read_like_ours() {
        let body = json!({"reason": "Invalid", "details": {"causes": [
            {"field": "spec.cidr", "message": "Invalid value: \"string\": is immutable"},
            {"field": "spec.blockSize", "message": "Invalid value: 7: should be greater than or equal to 20"},
            {"field": "<nil>", "message": "Invalid value: null: some validation rules were not checked"}]}});
        let text = said::<IPPool>("update", Some(Key::cluster("p")), 422, &body);
        assert_eq!(
            text,
            "IPPool p: spec.cidr: is immutable; spec.blockSize: Invalid value: 7: should be greater than or equal to 20"
        );
        assert_eq!(said::<IPPool>("update", None, 422, &json!({"message": "no"})), "IPPool : the document: no");
    }

    #[test]
    fn what_is_not_there_is_an_object_its_namespace_or_the_kind() {
        let key = || Some(Key::namespaced("shop", "p"));
        let missing = |name: &str, kind: &str| json!({"reason": "NotFound", "details": {"name": name, "kind": kind}});
        assert_eq!(said::<Pod>("get", key(), 404, &missing("p", "pods")), "Pod shop/p does not exist");
        assert_eq!(said::<Pod>("create", key(), 404, &missing("shop", "namespaces")), "Namespace shop does not exist");
        let text = Status::read(404, b"404 page not found\n").error(&asked::<IPPool>("list", None)).to_string();
        assert!(
            text.contains("does not know IPPool; install Twill's CRDs: twill crds | kubectl apply --server-side -f -"),
            "{text}"
        );
    }

    #[test]
    fn the_rest_is_told_apart_by_code_and_reason() {
        let error = |code, reason: &str, message: &str| {
            let body = json!({"reason": reason, "message": message}).to_string();
            Status::read(code, body.as_bytes()).error(&asked::<Pod>("update", Some(Key::namespaced("a", "p"))))
        };
        assert!(matches!(error(409, "AlreadyExists", ""), Error::AlreadyExists(_)));
        assert!(matches!(error(409, "Conflict", "x"), Error::Conflict(_)));
        assert!(matches!(error(409, "Conflict", "UID in precondition: a, UID in object meta: "), Error::NotFound(_)));
        assert!(matches!(error(410, "Expired", ""), Error::Expired));
        assert!(matches!(error(500, "", "etcdserver: mvcc: database space exceeded"), Error::Full(_)));
        assert!(matches!(error(503, "ServiceUnavailable", ""), Error::Unavailable(_)));
        assert!(matches!(error(504, "Timeout", ""), Error::Unavailable(_)));
        assert!(matches!(error(400, "BadRequest", "json: cannot unmarshal"), Error::Invalid(_)));
        let refused = Status::read(400, br#"{"message":"field label not supported: spec.x"}"#);
        assert_eq!(refused.refused_field(), Some("spec.x"));
        let refused =
            json!({"message": "\"spec.x\" is not a known field selector: only \"metadata.name\""}).to_string();
        assert_eq!(Status::read(400, refused.as_bytes()).refused_field(), Some("spec.x"));
        assert_eq!(Status::read(400, b"{}").refused_field(), None);
    }
}
