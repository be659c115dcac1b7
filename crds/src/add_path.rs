//! Several paths to a prefix between two speakers (ADD-PATH, RFC 7911).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Paths to one prefix that a peer can make a speaker keep, and that a speaker sends at most.
pub const MAX_PATHS: u8 = 64;

/// Which way several paths to a prefix may go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AddPathSpec {
    /// Whether the nodes take several paths to a prefix from the peer, at most 64 to each; by default they take one.
    pub receive: bool,
    /// How many paths to a prefix the nodes send to the peer: so many of the best ones, up to 64, or `all`, which is 64. Left out, they send
    /// the best one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<PathCount>,
}

/// A number of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "must be all or a number of paths from 1 to 64")]
pub enum PathCount {
    /// So many.
    Number(u8),
    /// As many as there are.
    Word(AllPaths),
}

/// All paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllPaths {
    /// All.
    All,
}

impl AddPathSpec {
    /// How many paths are sent; 0: one, without identifier.
    #[must_use]
    pub fn sent(&self) -> u8 {
        match self.send {
            None => 0,
            Some(PathCount::Number(number)) => number.min(MAX_PATHS),
            Some(PathCount::Word(AllPaths::All)) => MAX_PATHS,
        }
    }

    /// What is wrong with it: the field below it, empty for itself, and the rest of a sentence that begins with it.
    #[must_use]
    pub fn problem(&self) -> Option<(&'static str, String)> {
        match self.send {
            Some(PathCount::Number(number)) if !(1..=MAX_PATHS).contains(&number) => {
                Some(("send", format!("is {number}; use 1 to {MAX_PATHS}, or all")))
            }
            None if !self.receive => {
                Some(("", "says neither receive nor send; set one of them, or leave it out".into()))
            }
            _ => None,
        }
    }
}

/// A number or a word.
impl JsonSchema for PathCount {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "PathCount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 16})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn so_many_paths_are_sent_as_are_asked_for() {
        let of = |value: serde_json::Value| serde_json::from_value::<AddPathSpec>(value).unwrap();
        assert_eq!(
            [json!({"receive": true}), json!({"send": 4}), json!({"send": "all"})].map(|v| of(v).sent()),
            [0, 4, 64]
        );
        for (bad, field) in [(json!({}), ""), (json!({"send": 0}), "send"), (json!({"send": 65}), "send")] {
            assert_eq!(of(bad).problem().unwrap().0, field);
        }
        assert_eq!(of(json!({"send": 64, "receive": true})).problem(), None);
        assert!(serde_json::from_value::<AddPathSpec>(json!({"send": "some"})).is_err());
    }
}
