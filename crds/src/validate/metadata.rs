//! What every object must have: type, a name that is a DNS name, labels that selectors can name.

use super::Problem;
use crate::Kind;
use serde_json::{Map, Value};

/// Fills in `apiVersion`, `kind` and a Namespace's own label; checks names and labels as an API server does.
pub(super) fn admit(kind: &Kind, object: &mut Value) -> Result<(), Problem> {
    let Some(fields) = object.as_object_mut() else { return Err(Problem::new("", "is not an object")) };
    fill(fields, "apiVersion", &kind.api_version())?;
    fill(fields, "kind", &kind.kind)?;
    let metadata = fields.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    let Some(metadata) = metadata.as_object_mut() else { return Err(Problem::new("metadata", "is not an object")) };
    name(kind, metadata)?;
    if kind.group.is_empty() && kind.kind == "Namespace" {
        let name = metadata.get("name").cloned().unwrap_or_default();
        let labels = metadata.entry("labels").or_insert_with(|| Value::Object(Map::new()));
        if labels.is_null() {
            *labels = Value::Object(Map::new());
        }
        if let Some(labels) = labels.as_object_mut() {
            labels.insert("kubernetes.io/metadata.name".into(), name);
        }
    }
    labels("metadata.labels", metadata.get("labels"))
}

/// The field has this value; absent, it gets it.
fn fill(fields: &mut Map<String, Value>, field: &str, value: &str) -> Result<(), Problem> {
    match fields.get(field) {
        None | Some(Value::Null) => {
            fields.insert(field.into(), value.into());
            Ok(())
        }
        Some(Value::String(found)) if found == value => Ok(()),
        Some(found) => Err(Problem::new(field, format!("is {found}, must be \"{value}\""))),
    }
}

fn name(kind: &Kind, metadata: &Map<String, Value>) -> Result<(), Problem> {
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    let namespace = text("namespace");
    if name.is_empty() {
        return Err(Problem::new("metadata.name", "is missing; give the object a name"));
    }
    let is_label_only = kind.group.is_empty() && kind.kind == "Namespace";
    let valid = if is_label_only { is_dns_label(name) } else { is_dns_subdomain(name) };
    if !valid {
        let limit = if is_label_only { "at most 63" } else { "at most 253" };
        let dots = if is_label_only { "" } else { " or '.'" };
        return Err(Problem::new(
            "metadata.name",
            format!(
                "\"{name}\" is no DNS name (RFC 1123); use {limit} lower-case letters, digits, '-'{dots}, with a letter or \
                 digit at both ends"
            ),
        ));
    }
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => Err(Problem::new("metadata.namespace", "is missing; objects of this kind live in a namespace")),
        (true, false) if !is_dns_label(namespace) => Err(Problem::new(
            "metadata.namespace",
            format!("\"{namespace}\" is no DNS label (RFC 1123); use at most 63 lower-case letters, digits or '-'"),
        )),
        (false, false) => {
            Err(Problem::new("metadata.namespace", "is set; objects of this kind have no namespace, leave it out"))
        }
        _ => Ok(()),
    }
}

/// Checks a map of labels.
pub(super) fn labels(field: &str, labels: Option<&Value>) -> Result<(), Problem> {
    let Some(labels) = labels.filter(|labels| !labels.is_null()) else { return Ok(()) };
    let Some(labels) = labels.as_object() else { return Err(Problem::new(field, "is not a map of strings")) };
    for (key, value) in labels {
        label_key(field, key)?;
        match value.as_str() {
            Some(value) => label_value(&format!("{field}.{key}"), value)?,
            None => {
                return Err(Problem::new(format!("{field}.{key}"), format!("is {value}, must be a string; quote it")));
            }
        }
    }
    Ok(())
}

/// `[prefix/]name`: a DNS name, and at most 63 letters, digits, `-`, `_`, `.`.
pub(super) fn label_key(field: &str, key: &str) -> Result<(), Problem> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_none_or(is_dns_subdomain) && !name.is_empty() && is_label_text(name) {
        return Ok(());
    }
    Err(Problem::new(
        field,
        format!(
            "\"{key}\" is no label key; use [DNS name/]at most 63 letters, digits, '-', '_' or '.', none of these at an end"
        ),
    ))
}

/// At most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends; or empty.
pub(super) fn label_value(field: &str, value: &str) -> Result<(), Problem> {
    if value.is_empty() || is_label_text(value) {
        return Ok(());
    }
    let problem = format!(
        "\"{value}\" is no label value; use at most 63 letters, digits, '-', '_' or '.', none of these at an end"
    );
    Err(Problem::new(field, problem))
}

fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
}

/// RFC 1123 label: at most 63 lower-case letters, digits and dashes, no dash at an end.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(|b| inner(b) || b == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

/// RFC 1123 subdomain: at most 253 characters of labels joined by dots. As Kubernetes has it, a label may here exceed 63.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|part| {
            part.bytes().all(|b| inner(b) || b == b'-')
                && part.bytes().next().is_some_and(inner)
                && part.bytes().last().is_some_and(inner)
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Object;
    use serde_json::json;

    fn admitted(kind: &Kind, object: Value) -> Result<Value, Problem> {
        let mut object = object;
        admit(kind, &mut object).map(|()| object)
    }

    #[test]
    fn type_and_the_namespace_label_are_filled_in() {
        let namespace = admitted(&crate::Namespace::kind(), json!({"metadata": {"name": "shop"}})).unwrap();
        assert_eq!(namespace["apiVersion"], "v1");
        assert_eq!(namespace["kind"], "Namespace");
        assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
    }

    #[test]
    fn names_that_are_no_dns_names_are_refused() {
        let pod = |name: &str| admitted(&crate::Pod::kind(), json!({"metadata": {"name": name, "namespace": "a"}}));
        for good in ["a", "a-b.c0", "0", &"a".repeat(253)] {
            assert!(pod(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "ä", &"a".repeat(254)] {
            assert_eq!(pod(bad).unwrap_err().field, "metadata.name", "{bad}");
        }
        assert!(admitted(&crate::Namespace::kind(), json!({"metadata": {"name": "a.b"}})).is_err());
    }

    #[test]
    fn namespaces_where_they_belong() {
        assert!(admitted(&crate::Pod::kind(), json!({"metadata": {"name": "a"}})).is_err());
        assert!(admitted(&crate::IPPool::kind(), json!({"metadata": {"name": "a", "namespace": "b"}})).is_err());
    }

    #[test]
    fn labels_follow_the_rules_of_kubernetes() {
        let node = |key: &str, value: Value| {
            admitted(&crate::Node::kind(), json!({"metadata": {"name": "n", "labels": {key: value}}})).is_ok()
        };
        assert!(node("topology.kubernetes.io/zone", json!("a_B.c")));
        assert!(node("rack", json!("")));
        assert!(!node("rack", json!(1)));
        assert!(!node("rack", json!("a b")));
        assert!(!node("a/b/c", json!("x")));
        assert!(!node("/x", json!("x")));
        assert!(!node("", json!("x")));
    }

    #[test]
    fn another_type_than_the_kind_is_refused() {
        let object = json!({"apiVersion": "v2", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(admitted(&crate::Pod::kind(), object).unwrap_err().field, "apiVersion");
    }
}
