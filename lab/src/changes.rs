//! What must be done to running pods so that they become what manifests ask for. In flow both, out flow steps.

use crate::ports::declared;
use crate::resources::{Ended, Wanted, owner};
use anyhow::bail;
use std::collections::{BTreeMap, BTreeSet};
use twill_crds::{Object, Pod};

/// Steps, in the order in which they are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Stopped and deleted.
    pub stop: Vec<Pod>,
    /// Stored anew: labels, annotations, what else does not touch the sandbox.
    pub update: Vec<Pod>,
    /// Stopped, and kept with this phase.
    pub end: Vec<(Pod, Ended)>,
    /// Created, placed if they name no node, started.
    pub start: Vec<Wanted>,
    /// Stored already, and started now: an earlier attempt to attach them failed.
    pub retry: Vec<Wanted>,
}

/// Compares. `deployments` are those whose pods `wanted` names completely, as (namespace, name).
///
/// # Errors
/// A pod that no Deployment owns would have to be replaced.
pub fn changes(
    existing: Vec<Pod>,
    wanted: Vec<Wanted>,
    deployments: &BTreeSet<(String, String)>,
) -> anyhow::Result<Changes> {
    let mut existing = existing.into_iter().map(|p| (key(&p), p)).collect::<BTreeMap<_, _>>();
    let mut changes = Changes::default();
    for mut one in wanted {
        let Some(old) = existing.remove(&key(&one.pod)) else {
            changes.start.push(one);
            continue;
        };
        let spec = one.pod.spec.get_or_insert_default();
        if spec.node_name.is_none() {
            spec.node_name = old.spec.as_ref().and_then(|s| s.node_name.clone());
        }
        if !same_sandbox(&old, &one.pod) {
            if owner(&old).is_none() {
                bail!(
                    "Pod {}/{}: spec: ports, node and network of a running pod do not change; delete it, then apply it again",
                    old.namespace(),
                    old.name()
                );
            }
            changes.stop.push(old);
            changes.start.push(one);
            continue;
        }
        match (old.status.as_ref().and_then(|s| s.phase.as_deref()), one.ended) {
            (Some("Succeeded" | "Failed"), _) => {}
            (Some("Running"), Some(ended)) => changes.end.push((old.clone(), ended)),
            (Some("Running"), None) => {}
            (_, ended) => changes.retry.push(Wanted { pod: old.clone(), ended }),
        }
        if old.metadata.labels != one.pod.metadata.labels || old.metadata.annotations != one.pod.metadata.annotations {
            let mut new = old;
            new.metadata.labels = one.pod.metadata.labels;
            new.metadata.annotations = one.pod.metadata.annotations;
            changes.update.push(new);
        }
    }
    let of_deployment = |p: &Pod| owner(p).is_some_and(|(ns, n)| deployments.contains(&(ns.to_owned(), n.to_owned())));
    changes.stop.extend(existing.into_values().filter(of_deployment));
    Ok(changes)
}

fn key(pod: &Pod) -> (String, String) {
    (pod.namespace().to_owned(), pod.name().to_owned())
}

fn same_sandbox(a: &Pod, b: &Pod) -> bool {
    let place = |p: &Pod| p.spec.as_ref().map(|s| (s.node_name.clone(), s.host_network.unwrap_or_default()));
    declared(a) == declared(b) && place(a) == place(b)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::resources::DEPLOYMENT;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, port: u16, label: &str, deployment: Option<&str>) -> Pod {
        let annotations = deployment.map(|d| json!({DEPLOYMENT: d}));
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "d", "labels": {"l": label}, "annotations": annotations},
            "status": node.map(|_| json!({"phase": "Running"})),
            "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"containerPort": port}]}]},
        }))
        .unwrap()
    }

    fn wanted(pod: Pod) -> Wanted {
        Wanted { pod, ended: None }
    }

    fn names<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<&'a str> {
        pods.into_iter().map(Object::name).collect()
    }

    #[test]
    fn a_running_pod_that_is_asked_for_again_is_left_alone() {
        let done = changes(
            vec![pod("a", Some("n1"), 80, "x", None)],
            vec![wanted(pod("a", None, 80, "x", None))],
            &BTreeSet::new(),
        );
        assert_eq!(done.unwrap(), Changes::default());
    }

    #[test]
    fn a_pod_that_was_never_attached_is_tried_again() {
        let mut pending = pod("a", Some("n1"), 80, "x", None);
        pending.status = None;
        let done = changes(vec![pending], vec![wanted(pod("a", None, 80, "x", None))], &BTreeSet::new()).unwrap();
        assert_eq!(names(done.retry.iter().map(|w| &w.pod)), ["a"]);
        assert!(done.start.is_empty());
    }

    #[test]
    fn labels_change_in_place_and_ports_do_not() {
        let old = || vec![pod("a", Some("n1"), 80, "x", None)];
        let relabelled = changes(old(), vec![wanted(pod("a", None, 80, "y", None))], &BTreeSet::new()).unwrap();
        assert_eq!(names(&relabelled.update), ["a"]);
        assert_eq!(relabelled.update[0].spec.as_ref().unwrap().node_name.as_deref(), Some("n1"));
        assert!(changes(old(), vec![wanted(pod("a", None, 81, "x", None))], &BTreeSet::new()).is_err());
    }

    #[test]
    fn a_deployment_replaces_changed_pods_and_stops_surplus_ones() {
        let old = vec![pod("w-0", Some("n1"), 80, "x", Some("w")), pod("w-1", Some("n2"), 80, "x", Some("w"))];
        let new = vec![wanted(pod("w-0", None, 81, "x", Some("w")))];
        let done = changes(old, new, &[("d".to_owned(), "w".to_owned())].into()).unwrap();
        assert_eq!(names(&done.stop), ["w-0", "w-1"]);
        assert_eq!(names(done.start.iter().map(|w| &w.pod)), ["w-0"]);
    }

    #[test]
    fn a_pod_that_ended_meanwhile_is_ended() {
        let new = Wanted { pod: pod("a", None, 80, "x", None), ended: Some(Ended::Failed) };
        let done = changes(vec![pod("a", Some("n1"), 80, "x", None)], vec![new], &BTreeSet::new()).unwrap();
        assert_eq!(done.end.len(), 1);
    }
}
