#![allow(clippy::unwrap_used)]

use super::cases::{self, Case};
use super::*;
use crate::validate::admit;
use crate::{Kind, known};
use serde_json::{Map, json};
use std::collections::BTreeSet;

fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn kind_of(name: &str) -> Kind {
    known::of(crate::names::GROUP, name).unwrap()
}

fn definition_of(kind: &str) -> Value {
    all().into_iter().find(|definition| definition["spec"]["names"]["kind"] == kind).unwrap()
}

/// Every schema inside this one with its path.
fn walk(schema: &Value, path: &str, seen: &mut dyn FnMut(&str, &Map<String, Value>)) {
    let fields = schema.as_object().unwrap();
    seen(path, fields);
    for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), seen);
    }
    if let Some(items) = fields.get("items") {
        walk(items, &format!("{path}[]"), seen);
    }
    if let Some(values) = fields.get("additionalProperties") {
        walk(values, &format!("{path}{{}}"), seen);
    }
}

fn walk_all(seen: &mut dyn FnMut(&str, &Map<String, Value>)) {
    for definition in all() {
        walk(schema(&definition), definition["spec"]["names"]["kind"].as_str().unwrap(), seen);
    }
}

#[test]
fn what_is_printed() {
    insta::assert_snapshot!(yaml().unwrap());
}

#[test]
fn what_is_printed_is_what_was_meant() {
    let read: Vec<Value> = serde_saphyr::from_multiple(&yaml().unwrap()).unwrap();
    assert_eq!(read, all());
}

#[test]
fn there_is_a_definition_of_each_of_our_kinds_and_it_agrees_with_the_table_of_names() {
    let ours: Vec<Kind> = known::all().filter(|kind| kind.group == crate::names::GROUP).collect();
    let defined: Vec<Value> = all();
    assert_eq!(ours.len(), defined.len());
    for (kind, definition) in ours.iter().zip(&defined) {
        let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
        assert_eq!(definition["metadata"]["name"], format!("{}.{}", kind.plural, kind.group));
        assert_eq!((spec["group"].as_str(), names["kind"].as_str()), (Some(&*kind.group), Some(&*kind.kind)));
        assert_eq!(spec["versions"][0]["name"], *kind.version);
        assert_eq!(spec["scope"], if kind.namespaced { "Namespaced" } else { "Cluster" });
        assert_eq!(names["categories"], json!(["twill"]));
        for short in names["shortNames"].as_array().unwrap() {
            assert_eq!(known::named(short.as_str().unwrap()).as_ref(), Some(kind), "{short}");
        }
        let status = schema(definition).pointer("/properties/status").is_some();
        assert_eq!(spec["versions"][0]["subresources"]["status"].is_object(), status, "{}", kind.kind);
    }
}

