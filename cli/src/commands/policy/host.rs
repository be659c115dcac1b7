//! `twill policy host`, `confirm` and `retry`: HostPolicies of a node, and what an operator says to their trials.

use crate::args::{Named, Node, Output};
use crate::commands::drain::change;
use crate::commands::exit;
use crate::io::control::ask;
use crate::io::with_store;
use crate::output::{Format, print_line, print_table, print_value};
use anyhow::bail;
use serde_json::Value;
use std::process::ExitCode;
use twill_crds::control::FelixRequest;
use twill_crds::host_policy::{ATTEMPT, CONFIRMED_GENERATION, ConfirmationMode};
use twill_crds::names::FELIX_SOCKET;
use twill_crds::{HostPolicy, Object};
use twill_datastore::{Datastore, Key};

/// Shows what is in force here, what is on trial, and what passes before it. Exit 2 if an attempt came to nothing.
pub(super) fn show(node: &Node, output: &Output) -> anyhow::Result<ExitCode> {
    let state: Value = ask(&node.run_dir.join(FELIX_SOCKET), &FelixRequest::HostPolicies)?;
    if output.output == Format::Table {
        summary(&state).iter().try_for_each(|line| print_line(line))?;
        let failsafes = state["failsafes"].as_array().into_iter().flatten().map(failsafe);
        print_table(&["DIRECTION", "PORT", "PEERS", "REASON"], failsafes)?;
    } else {
        print_value(output.output, &state)?;
    }
    Ok(exit(state["reverted"].is_null()))
}

