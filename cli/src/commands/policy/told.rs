//! What nodes say of their HostPolicies and of what they need: this node's felix, and files with the answers of others.

use crate::args::Told;
use crate::io::control::ask;
use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use twill_crds::control::FelixRequest;
use twill_crds::names::FELIX_SOCKET;
use twill_crds::{Node, Object};
use twill_felix::evaluate::Universe;
use twill_felix::host::State;

/// What is known of nodes by their own word, one answer each: what files tell comes later than what this node's felix does, so it counts.
pub(crate) fn known(run_dir: &Path, told: &Told, nodes: &[Node]) -> anyhow::Result<Vec<State>> {
    let all = of_this_node(run_dir, nodes).into_iter().chain(of_files(told, nodes)?);
    let by_node: BTreeMap<String, State> = all.map(|state| (state.node.clone(), state)).collect();
    Ok(by_node.into_values().collect())
}

/// The answers in files, each of a node that there is.
pub(crate) fn of_files(told: &Told, nodes: &[Node]) -> anyhow::Result<Vec<State>> {
    let states = told.host_state.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?.concat();
    for State { node, .. } in &states {
        let known = nodes.iter().any(|one| one.name() == node);
        ensure!(known, "--host-state tells of node {node}, which there is not; twill get nodes lists them");
    }
    Ok(states)
}

/// One answer, or a list of them.
fn read(file: &Path) -> anyhow::Result<Vec<State>> {
    let at = || format!("{} is no answer of `twill policy host -o json`", file.display());
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let value: Value = serde_saphyr::from_str(&text).with_context(at)?;
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    all.into_iter().map(|one| serde_json::from_value(one).with_context(at)).collect()
}

/// The answer of this node, if it is one of these and its felix runs.
pub(crate) fn of_this_node(run_dir: &Path, nodes: &[Node]) -> Option<State> {
    let socket = run_dir.join(FELIX_SOCKET);
    if !socket.exists() {
        return None;
    }
    match ask(&socket, &FelixRequest::HostPolicies).and_then(of_this_release) {
        Ok(state) => nodes.iter().any(|node| node.name() == state.node).then_some(state),
        Err(error) => {
            eprintln!("warning: what this node says of its HostPolicies is not used: {error:#}");
            None
        }
    }
}

/// An answer that another release of felix may have given.
fn of_this_release(answer: Value) -> anyhow::Result<State> {
    let node = answer["node"].as_str().map(|name| format!(" of node {name}")).unwrap_or_default();
    serde_json::from_value(answer).map_err(|error| {
        anyhow!("the felix{node} is of another release than this twill ({error}); use the twill that came with it")
    })
}

/// The universe with what nodes say that they need; their HostPolicies are those of the objects.
pub(crate) fn needing(universe: Universe, states: &[State]) -> Universe {
    states.iter().fold(universe, |universe, state| universe.needing(&state.node, state.failsafes.clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_two_answers_of_a_node_the_last_one_counts() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, confirmed: &[&str]| {
            let state = json!({"node": "n1", "confirmed": confirmed, "confirmedPolicies": [], "failsafes": []});
            std::fs::write(directory.path().join(name), state.to_string()).unwrap();
            directory.path().join(name)
        };
        let told = Told { host_state: vec![file("early", &["a", "b"]), file("late", &["b"])] };
        let node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
        let all = known(directory.path(), &told, &[node]).unwrap();
        assert_eq!(all.iter().map(|state| state.confirmed.clone()).collect::<Vec<_>>(), [["b"]]);
    }

    #[test]
    fn an_answer_of_another_release_is_used_as_far_as_it_goes_or_named_in_a_sentence() {
        let older = json!({"node": "n1", "confirmed": ["a"], "trial": null, "reverted": null, "failsafes": []});
        assert_eq!(of_this_release(older).unwrap().in_force(), None);
        let other = of_this_release(json!({"node": "n1", "confirmed": []})).unwrap_err().to_string();
        let sentence = "the felix of node n1 is of another release than this twill (missing field `failsafes`); use the twill that came with it";
        assert_eq!(other, sentence);
    }
}