#[test]
fn schemas_are_structural() {
    // Keys that a structural schema may have at every level.
    let allowed = [
        "additionalProperties",
        "anyOf",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "multipleOf",
        "not",
        "pattern",
        "properties",
        "required",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    walk_all(&mut |path, fields| {
        for key in fields.keys() {
            assert!(allowed.contains(&key.as_str()), "{path}: {key}");
        }
        let untyped = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        let untyped = untyped.iter().any(|key| fields.get(*key) == Some(&true.into()));
        assert_eq!(fields.get("type").is_some_and(Value::is_string), !untyped, "{path}: type");
        assert!(!(fields.contains_key("properties") && fields.contains_key("additionalProperties")), "{path}");
        // What is only judged has no type of its own.
        let judged = fields.get("anyOf").and_then(Value::as_array).into_iter().flatten().chain(fields.get("not"));
        for key in judged.flat_map(|inner| inner.as_object().unwrap().keys()) {
            assert!(["enum", "maximum", "minimum"].contains(&key.as_str()), "{path}: {key}");
        }
        let format = fields.get("format").and_then(Value::as_str);
        assert!(format.is_none_or(|format| ["int32", "int64", "date-time"].contains(&format)), "{path}: {format:?}");
    });
}

#[test]
fn every_text_and_list_of_a_spec_has_a_bound_so_that_rules_have_one() {
    walk_all(&mut |path, fields| {
        let bound = match fields.get("type").and_then(Value::as_str) {
            _ if !path.contains(".spec") || fields.contains_key("enum") => return,
            Some("string") => "maxLength",
            Some("array") => "maxItems",
            Some("object") if fields.contains_key("additionalProperties") => "maxProperties",
            _ => return,
        };
        assert!(fields.contains_key(bound), "{path}: {bound}");
    });
}

#[test]
fn every_field_is_described_in_whole_sentences_without_words_of_rust() {
    walk_all(&mut |path, fields| {
        // Elements and values are described by the field that holds them.
        if path.ends_with(']') && fields["type"] != "object" || path.ends_with('}') {
            return;
        }
        let text =
            fields.get("description").and_then(Value::as_str).unwrap_or_else(|| panic!("{path}: no description"));
        assert!(text.ends_with('.'), "{path}: {text}");
        for word in ["::", "[`", "Option", "Vec<", "CustomResource", "derive", "\n"] {
            // Two colons are IPv6 in the text on ranges.
            assert!(!text.replace("fd42::/48", "").contains(word), "{path}: {word:?} in {text}");
        }
    });
}

#[test]
fn every_rule_is_shown_to_refuse_and_to_accept() {
    let mut rules = BTreeSet::new();
    let kinds = [
        rules::pool(),
        rules::block(),
        rules::ip_reservation(),
        rules::bgp_configuration(),
        rules::bgp_peer(),
        rules::bgp_filter(),
        rules::namespace_isolation(),
        rules::host_policy(),
    ];
    for placed in kinds.into_iter().flatten() {
        rules.insert(placed.rule.name);
    }
    let all = cases::all();
    let shown = |refused: bool| -> BTreeSet<&str> {
        all.iter().filter(|case| case.refused.is_some() == refused).filter_map(|case| case.rule.as_deref()).collect()
    };
    assert_eq!(shown(true), rules, "refused");
    assert_eq!(shown(false), rules, "accepted");
    let names: BTreeSet<&str> = all.iter().map(|case| case.case.as_str()).collect();
    assert_eq!(names.len(), all.len(), "names of cases are unique");
}

#[test]
fn selectors_have_the_same_rules_wherever_they_stand() {
    let mut found = 0;
    walk_all(&mut |path, fields| {
        let rules = |inner: &Value| inner["x-kubernetes-validations"].as_array().map_or(0, Vec::len);
        if let Some(labels) = fields.get("properties").and_then(|properties| properties.get("matchLabels")) {
            let expression = &fields["properties"]["matchExpressions"]["items"];
            let (key, values) = (&expression["properties"]["key"], &expression["properties"]["values"]["items"]);
            assert_eq!([labels, expression, key, values].map(rules), [2, 2, 1, 1], "{path}");
            found += 1;
        }
    });
    assert_eq!(found, 20);
}

/// The object as it is stored, or the field at fault and the refusal.
fn admitted(case: &Case) -> Result<Value, (String, String)> {
    let kind = kind_of(&case.kind);
    let admit = |mut object: Value, old: Option<&Value>| {
        let refused = admit(&kind, &mut object, old).map_err(|invalid| (invalid.field.clone(), invalid.to_string()));
        refused.map(|()| object)
    };
    let stored =
        case.stored().map(|stored| admit(stored, None).unwrap_or_else(|r| panic!("{}: from: {r:?}", case.case)));
    admit(case.object(), stored.as_ref())
}

#[test]
fn engines_without_an_api_server_decide_every_case_as_the_table_says() {
    for case in cases::all() {
        match (admitted(&case), &case.refused) {
            (Ok(_), None) => {}
            (Err((field, text)), Some(expected)) => {
                assert!(field.starts_with(expected.as_str()), "{}: {text}", case.case);
                assert!(text.contains(case.says.as_deref().unwrap_or_default()), "{}: {text}", case.case);
            }
            (outcome, _) => panic!("{}: {outcome:?}", case.case),
        }
    }
}

/// What an API server makes of a value by its schema: nulls and unknown fields go, defaults come.
fn as_stored_by(schema: &Value, value: &Value) -> Value {
    let Value::Object(fields) = value else {
        let item = |value: &Value| as_stored_by(&schema["items"], value);
        return value.as_array().map_or_else(|| value.clone(), |items| items.iter().map(item).collect());
    };
    let preserved = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut stored = Map::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(property), _) => stored.insert(name.clone(), as_stored_by(property, value)),
            (None, Some(values)) => stored.insert(name.clone(), as_stored_by(values, value)),
            (None, None) => preserved.then(|| stored.insert(name.clone(), value.clone())).flatten(),
        };
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(default) = property.get("default").filter(|_| !stored.contains_key(name)) {
            stored.insert(name.clone(), as_stored_by(property, default));
        }
    }
    stored.into()
}