fn summary(state: &Value) -> Vec<String> {
    let names = |at: &Value| {
        let all: Vec<&str> = at.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let mut lines = vec![format!("In force: {}", names(&state["confirmed"]))];
    let trial = &state["trial"];
    if !trial.is_null() {
        let how = match trial["confirmation"].as_str() {
            Some("Manual") => "unless confirmed: twill policy confirm NAME".to_owned(),
            _ => match trial["lastFailure"].as_str() {
                Some(why) => format!("unless its self-test succeeds; it has failed: {why}"),
                None => "unless its self-test succeeds".to_owned(),
            },
        };
        lines.push(format!("On trial: {}, for {} s more {how}", names(&trial["policies"]), trial["secondsLeft"]));
    }
    if state["failsafesDespiteNone"].as_array().is_some_and(|all| !all.is_empty()) {
        lines.push(format!(
            "Another one has failsafes: None, but what the node needs passes because of: {}",
            names(&state["failsafesDespiteNone"])
        ));
    }
    if let Some(why) = state["reverted"]["why"].as_str() {
        lines.push(format!("Not in force as it stands: {why}; change the object, or twill policy retry NAME"));
    }
    lines
}

fn failsafe(one: &Value) -> Vec<String> {
    let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let protocol = match one["protocol"].as_u64() {
        Some(6) => "TCP".to_owned(),
        Some(17) => "UDP".to_owned(),
        other => format!("protocol {}", other.unwrap_or_default()),
    };
    let port = match (one["ports"][0].as_u64(), one["ports"][1].as_u64()) {
        (Some(first), Some(last)) if first == last => format!("{first}/{protocol}"),
        (Some(first), Some(last)) => format!("{first}-{last}/{protocol}"),
        _ => protocol,
    };
    let peers = match &one["peers"] {
        Value::String(word) if word == "any" => "anyone".to_owned(),
        Value::String(word) => word.clone(),
        other => {
            let all = other["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            all.collect::<Vec<_>>().join(", ")
        }
    };
    vec![text("direction"), port, peers, text("reason")]
}

/// Confirms the state of a HostPolicy that the datastore has now.
pub(super) fn confirm(args: &Named) -> anyhow::Result<ExitCode> {
    with_store(&args.store.datastore, async |store| {
        let policy = existing(&store, &args.name).await?;
        if policy.spec.confirmation.mode != ConfirmationMode::Manual {
            bail!(
                "HostPolicy {}: spec.confirmation.mode is SelfTest, so each node confirms it itself; set it to Manual to confirm it",
                args.name
            );
        }
        let generation = policy.metadata.generation.unwrap_or_default().to_string();
        change(&store, &args.name, None, |policy| confirmed(policy, &generation)).await?;
        print_line(&format!(
            "hostpolicy/{} confirmed as of generation {generation}; nodes where its time is over stay as they are",
            args.name
        ))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Lets nodes try a HostPolicy again that came to nothing.
pub(super) fn retry(args: &Named) -> anyhow::Result<ExitCode> {
    with_store(&args.store.datastore, async |store| {
        existing(&store, &args.name).await?;
        let now = jiff::Timestamp::now().to_string();
        change(&store, &args.name, None, |policy| tried_again(policy, &now)).await?;
        print_line(&format!("hostpolicy/{} is tried again where it is not in force", args.name))?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn existing(store: &Datastore, name: &str) -> anyhow::Result<HostPolicy> {
    match store.get::<HostPolicy>(&Key::cluster(name)).await? {
        Some(policy) => Ok(policy),
        None => bail!("HostPolicy {name} does not exist; see: twill get hostpolicies"),
    }
}

/// Says whether that is new.
fn confirmed(policy: &mut HostPolicy, generation: &str) -> bool {
    let all = policy.meta_mut().annotations.get_or_insert_default();
    all.insert(CONFIRMED_GENERATION.to_owned(), generation.to_owned()).as_deref() != Some(generation)
}

/// Another attempt at the same generation. What was confirmed of an earlier one must not confirm it.
fn tried_again(policy: &mut HostPolicy, attempt: &str) -> bool {
    let all = policy.meta_mut().annotations.get_or_insert_default();
    all.remove(CONFIRMED_GENERATION);
    all.insert(ATTEMPT.to_owned(), attempt.to_owned());
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_says_what_is_in_force_what_is_on_trial_and_what_came_to_nothing() {
        let trial =
            json!({"policies": ["b"], "secondsLeft": 7, "confirmation": "SelfTest", "lastFailure": "no answer"});
        let state = json!({"confirmed": [], "trial": trial, "reverted": {"attempt": "b@1", "why": "too late"},
            "failsafesDespiteNone": ["b"]});
        assert_eq!(
            summary(&state),
            [
                "In force: none",
                "On trial: b, for 7 s more unless its self-test succeeds; it has failed: no answer",
                "Another one has failsafes: None, but what the node needs passes because of: b",
                "Not in force as it stands: too late; change the object, or twill policy retry NAME"
            ]
        );
    }

    #[test]
    fn a_failsafe_is_a_row() {
        let row = |peers: Value, ports: Value, protocol: u8| {
            failsafe(
                &json!({"direction": "ingress", "protocol": protocol, "ports": ports, "peers": peers, "reason": "r"}),
            )
        };
        assert_eq!(row(json!("any"), json!([22, 22]), 6), ["ingress", "22/TCP", "anyone", "r"]);
        assert_eq!(row(json!("nodes"), Value::Null, 4), ["ingress", "protocol 4", "nodes", "r"]);
        let some = json!({"addresses": ["192.0.2.1", "fd00::1"]});
        assert_eq!(row(some, json!([3784, 3785]), 17), ["ingress", "3784-3785/UDP", "192.0.2.1, fd00::1", "r"]);
    }

    #[test]
    fn a_retry_is_not_confirmed_by_what_was_said_before() {
        let mut policy: HostPolicy = serde_json::from_value(json!({
            "apiVersion": "twill.network/v1", "kind": "HostPolicy",
            "metadata": {"name": "a", "generation": 3, "annotations": {"other": "stays"}}, "spec": {},
        }))
        .unwrap();
        assert!(confirmed(&mut policy, "3") && !confirmed(&mut policy, "3"));
        assert!(tried_again(&mut policy, "now"));
        let left: Vec<_> =
            policy.metadata.annotations.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(left, [("other", "stays"), (ATTEMPT, "now")]);
    }
}
