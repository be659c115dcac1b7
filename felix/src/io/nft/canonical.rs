//! Rules as the kernel dumps them, and the form in which a written and a dumped one compare.

use super::expression::{
    DYNSET_EXPRESSION, DYNSET_FLAGS, DYNSET_PADDING, DYNSET_TIMEOUT, EXPRESSION_DATA, EXPRESSION_NAME, EXTHDR_FLAGS,
    LIMIT_PADDING, VALUE, read_verdict, verdict,
};
use super::wire::{Attributes, Writer};

/// Name and data of each expression of a rule.
pub(super) fn named(expressions: Attributes<'_>) -> impl Iterator<Item = (&str, Attributes<'_>)> {
    expressions.map(|(_, expression)| {
        let expression = Attributes(expression);
        let data = expression.nested(EXPRESSION_DATA).unwrap_or(Attributes(&[]));
        (expression.string(EXPRESSION_NAME).unwrap_or_default(), data)
    })
}

/// One expression without what the kernel adds to it: counters, names and ids of anonymous sets, the order of attributes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Canonical {
    name: String,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The form in which written and dumped expressions compare. Contents of anonymous sets are not in it.
pub(super) fn canonical(expressions: Attributes<'_>) -> Vec<Canonical> {
    expressions.map(|(_, expression)| canonical_one(expression)).collect()
}

fn canonical_one(expression: &[u8]) -> Canonical {
    let expression = Attributes(expression);
    let name = expression.string(EXPRESSION_NAME).unwrap_or_default().to_owned();
    let data = expression.nested(EXPRESSION_DATA).unwrap_or(Attributes(&[]));
    let mut attributes: Vec<(u16, Vec<u8>)> =
        data.filter_map(|(kind, value)| Some((kind, canonical_attribute(&name, kind, value)?))).collect();
    attributes.sort();
    Canonical { name, attributes }
}

fn canonical_attribute(expression: &str, kind: u16, value: &[u8]) -> Option<Vec<u8>> {
    match (expression, kind) {
        ("counter", _) | ("lookup", 4) | ("limit", LIMIT_PADDING) | ("exthdr", EXTHDR_FLAGS) => None,
        ("dynset", DYNSET_TIMEOUT | DYNSET_PADDING | DYNSET_FLAGS) => None,
        ("dynset", DYNSET_EXPRESSION) => Some(format!("{:?}", canonical_one(value)).into_bytes()),
        ("lookup", 1) if value.starts_with(b"__set") => Some(b"__set".to_vec()),
        ("cmp", 3) | ("bitwise", 4 | 5) => Some(Attributes(value).value(VALUE)?.to_vec()),
        ("immediate", 2) => {
            let data = Attributes(value);
            if let Some(constant) = data.value(VALUE) {
                return Some(constant.to_vec());
            }
            let mut w = Writer::default();
            verdict(&mut w, &read_verdict(data)?);
            Some(w.into_bytes())
        }
        _ => Some(value.to_vec()),
    }
}
