//! What an API server wants of a schema beyond what schemars writes.

use super::schemas::ADDRESS_LENGTH;
use serde_json::{Map, Value, json};

/// Numbers without a fraction are written without one: the typed form of a definition holds every bound as a float.
pub(super) fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0);
            // Bounds of 64-bit integers do not survive a float; none of ours is near.
            if let Some(float) = whole.filter(|float| float.abs() < 9e15) {
                *value = json!(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Makes the schema of a whole object one that an API server takes and `kubectl explain` shows well.
pub(super) fn refine(schema: &mut Value) {
    node(schema);
    if let Value::Object(fields) = &mut *schema {
        // The kind's name, which the document says already.
        fields.remove("title");
    }
    // A status is written whole by its writer; what it leaves out need not be filled in.
    if let Some(status) = schema.pointer_mut("/properties/status") {
        without_defaults(status);
    }
    describe(schema, "/properties/status", "What was last seen of the object. Twill writes it.");
}

fn describe(schema: &mut Value, path: &str, text: &str) {
    if let Some(Value::Object(fields)) = schema.pointer_mut(path) {
        fields.insert("description".into(), text.into());
    }
}

/// One schema and all below it.
fn node(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    // A null where no null is allowed is dropped before defaults are filled in, so it means the same as leaving the field out.
    // Where it is allowed it would stay, and be one more form that each rule has to know.
    fields.remove("nullable");
    format(fields);
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = paragraphs(text);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            node(inner);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(node);
    }
}

/// Rust's widths as the formats that Kubernetes knows; the bounds say the rest.
fn format(fields: &mut Map<String, Value>) {
    let known = match fields.get("format").and_then(Value::as_str) {
        Some("uint8") => Some(("int32", u8::MAX.into())),
        Some("uint16") => Some(("int32", u16::MAX.into())),
        Some("uint32") => Some(("int64", u32::MAX)),
        Some("ip") => {
            fields.remove("format");
            fields.insert("maxLength".into(), ADDRESS_LENGTH.into());
            None
        }
        _ => None,
    };
    if let Some((format, most)) = known {
        fields.insert("format".into(), format.into());
        fields.entry("minimum").or_insert(json!(0));
        fields.entry("maximum").or_insert(json!(most));
    }
}

/// A comment's lines, joined to paragraphs.
fn paragraphs(text: &str) -> String {
    let joined = text.split("\n\n").map(|paragraph| paragraph.split('\n').map(str::trim).collect::<Vec<_>>().join(" "));
    joined.collect::<Vec<_>>().join("\n\n")
}

fn without_defaults(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("default");
    if let Some(items) = fields.get_mut("items") {
        without_defaults(items);
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(without_defaults);
    }
}
