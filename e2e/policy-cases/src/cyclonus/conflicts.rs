//! Shapes of policies that say different things about one pod, or about both ends of a connection.

use super::{Direction, case, dns};
use crate::Case;
use crate::manifest::{label, network_policy};
use serde_json::{Value, json};

/// What a policy lets through. No rule and rules that fit nobody mean the same, and both are told.
#[derive(Clone, Copy)]
enum Rules {
    Nothing,
    Everything,
    AllPods,
    AllAddresses,
    NoPod,
    NoAddress,
}

impl Rules {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Everything => "everything",
            Self::AllPods => "all-pods",
            Self::AllAddresses => "all-addresses",
            Self::NoPod => "no-pod",
            Self::NoAddress => "no-address",
        }
    }

    /// The rules in the direction's words; nothing if the list is absent.
    fn told(self, direction: Direction) -> Option<Value> {
        let peer = match self {
            Self::Nothing => return None,
            Self::Everything => return Some(json!([{}])),
            Self::AllPods => json!({"namespaceSelector": {}}),
            Self::AllAddresses => json!({"ipBlock": {"cidr": "0.0.0.0/0"}}),
            Self::NoPod => json!({"namespaceSelector": label("nobody", "has-this")}),
            Self::NoAddress => json!({"ipBlock": {"cidr": "0.0.0.0/31"}}),
        };
        Some(json!([{direction.peers(): [peer]}]))
    }
}

/// A pod that policies are about.
type Target = (&'static str, &'static str);
const X_B: Target = ("x", "b");
const Y_C: Target = ("y", "c");

/// 16 cases.
pub(super) fn cases() -> Vec<Case> {
    use Direction::{Egress, Ingress};
    use Rules::{AllAddresses, AllPods, Everything, NoAddress, NoPod, Nothing};
    let mut cases = vec![
        of(&[(X_B, Egress, Nothing), (Y_C, Ingress, Everything)]),
        of(&[(X_B, Egress, Everything), (Y_C, Ingress, Nothing)]),
        of(&[(X_B, Egress, Nothing), (X_B, Egress, Everything)]),
        of(&[(Y_C, Ingress, Nothing), (Y_C, Ingress, Everything)]),
    ];
    for direction in [Egress, Ingress] {
        for (one, other) in [(Nothing, AllPods), (Nothing, AllAddresses), (NoAddress, AllPods), (NoPod, AllAddresses)] {
            cases.push(of(&[(X_B, direction, one), (X_B, direction, other)]));
        }
    }
    for direction in [Egress, Ingress] {
        cases.extend([NoAddress, NoPod].map(|rules| of(&[(X_B, direction, rules)])));
    }
    cases
}

fn of(policies: &[(Target, Direction, Rules)]) -> Case {
    let mut names = Vec::new();
    let mut changes = Vec::new();
    for ((namespace, pod), direction, rules) in policies {
        let name = format!("{}-{}", direction.rules(), rules.name());
        changes.push(network_policy(namespace, &name, &spec(pod, *direction, rules.told(*direction))));
        names.push(format!("{namespace}-{pod}-{name}"));
    }
    if policies.iter().any(|(_, direction, _)| matches!(direction, Direction::Egress)) {
        changes.push(network_policy("x", "dns", &spec("b", Direction::Egress, Some(json!([dns()])))));
    }
    let about = "Policies for one pod add up, and both ends of a connection have to agree.";
    case(&format!("conflict-{}", names.join("-and-")), about, vec![changes])
}

fn spec(pod: &str, direction: Direction, rules: Option<Value>) -> Value {
    let types = match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    let mut spec = json!({"podSelector": label("pod", pod), "policyTypes": [types]});
    if let Some(rules) = rules {
        spec[direction.rules()] = rules;
    }
    spec
}
