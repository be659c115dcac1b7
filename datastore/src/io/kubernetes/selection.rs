//! How a [`Filter`] is put to an API server, and what of it remains for us.

use super::path::{self, Query};
use crate::{Filter, Key};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use rustc_hash::FxHashSet;
use serde_json::Value;
use twill_crds::Kind;

/// The part of a kind that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) path: String,
    pub(super) query: Query,
    /// What the server cannot select by.
    pub(super) rest: Filter,
}

impl Selection {
    /// `refused` says of a field whether the server is known not to select by it.
    pub(super) fn of(kind: &Kind, filter: &Filter, refused: impl Fn(&str) -> bool) -> Self {
        let (refused, fields): (Vec<_>, Vec<_>) = filter.fields.iter().cloned().partition(|(field, _)| refused(field));
        // A kind without namespaces has nothing in one.
        let namespace = filter.namespace.clone().filter(|_| !kind.namespaced);
        let mut query = Query::default();
        if !fields.is_empty() {
            let terms: Vec<String> =
                fields.iter().map(|(field, value)| format!("{field}={}", escaped(value))).collect();
            query = query.with("fieldSelector", &terms.join(","));
        }
        if let Some(text) = filter.labels.as_ref().map(text_of).filter(|text| !text.is_empty()) {
            query = query.with("labelSelector", &text);
        }
        let path = path::collection(kind, filter.namespace.as_deref());
        Self { path, query, rest: Filter { namespace, labels: None, fields: refused } }
    }
}

/// The object that a filter means, if it can only be one.
pub(super) fn one(kind: &Kind, filter: &Filter) -> Option<Key> {
    let [(field, name)] = filter.fields.as_slice() else { return None };
    let single = field == "metadata.name" && filter.labels.is_none() && kind.namespaced == filter.namespace.is_some();
    single.then(|| Key { namespace: filter.namespace.clone().unwrap_or_default(), name: name.clone() })
}

/// A field selector's value: `\`, `,` and `=` mean something in it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

/// A label selector as a query has it.
fn text_of(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let other = selector.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.as_deref().unwrap_or_default().join(",");
        let key = &expression.key;
        match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            // No such operator: the server says so.
            operator => format!("{key} {operator} ({values})"),
        }
    });
    equal.chain(other).collect::<Vec<_>>().join(",")
}

/// Which objects a watch has told to be outside of what the server cannot select by.
#[derive(Debug, Default)]
pub(super) struct Outside(FxHashSet<(String, String)>);

/// What a change is to who asked for part of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Applied,
    Deleted,
    Nothing,
}

impl Outside {
    /// An object was created or changed. One that is outside and was not known to be may have been inside until now.
    pub(super) fn applied(&mut self, rest: &Filter, object: &Value, is_new: bool) -> Seen {
        if rest.is_empty() {
            return Seen::Applied;
        }
        if rest.matches(object) {
            self.0.remove(&key(object));
            return Seen::Applied;
        }
        let known = !self.0.insert(key(object));
        if known || is_new { Seen::Nothing } else { Seen::Deleted }
    }

    /// An object was deleted.
    pub(super) fn deleted(&mut self, rest: &Filter, object: &Value) -> Seen {
        let outside = !rest.is_empty() && self.0.remove(&key(object));
        if outside { Seen::Nothing } else { Seen::Deleted }
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use twill_crds::{Node, Object, Pod};

    fn filter(namespace: Option<&str>, fields: &[(&str, &str)], labels: Value) -> Filter {
        Filter {
            namespace: namespace.map(Into::into),
            labels: serde_json::from_value(labels).unwrap(),
            fields: fields.iter().map(|(f, v)| ((*f).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn a_filter_goes_to_the_server_but_for_what_it_refuses() {
        let labels = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"},
            {"key": "g", "operator": "NotIn", "values": ["h"]}, {"key": "i", "operator": "Exists"}]});
        let all = filter(Some("shop"), &[("spec.nodeName", "n1"), ("spec.x", "a,b=c")], labels);
        let selection = Selection::of(&Pod::kind(), &all, |field| field == "spec.x");
        assert_eq!(selection.path, "/api/v1/namespaces/shop/pods");
        let query = Query::default().with("fieldSelector", "spec.nodeName=n1");
        assert_eq!(selection.query, query.with("labelSelector", "a=b,c in (d,e),!f,g notin (h),i"));
        assert_eq!(selection.rest, filter(None, &[("spec.x", "a,b=c")], Value::Null));
        let sent = Selection::of(&Pod::kind(), &all, |_| false).query.to_string();
        assert!(sent.contains("spec.x%3Da%5C%2Cb%5C%3Dc"), "{sent}");
    }

    #[test]
    fn what_can_only_be_one_object_is_known() {
        let name = [("metadata.name", "p")];
        assert_eq!(one(&Pod::kind(), &filter(Some("a"), &name, Value::Null)), Some(Key::namespaced("a", "p")));
        assert_eq!(one(&Node::kind(), &filter(None, &name, Value::Null)), Some(Key::cluster("p")));
        assert_eq!(one(&Pod::kind(), &filter(None, &name, Value::Null)), None);
        assert_eq!(one(&Node::kind(), &filter(None, &[("spec.x", "p")], Value::Null)), None);
    }

    #[test]
    fn what_leaves_the_rest_of_a_filter_is_deleted_once() {
        let rest = filter(None, &[("spec.x", "1")], Value::Null);
        let object = |x: &str| json!({"metadata": {"name": "o"}, "spec": {"x": x}});
        let mut outside = Outside::default();
        assert_eq!(outside.applied(&rest, &object("2"), true), Seen::Nothing, "it began outside");
        assert_eq!(outside.applied(&rest, &object("1"), false), Seen::Applied);
        assert_eq!(outside.applied(&rest, &object("2"), false), Seen::Deleted);
        assert_eq!(outside.applied(&rest, &object("3"), false), Seen::Nothing);
        assert_eq!(outside.deleted(&rest, &object("3")), Seen::Nothing);
        assert_eq!(outside.applied(&rest, &object("1"), true), Seen::Applied);
        assert_eq!(outside.deleted(&rest, &object("1")), Seen::Deleted);
        assert_eq!(Outside::default().applied(&Filter::default(), &object("2"), false), Seen::Applied);
    }
}
