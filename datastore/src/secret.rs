//! What an API server does to a Secret that is written: what people write in `stringData` is kept in `data`, and one without a type is
//! Opaque.

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use twill_crds::{Kind, Object};

/// Gives a Secret the form in which it is stored and read; leaves every other kind alone.
pub(crate) fn normalise(kind: &Kind, object: &mut Value) {
    if *kind != k8s_openapi::api::core::v1::Secret::kind() {
        return;
    }
    let Some(fields) = object.as_object_mut() else { return };
    if fields.get("type").is_none_or(|value| value.as_str().is_none_or(str::is_empty)) {
        fields.insert("type".into(), "Opaque".into());
    }
    let Some(Value::Object(texts)) = fields.remove("stringData") else { return };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    if data.is_null() {
        *data = json!({});
    }
    let Some(data) = data.as_object_mut() else { return };
    for (key, text) in texts {
        let octets = text.as_str().unwrap_or_default().as_bytes().to_vec();
        data.insert(key, json!(ByteString(octets)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_secret_are_kept_as_its_data() {
        let secret = k8s_openapi::api::core::v1::Secret::kind();
        let stored = |mut object: Value| {
            normalise(&secret, &mut object);
            object
        };
        let both = json!({"data": {"a": "YQ==", "b": "YQ=="}, "stringData": {"b": "secret"}});
        assert_eq!(stored(both), json!({"type": "Opaque", "data": {"a": "YQ==", "b": "c2VjcmV0"}}));
        assert_eq!(stored(json!({"stringData": {"b": ""}})), json!({"type": "Opaque", "data": {"b": ""}}));
        let typed = json!({"type": "kubernetes.io/tls", "data": {}});
        assert_eq!(stored(typed.clone()), typed);
        let mut other = json!({"stringData": {"b": "c"}});
        normalise(&twill_crds::Pod::kind(), &mut other);
        assert_eq!(other, json!({"stringData": {"b": "c"}}));
    }
}
