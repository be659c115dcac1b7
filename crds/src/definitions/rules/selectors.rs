//! Rules of label selectors, those that Kubernetes has for its own kinds.

use super::{Placed, Rule};

const LABELS: &[Rule] = &[
    Rule::new(
        "selector-label-keys",
        "self.all(key, !format.qualifiedName().validate(key).hasValue())",
        "has a key that is no label key; use [DNS name/]at most 63 letters, digits, '-', '_' or '.', none of these at an end",
    ),
    Rule::new(
        "selector-label-values",
        "self.all(key, !format.labelValue().validate(self[key]).hasValue())",
        "has a value that is no label value; use at most 63 letters, digits, '-', '_' or '.', none of these at an end",
    ),
];

const KEY: Rule = Rule::new(
    "selector-key",
    "!format.qualifiedName().validate(self).hasValue()",
    "is no label key; use [DNS name/]at most 63 letters, digits, '-', '_' or '.', none of these at an end",
)
.detail(
    "'\"' + self + '\" is no label key; use [DNS name/]at most 63 letters, digits, \\'-\\', \\'_\\' or \\'.\\', none of these at an \
     end'",
);

const EXPRESSION: &[Rule] = &[
    Rule::new(
        "selector-needs-values",
        "!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
        "is empty; In and NotIn need at least one value",
    )
    .detail("'is empty; ' + self.operator + ' needs at least one value'")
    .field(".values"),
    Rule::new(
        "selector-takes-no-values",
        "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0",
        "is set; Exists and DoesNotExist take no values",
    )
    .detail("'is set; ' + self.operator + ' takes no values'")
    .field(".values"),
];

const VALUE: Rule = Rule::new(
    "selector-value",
    "!format.labelValue().validate(self).hasValue()",
    "is no label value; use at most 63 letters, digits, '-', '_' or '.', none of these at an end",
)
.detail(
    "'\"' + self + '\" is no label value; use at most 63 letters, digits, \\'-\\', \\'_\\' or \\'.\\', none of these at an end'",
);

/// Rules of the selector at a path.
pub(super) fn at(path: &str) -> Vec<Placed> {
    let mut rules = Placed::all(&format!("{path}.matchLabels"), LABELS);
    let expressions = format!("{path}.matchExpressions[]");
    rules.extend(Placed::all(&expressions, EXPRESSION));
    rules.extend(Placed::all(&format!("{expressions}.key"), &[KEY]));
    rules.extend(Placed::all(&format!("{expressions}.values[]"), &[VALUE]));
    rules
}