#[test]
fn all_engines_fill_in_the_same_defaults() {
    for case in cases::all().iter().filter(|case| case.refused.is_none()) {
        let definition = definition_of(&case.kind);
        let spec = as_stored_by(&schema(&definition)["properties"]["spec"], &case.spec);
        assert_eq!(admitted(case).unwrap()["spec"], spec, "{}", case.case);
        // Nor does it matter to a reader who filled them in, or whether anybody did.
        let (mut bare, mut filled) = (case.object(), case.object());
        bare["spec"] = without_nulls(&case.spec);
        filled["spec"] = spec;
        let seen = |object: Value| match &*case.kind {
            "IPPool" => json!(serde_json::from_value::<IPPool>(object).unwrap()),
            "IPBlock" => json!(serde_json::from_value::<IPBlock>(object).unwrap()),
            "IPReservation" => json!(serde_json::from_value::<IPReservation>(object).unwrap()),
            "BGPConfiguration" => json!(serde_json::from_value::<BGPConfiguration>(object).unwrap()),
            "BGPPeer" => json!(serde_json::from_value::<BGPPeer>(object).unwrap()),
            "BGPFilter" => json!(serde_json::from_value::<BGPFilter>(object).unwrap()),
            "NodeNetwork" => json!(serde_json::from_value::<NodeNetwork>(object).unwrap()),
            "NamespaceIsolation" => json!(serde_json::from_value::<NamespaceIsolation>(object).unwrap()),
            "HostPolicy" => json!(serde_json::from_value::<HostPolicy>(object).unwrap()),
            other => panic!("{other} is no kind of ours"),
        };
        assert_eq!(seen(bare), seen(filled), "{}", case.case);
    }
}

fn without_nulls(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let kept = fields.iter().filter(|(_, field)| !field.is_null());
    kept.map(|(name, field)| (name.clone(), without_nulls(field))).collect::<Map<_, _>>().into()
}

