//! Cases 34 to 37: blocks of addresses that hold pods, and directions that do not touch each other.

use super::{case, pod};
use crate::address::{host_bits, prefix};
use crate::manifest::{egress, ingress, network_policy};
use crate::matrix::Matrix;
use crate::{Case, Change};
use serde_json::{Value, json};

/// x/a sends to one block only.
fn to_block(block: &Value) -> Change {
    network_policy("x", "to-block", &egress(&pod("a"), &json!([{"to": [{"ipBlock": block}]}])))
}

pub(super) fn cases() -> Vec<Case> {
    let three = ["x/a", "x/b", "x/c"];
    let all_but_b = json!({"cidr": prefix("x/b", 4), "except": [host_bits("x/b", 0)]});
    let not_to_b = Matrix::open().deny("x/a", "x/b");
    let out = network_policy("x", "out", &egress(&pod("a"), &json!([{}])));
    let shut = network_policy("x", "shut", &ingress(&pod("a"), &json!([])));
    vec![
        case("block-of-one-pod", "Out to the address of one pod, as a block.", &["x/a", "y/a", "y/b"], &[80]).then(
            vec![to_block(&json!({"cidr": host_bits("y/b", 0)}))],
            80,
            &Matrix::open().deny("x/a", "*/*").allow("x/a", "y/b"),
        ),
        case("block-with-an-exception", "Out to a wide block, one pod of which is left out.", &three, &[80]).then(
            vec![to_block(&all_but_b)],
            80,
            &not_to_b,
        ),
        case(
            "exception-becomes-the-block",
            "The pod that was left out is, after a change of the policy, the only one that is let in.",
            &three,
            &[80],
        )
        .then(vec![to_block(&all_but_b)], 80, &not_to_b)
        .then(
            vec![to_block(&json!({"cidr": host_bits("x/b", 0)}))],
            80,
            &Matrix::open().deny("x/a", "*/*").allow("x/a", "x/b"),
        ),
        case(
            "directions-apart",
            "A pod may send everywhere; that it then takes nothing in does not change it.",
            &["x/a", "x/b", "y/a"],
            &[80],
        )
        .then(vec![out], 80, &Matrix::open())
        .then(vec![shut], 80, &Matrix::open().deny("*/*", "x/a")),
    ]
}
