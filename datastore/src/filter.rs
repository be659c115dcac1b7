//! Which documents a [`Filter`] lets through.

use crate::Filter;
use serde_json::Value;
use twill_crds::selector::{self, Labels};

impl Filter {
    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespace.is_none() && self.fields.is_empty() && self.labels.as_ref().is_none_or(selector::is_everything)
    }

    /// Whether it lets this document through. A field that is absent counts as empty, as in a field selector.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let namespace = |wanted: &String| metadata["namespace"].as_str().unwrap_or_default() == wanted;
        self.namespace.as_ref().is_none_or(namespace)
            && self.fields.iter().all(|(path, wanted)| text_at(object, path) == *wanted)
            && self.labels.as_ref().is_none_or(|labels| selector::matches(labels, &labels_of(metadata)))
    }
}

fn labels_of(metadata: &Value) -> Labels {
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    metadata["labels"].as_object().map(|labels| labels.iter().filter_map(text).collect()).unwrap_or_default()
}

fn text_at(object: &Value, path: &str) -> String {
    let value = path.split('.').try_fold(object, |value, step| value.get(step));
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_parts_of_a_filter_must_hold() {
        let pod = json!({"metadata": {"namespace": "shop", "labels": {"app": "cart"}}, "spec": {"nodeName": "n1"}});
        let labels = |app: &str| Some(serde_json::from_value(json!({"matchLabels": {"app": app}})).unwrap());
        let filter = |namespace: &str, app: &str, node: &str| Filter {
            namespace: Some(namespace.into()),
            labels: labels(app),
            fields: vec![("spec.nodeName".into(), node.into())],
        };
        assert!(Filter::default().is_empty() && Filter::default().matches(&pod));
        assert!(filter("shop", "cart", "n1").matches(&pod));
        assert!(!filter("other", "cart", "n1").matches(&pod));
        assert!(!filter("shop", "db", "n1").matches(&pod));
        assert!(!filter("shop", "cart", "n2").matches(&pod));
    }

    #[test]
    fn an_absent_field_is_empty() {
        let filter = Filter { fields: vec![("spec.nodeName".into(), String::new())], ..Filter::default() };
        assert!(filter.matches(&json!({"metadata": {}})));
        assert!(!filter.matches(&json!({"metadata": {}, "spec": {"nodeName": "n1"}})));
    }
}
