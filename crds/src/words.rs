//! What a decoder says, in the words of people who write YAML. In flows serde's error with the document, out flows the field, and what
//! is wrong with it and what would be right.

use crate::validate::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// A document as its type.
///
/// # Errors
/// The first field that is not of its type.
pub(crate) fn decode<T: DeserializeOwned>(document: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(document).map_err(|error| {
        let path = error.path().clone();
        problem(&path, at(document, &path), &error.into_inner().to_string())
    })
}

fn at<'a>(document: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

fn problem(path: &Path, value: Option<&Value>, message: &str) -> Problem {
    let field = Some(path.to_string()).filter(|path| path != ".").unwrap_or_default();
    let inner = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.as_slice() {
        [name, ..] if message.starts_with("missing field") => Problem::new(inner(name), "is missing"),
        [name, others @ ..] if message.starts_with("unknown field") => {
            // The path leads to the key, which has been read, or to what it is in.
            let read = field.rsplit('.').next() == Some(name);
            let field = if read { field.clone() } else { inner(name) };
            Problem::new(field, format!("is no field here; there are {}", others.join(", ")))
        }
        quoted => {
            let shown = value.map_or_else(|| "it".to_owned(), Value::to_string);
            Problem::new(field.clone(), sentence(&field, &shown, message, quoted))
        }
    }
}

/// What types are written as, by what a decoder calls them.
const FORMS: [(&str, &str); 14] = [
    ("u8", "a number from 0 to 255"),
    ("u16", "a number from 0 to 65535"),
    ("u32", "a number from 0 to 4294967295"),
    ("i32", "a number"),
    ("i64", "a number"),
    ("IntOrString", "a number or a name"),
    ("a boolean", "true or false"),
    ("a string", "text; quotes make text of anything"),
    ("a sequence", "a list, as [A, B]"),
    ("a map", "fields with values"),
    ("struct Encapsulation", "{protocol: None|IPIP|VXLAN, when: Always|CrossSubnet}"),
    ("struct Remote", "{address: ADDRESS}"),
    ("LabelSelector", "{matchLabels: {KEY: VALUE}}"),
    ("struct RouterSpec", "{asn: NUMBER}"),
];

fn sentence(field: &str, value: &str, message: &str, quoted: &[&str]) -> String {
    if let [_, others @ .., last] = quoted
        && message.starts_with("unknown variant")
    {
        let others = others.join(", ");
        return format!("is {value}; use {others}{}{last}", if others.is_empty() { "" } else { " or " });
    }
    if message.starts_with("invalid IP address syntax") {
        let last = field.rsplit('.').next().unwrap_or_default();
        let prefix = ["cidr", "subnet", "except", "originate"].iter().any(|part| last.starts_with(part));
        let form = if prefix { "a prefix, e.g. 10.42.0.0/16" } else { "an address, e.g. 10.0.0.1" };
        return format!("is {value}; use {form}");
    }
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => {
            let form = FORMS.iter().find(|(of, _)| *of == expected).map_or(expected, |(_, form)| form);
            let form = if form.starts_with("struct ") { "fields with values" } else { form };
            format!("is {value}; use {form}")
        }
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said<T: DeserializeOwned>(document: Value) -> String {
        match decode::<T>(&document) {
            Ok(_) => panic!("{document} should be refused"),
            Err(Problem { field, problem }) => format!("{field}: {problem}"),
        }
    }

    #[test]
    fn peers_in_words_of_the_field() {
        let peer = |spec: Value| said::<crate::BGPPeer>(json!({"metadata": {"name": "p"}, "spec": spec}));
        let remote = json!({"address": "10.0.0.1"});
        for (spec, words) in [
            (
                json!({"remote": remote, "asn": "foo"}),
                "spec.asn: must be internal, external or an AS number from 1 to 4294967295",
            ),
            (json!({"remote": remote}), "spec.asn: is missing"),
            (json!({"remote": "tor", "asn": 1}), "spec.remote: is \"tor\"; use {address: ADDRESS}"),
            (
                json!({"remote": {"address": "tor"}, "asn": 1}),
                "spec.remote.address: \"tor\" is no address; write it like 172.31.1.1 or fd00::1",
            ),
            (json!({"remote": {"port": 99999}, "asn": 1}), "spec.remote.port: is 99999; use a number from 0 to 65535"),
            (json!({"remote": remote, "asn": 1, "nextHop": "Me"}), "spec.nextHop: is \"Me\"; use Auto, Self or Keep"),
        ] {
            assert_eq!(peer(spec), words);
        }
    }

    #[test]
    fn a_key_that_is_none_is_named_once() {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            #[serde(rename = "known")]
            _known: u8,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outer {
            #[serde(rename = "inner")]
            _inner: Inner,
        }
        assert_eq!(said::<Outer>(json!({"inner": {"knwon": 1}})), "inner.knwon: is no field here; there are known");
    }

    #[test]
    fn pools_and_the_configuration_in_words_of_the_field() {
        let pool = |spec: Value| said::<crate::IPPool>(json!({"metadata": {"name": "p"}, "spec": spec}));
        let cidr = "10.0.0.0/16";
        for (spec, words) in [
            (
                json!({"cidr": cidr, "encapsulation": "VXLAN"}),
                "spec.encapsulation: is \"VXLAN\"; use {protocol: None|IPIP|VXLAN, when: Always|CrossSubnet}",
            ),
            (
                json!({"cidr": cidr, "encapsulation": {"protocol": "GRE"}}),
                "spec.encapsulation.protocol: is \"GRE\"; use None, IPIP or VXLAN",
            ),
            (
                json!({"cidr": "ten"}),
                "spec.cidr: \"ten\" is no range of addresses; write it like 10.42.0.0/16 or fd42::/48",
            ),
            (json!({"cidr": cidr, "natOutgoing": 5}), "spec.natOutgoing: is 5; use true or false"),
            (json!({}), "spec.cidr: is missing"),
        ] {
            assert_eq!(pool(spec), words);
        }
        assert_eq!(said::<crate::IPPool>(json!({"metadata": {"name": "p"}})), "spec: is missing");
        let configuration =
            |spec: Value| said::<crate::BGPConfiguration>(json!({"metadata": {"name": "default"}, "spec": spec}));
        assert_eq!(
            configuration(json!({"asn": "x"})),
            "spec.asn: is \"x\"; use an AS number from 1 to 4294967295, or {nodeLabel: KEY}"
        );
        assert_eq!(
            configuration(json!({"topology": "Star"})),
            "spec.topology: is \"Star\"; use Auto, Mesh, RouteReflector or Fabric"
        );
    }
}
