//! YAML that remembers the line of every field.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Tree {
    node: Node,
    line: u64,
}

#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Tree>),
    /// Key, line of the key, value.
    Map(Vec<(String, u64, Tree)>),
}

/// The documents of a text that are not empty; on error the line and what is wrong.
pub(super) fn documents(text: &str) -> Result<Vec<Tree>, (u64, String)> {
    // A cluster of thousands of objects in one file is no attack; depth and aliases stay bounded.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_documents: 1_000_000, max_nodes: 20_000_000, max_events: 50_000_000 },
    };
    let parsed: Result<Vec<Spanned<Node>>, serde_saphyr::Error> =
        serde_saphyr::from_multiple_with_options(text, options);
    let documents = parsed.map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let problem = error.without_snippet().to_string();
        let problem = problem.lines().next().unwrap_or_default();
        // The line is said already.
        (line, problem.rsplit_once(" at line ").map_or(problem, |(text, _)| text).to_owned())
    })?;
    Ok(documents.into_iter().map(Tree::from).filter(|tree| !matches!(tree.node, Node::Scalar(Value::Null))).collect())
}

impl From<Spanned<Node>> for Tree {
    fn from(spanned: Spanned<Node>) -> Self {
        Self { node: spanned.value, line: spanned.referenced.line() }
    }
}

impl Tree {
    /// Where it begins.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The text of a field of this map.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        match self.child(field) {
            Some((_, Self { node: Node::Scalar(Value::String(text)), .. })) => Some(text),
            _ => None,
        }
    }

    /// Whether the field `items` is a list.
    pub(super) fn has_items(&self) -> bool {
        matches!(self.child("items"), Some((_, Self { node: Node::List(_), .. })))
    }

    /// The elements of the field `items`.
    pub(super) fn into_items(self) -> Vec<Self> {
        let Node::Map(fields) = self.node else { return Vec::new() };
        match fields.into_iter().find(|(key, ..)| key == "items") {
            Some((_, _, Self { node: Node::List(items), .. })) => items,
            _ => Vec::new(),
        }
    }

    /// Without the lines.
    pub(super) fn value(&self) -> Value {
        match &self.node {
            Node::Scalar(value) => value.clone(),
            Node::List(items) => items.iter().map(Self::value).collect(),
            Node::Map(fields) => {
                Value::Object(fields.iter().map(|(key, _, tree)| (key.clone(), tree.value())).collect::<Map<_, _>>())
            }
        }
    }

    /// Line of the field at a path such as `spec.ingress[0].from.0`; of the nearest that there is.
    pub(super) fn line_of(&self, path: &str) -> u64 {
        let (mut at, mut line) = (self, self.line);
        let mut rest = path;
        while !rest.is_empty() {
            // A key may itself have dots (a label's, say), so the longest that fits is tried first.
            let steps = rest.char_indices().filter(|(_, c)| matches!(c, '.' | '[' | ']')).map(|(i, _)| i);
            let mut ends: Vec<usize> = steps.chain([rest.len()]).collect();
            ends.reverse();
            let Some((end, (found, tree))) =
                ends.into_iter().find_map(|end| at.child(&rest[..end]).map(|child| (end, child)))
            else {
                return line;
            };
            (at, line) = (tree, found);
            rest = rest[end..].trim_start_matches(['.', '[', ']']);
        }
        line
    }

    /// A field by key or an element by index, with the line where it begins.
    fn child(&self, step: &str) -> Option<(u64, &Self)> {
        match &self.node {
            Node::Scalar(_) => None,
            Node::List(items) => items.get(step.parse::<usize>().ok()?).map(|tree| (tree.line, tree)),
            Node::Map(fields) => fields.iter().find(|(key, ..)| key == step).map(|(_, line, tree)| (*line, tree)),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Spanned<Node>>()? {
            items.push(item.into());
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            let value = access.next_value::<Spanned<Node>>()?;
            fields.push((key.value, key.referenced.line(), value.into()));
        }
        Ok(Node::Map(fields))
    }
}
