//! Addresses of resources.

use crate::{Error, Key};
use std::fmt::Write;
use twill_crds::Kind;
use twill_crds::validate::Problem;

/// All objects of a kind, or those of a namespace.
pub(super) fn collection(kind: &Kind, namespace: Option<&str>) -> String {
    let mut path = root(kind);
    if let Some(namespace) = namespace.filter(|_| kind.namespaced) {
        let _ = write!(path, "/namespaces/{}", encoded(namespace));
    }
    let _ = write!(path, "/{}", encoded(&kind.plural));
    path
}

/// One object. A name that could stand for something else in a path is none.
pub(super) fn object(kind: &Kind, key: &Key) -> Result<String, Error> {
    let wrong = |field: &str, problem: &str| {
        let named = serde_json::json!({"metadata": {"name": key.name, "namespace": key.namespace}});
        Error::from(Problem::new(field, problem).of(kind, &named))
    };
    if matches!(key.name.as_str(), "" | "." | "..") || key.name.contains('/') {
        return Err(wrong("metadata.name", "is no name of an object; give one without '/'"));
    }
    if kind.namespaced && (matches!(key.namespace.as_str(), "" | "." | "..") || key.namespace.contains('/')) {
        return Err(wrong("metadata.namespace", "is missing or no name; objects of this kind live in a namespace"));
    }
    Ok(format!("{}/{}", collection(kind, Some(&key.namespace)), encoded(&key.name)))
}

/// The group and version of a kind.
pub(super) fn root(kind: &Kind) -> String {
    let (group, version) = (encoded(&kind.group), encoded(&kind.version));
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// What follows a path after `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(String);

impl Query {
    /// With one more parameter.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        let separator = if self.0.is_empty() { '?' } else { '&' };
        let _ = write!(self.0, "{separator}{name}={}", encoded(value));
        self
    }
}

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Percent-encoded but for what RFC 3986 section 2.3 leaves as it is.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use twill_crds::{IPPool, Node, Object, Pod};

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(collection(&Pod::kind(), None), "/api/v1/pods");
        assert_eq!(collection(&Pod::kind(), Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(collection(&Node::kind(), Some("shop")), "/api/v1/nodes");
        assert_eq!(object(&IPPool::kind(), &Key::cluster("p")).unwrap(), "/apis/twill.network/v1/ippools/p");
        assert_eq!(object(&Pod::kind(), &Key::namespaced("a b", "p?")).unwrap(), "/api/v1/namespaces/a%20b/pods/p%3F");
    }

    #[test]
    fn a_path_never_means_more_than_one_object() {
        for name in ["", ".", "..", "a/b"] {
            assert!(matches!(object(&Node::kind(), &Key::cluster(name)), Err(Error::Invalid(_))), "{name}");
            assert!(matches!(object(&Pod::kind(), &Key::namespaced(name, "p")), Err(Error::Invalid(_))), "{name}");
        }
    }

    #[test]
    fn a_query_is_encoded() {
        let query = Query::default().with("limit", "5").with("labelSelector", "a in (b,c)");
        assert_eq!(query.to_string(), "?limit=5&labelSelector=a%20in%20%28b%2Cc%29");
    }
}
