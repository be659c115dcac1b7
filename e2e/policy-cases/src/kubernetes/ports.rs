//! Cases 14 to 19: ports by number and by name, and policies that add up.

use super::{case, namespace, pod};
use crate::manifest::{egress, ingress, network_policy};
use crate::matrix::Matrix;
use crate::{Case, Change};
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = by_number();
    cases.extend(by_name());
    cases
}

/// From y only, x/a, on one port.
fn from_y(name: &str, port: &Value) -> Change {
    let rule = json!([{"from": [{"namespaceSelector": namespace("y")}], "ports": [{"port": port, "protocol": "TCP"}]}]);
    network_policy("x", name, &ingress(&pod("a"), &rule))
}

fn by_number() -> Vec<Case> {
    let five = ["x/a", "x/b", "y/a", "y/b", "z/a"];
    let only_y = Matrix::open().deny("x/*", "x/a").allow("y/*", "x/a").deny("z/*", "x/a");
    let nobody = Matrix::open().deny("*/*", "x/a");
    vec![
        case("one-port", "From one namespace, on one port.", &five, &[81]).then(
            vec![from_y("on-81", &json!(81))],
            81,
            &only_y,
        ),
        case(
            "stacked-policies",
            "Policies for one pod add up: the second opens a port that the first left closed.",
            &five,
            &[80, 81],
        )
        .then(vec![from_y("on-81", &json!(81))], 81, &only_y)
        .then(vec![], 80, &nobody)
        .then(vec![from_y("on-80", &json!(80))], 80, &only_y),
        case("allow-all", "A rule without peers and ports allows everything.", &["x/a", "x/b", "y/a"], &[80, 81])
            .then(vec![network_policy("x", "allow-all", &ingress(&json!({}), &json!([{}])))], 80, &Matrix::open())
            .then(vec![], 81, &Matrix::open()),
    ]
}

fn by_name() -> Vec<Case> {
    let into = ingress(&json!({}), &json!([{"ports": [{"port": "serve-81-tcp"}]}]));
    let out = egress(&json!({}), &json!([{"ports": [{"port": "serve-80-tcp"}]}]));
    vec![
        case(
            "named-port-for-everybody",
            "A port by name, neither peers nor protocol: TCP, at the pods that take it in.",
            &["x/a", "x/b", "y/a"],
            &[80, 81],
        )
        .then(vec![network_policy("x", "named", &into)], 81, &Matrix::open())
        .then(vec![], 80, &Matrix::open().deny("*/*", "x/*")),
        case(
            "named-port-for-a-namespace",
            "A port by name for one namespace; the other port is closed to that one, too.",
            &["x/a", "x/b", "y/a", "z/a"],
            &[80, 81],
        )
        .then(vec![from_y("named", &json!("serve-80-tcp"))], 80, &Matrix::open().deny("x/*", "x/a").deny("z/*", "x/a"))
        .then(vec![], 81, &Matrix::open().deny("*/*", "x/a")),
        case(
            "named-port-of-the-receiver",
            "What a namespace sends goes to a port by name, which is the receiver's.",
            &["x/a", "y/a"],
            &[80, 81],
        )
        .then(vec![network_policy("x", "named", &out)], 80, &Matrix::open())
        .then(vec![], 81, &Matrix::open().deny("x/*", "*/*")),
    ]
}
