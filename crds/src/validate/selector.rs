//! Rules of label selectors (`ValidateLabelSelector` of apimachinery).

use super::{Problem, metadata};
use crate::definitions::schemas::{SELECTOR_EXPRESSIONS, SELECTOR_LABELS, SELECTOR_VALUES};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector of one of our kinds, which may be left out, and is not so long that an API server could not check it.
pub(super) fn optional(field: &str, selector: Option<&LabelSelector>) -> Result<(), Problem> {
    let Some(selector) = selector else { return Ok(()) };
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    at_most(SELECTOR_LABELS, format!("{field}.matchLabels"), selector.match_labels.iter().flatten().count())?;
    at_most(SELECTOR_EXPRESSIONS, format!("{field}.matchExpressions"), expressions.len())?;
    for (n, expression) in expressions.iter().enumerate() {
        let values = expression.values.iter().flatten().count();
        at_most(SELECTOR_VALUES, format!("{field}.matchExpressions[{n}].values"), values)?;
    }
    check(field, selector)
}

fn at_most(most: usize, field: String, found: usize) -> Result<(), Problem> {
    if found <= most {
        return Ok(());
    }
    Err(Problem::new(
        field,
        format!("has {found}, must have at most {most}; select by a label that they have in common"),
    ))
}

/// A selector of a kind that is not ours, which may be left out.
pub(super) fn check_any(field: &str, selector: Option<&LabelSelector>) -> Result<(), Problem> {
    selector.map_or(Ok(()), |selector| check(field, selector))
}

/// Keys, values, operators, and whether the operator takes values.
pub(super) fn check(field: &str, selector: &LabelSelector) -> Result<(), Problem> {
    for (key, value) in selector.match_labels.iter().flatten() {
        metadata::label_key(&format!("{field}.matchLabels"), key)?;
        metadata::label_value(&format!("{field}.matchLabels.{key}"), value)?;
    }
    for (n, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{n}]");
        metadata::label_key(&format!("{field}.key"), &expression.key)?;
        let values = expression.values.as_deref().unwrap_or_default();
        match (expression.operator.as_str(), values.is_empty()) {
            ("In" | "NotIn", false) | ("Exists" | "DoesNotExist", true) => {}
            (operator @ ("In" | "NotIn"), true) => {
                return Err(Problem::new(
                    format!("{field}.values"),
                    format!("is empty; {operator} needs at least one value"),
                ));
            }
            (operator @ ("Exists" | "DoesNotExist"), false) => {
                return Err(Problem::new(format!("{field}.values"), format!("is set; {operator} takes no values")));
            }
            (operator, _) => {
                let problem = format!("\"{operator}\" is no operator; use In, NotIn, Exists or DoesNotExist");
                return Err(Problem::new(format!("{field}.operator"), problem));
            }
        }
        for value in values {
            metadata::label_value(&format!("{field}.values"), value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn selectors_of_ours_are_bounded() {
        let field = |labels: usize, expressions: usize, values: usize| {
            let labels: serde_json::Map<_, _> = (0..labels).map(|n| (format!("l{n}"), json!("x"))).collect();
            let values: Vec<String> = (0..values).map(|n| format!("v{n}")).collect();
            let expression = json!({"key": "a", "operator": "In", "values": values});
            let selector = json!({"matchLabels": labels, "matchExpressions": vec![expression; expressions]});
            optional("s", serde_json::from_value(selector).ok().as_ref()).err().map(|problem| problem.field)
        };
        assert_eq!(field(32, 16, 256), None);
        assert_eq!(field(33, 1, 1).as_deref(), Some("s.matchLabels"));
        assert_eq!(field(0, 17, 1).as_deref(), Some("s.matchExpressions"));
        assert_eq!(field(0, 1, 257).as_deref(), Some("s.matchExpressions[0].values"));
    }

    #[test]
    fn selectors_as_an_api_server_takes_them() {
        let field = |selector: Value| {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            check("s", &selector).err().map(|problem| problem.field)
        };
        let expression = |operator: &str, values: &[&str]| {
            field(json!({"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}))
        };
        assert_eq!(field(json!({"matchLabels": {"app.kubernetes.io/name": "a"}})), None);
        assert_eq!(expression("In", &["a", ""]), None);
        assert_eq!(expression("Exists", &[]), None);
        assert_eq!(expression("NotIn", &[]).as_deref(), Some("s.matchExpressions[0].values"));
        assert_eq!(expression("DoesNotExist", &["a"]).as_deref(), Some("s.matchExpressions[0].values"));
        assert_eq!(expression("Equals", &["a"]).as_deref(), Some("s.matchExpressions[0].operator"));
        assert_eq!(expression("In", &["a b"]).as_deref(), Some("s.matchExpressions[0].values"));
        assert_eq!(field(json!({"matchLabels": {"a b": "c"}})).as_deref(), Some("s.matchLabels"));
    }
}