#[test]
fn nothing_that_a_program_writes_is_pruned() {
    fn check<T: serde::Serialize>(object: &T) {
        let written = json!(object);
        let definition = definition_of(written["kind"].as_str().unwrap());
        for part in ["spec", "status"] {
            let schema = &schema(&definition)["properties"][part];
            assert_eq!(as_stored_by(schema, &written[part]), written[part], "{part} of {}", written["kind"]);
        }
    }
    fn make<T: serde::de::DeserializeOwned>(kind: &str, spec: &Value, status: &Value) -> T {
        serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec, "status": status
        }))
        .unwrap()
    }
    let conditions = json!([{"type": "Ready", "status": "True", "reason": "Fine", "message": "all is well",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3}]);
    let selector =
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}]});
    let pool = json!({"cidr": "10.0.0.0/16", "blockSize": 26, "encapsulation": {"protocol": "VXLAN", "when": "Always"},
        "natOutgoing": true, "disabled": true, "nodeSelector": selector, "namespaceSelector": selector});
    let status = json!({"conditions": conditions, "blocks": {"total": 1024, "claimed": 3}, "addresses": {"used": 70}});
    check::<IPPool>(&make("IPPool", &pool, &status));
    let block = json!({"cidr": "10.0.0.0/26", "node": "n1", "claimant": "c"});
    check::<IPBlock>(&make("IPBlock", &block, &json!({"used": 3})));
    let reservation = json!({"reservedCIDRs": ["10.0.0.0/28", "fd42::7/128"], "addresses": ["10.0.1.1"], "pod": {"namespace": "a", "name": "b"}});
    let status = json!({"holder": {"node": "n1", "claimant": "c", "podUID": "u", "addresses": ["10.42.3.7"]}, "conditions": conditions});
    check::<IPReservation>(&make("IPReservation", &reservation, &status));
    for asn in [json!(1), json!({"nodeLabel": "asn"})] {
        let station = json!({"address": "10.0.0.9", "port": 11019});
        let written: BGPConfiguration = make("BGPConfiguration", &json!({"asn": asn, "bmp": [station]}), &Value::Null);
        check(
            &json!({"kind": "BGPConfiguration", "spec": written.spec, "status": {"nodes": 3, "conditions": conditions}}),
        );
    }
    let peer = json!({"nodeSelector": selector, "remote": {"address": "10.0.0.1", "port": 179}, "asn": "external", "localASN": 2,
        "holdTime": 3, "allowOwnAS": 1, "nextHop": "Keep", "addPath": {"receive": true, "send": 4},
        "password": {"secretKeyRef": {"name": "a", "key": "b"}}});
    check::<BGPPeer>(&make("BGPPeer", &peer, &json!({"nodes": 2, "established": 1, "conditions": conditions})));
    for remote in [json!({"interface": "eth0"}), json!({"nodeSelector": selector})] {
        check::<BGPPeer>(&make("BGPPeer", &json!({"remote": remote, "asn": 1}), &Value::Null));
    }
    let bgp = json!({"addresses": ["10.0.0.1"], "asn": 1, "tunnelAddresses": ["fd00::1"], "conditions": conditions});
    let status = json!({"bgp": bgp, "felix": {"conditions": conditions}});
    check::<NodeNetwork>(&make("NodeNetwork", &json!({"drain": true, "uninstall": true}), &status));
    let pods = json!({"namespaceSelector": selector, "podSelector": selector});
    let controllers = json!({"namespaceSelector": selector, "podSelector": selector, "nodeSelector": selector});
    let isolation = json!({"namespaceSelector": selector, "directions": ["Ingress", "Egress"],
        "allow": ["SameNamespace", "DNS", "APIServer", "IngressControllers", "Metrics"], "dns": pods,
        "apiServer": {"addresses": ["10.0.0.1", "fd00::1"]}, "ingressControllers": controllers, "metrics": pods});
    let written: NamespaceIsolation = make("NamespaceIsolation", &isolation, &Value::Null);
    check(&json!({"kind": "NamespaceIsolation", "spec": written.spec, "status": {"conditions": conditions}}));
    let small = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
    let peers = json!([{"cidrs": ["10.0.0.0/8"]}, {"nodes": small}, {"pods": {"namespaceSelector": small, "podSelector": small}}]);
    let ports = json!([{"protocol": "SCTP", "port": 1, "endPort": 2}]);
    let host = json!({"nodeSelector": selector, "interfaces": ["eth0"], "priority": 1, "directions": ["Ingress", "Egress"],
        "ingress": [{"action": "Deny", "from": peers, "ports": ports}], "egress": [{"action": "Deny", "to": peers, "ports": ports}],
        "failsafes": "None", "lockoutRisk": "Accepted", "confirmation": {"mode": "Manual", "timeoutSeconds": 5}});
    let written: HostPolicy = make("HostPolicy", &host, &Value::Null);
    check(&json!({"kind": "HostPolicy", "spec": written.spec, "status": {}}));
}

#[test]
fn a_reader_passes_over_fields_of_a_later_release() {
    let pool =
        json!({"spec": {"cidr": "10.0.0.0/16", "later": 1, "encapsulation": {"later": 1}}, "status": {"later": 1}});
    let peer = json!({"spec": {"remote": {"address": "10.0.0.1", "later": 1}, "asn": 1}, "status": {"later": {}}});
    let network = json!({"spec": {"later": true}, "status": {"bgp": {"later": 1}, "later": 1}});
    let configuration = json!({"spec": {"asn": {"nodeLabel": "asn", "later": 1}, "later": 1}});
    fn read<T: serde::de::DeserializeOwned>(mut object: Value) -> Result<T, String> {
        object["metadata"] = json!({"name": "x"});
        serde_json::from_value(object).map_err(|error| error.to_string())
    }
    assert_eq!(read::<IPPool>(pool).map(drop), Ok(()));
    assert_eq!(read::<BGPPeer>(peer).map(drop), Ok(()));
    assert_eq!(read::<NodeNetwork>(network).map(drop), Ok(()));
    let read = read::<BGPConfiguration>(configuration).unwrap();
    assert_eq!(json!(read.spec.asn), json!({"nodeLabel": "asn"}));
}
