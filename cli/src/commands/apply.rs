//! `twill apply`: manifests into the datastore.

use crate::args::Apply;
use crate::commands::counted;
use crate::io::{manifests, with_new_store};
use crate::output::{Format, print_line, print_value};
use serde_json::{Value, json};
use std::process::ExitCode;
use twill_crds::manifest::Manifest;
use twill_datastore::{Datastore, Error, Key};

/// How often a change is tried again when somebody else changes the object meanwhile.
const ATTEMPTS: usize = 5;

pub(crate) fn run(args: &Apply) -> anyhow::Result<ExitCode> {
    let mut manifests = manifests::read(&args.filename)?;
    // Namespaces first: what lives in them means nothing before.
    manifests.sort_by_key(|manifest| manifest.kind.kind != "Namespace");
    if args.dry_run {
        let verb = if manifests.len() == 1 { "is" } else { "are" };
        print_line(&format!("{} {verb} valid", counted(manifests.len(), "object")))?;
        return Ok(ExitCode::SUCCESS);
    }
    with_new_store(&args.store.datastore, async |store| {
        let mut done = Vec::new();
        for manifest in &manifests {
            let (object, what) = apply(&store, manifest).await?;
            let name = named(manifest);
            if args.output.output == Format::Table {
                // The work goes on though nobody may read of it any more.
                let _ = print_line(&format!("{name} {what}"));
            }
            done.push(json!({"name": name, "result": what, "resourceVersion": object["metadata"]["resourceVersion"]}));
        }
        if args.output.output != Format::Table {
            print_value(args.output.output, &done)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// `ippool.twill.network/default`, with the namespace where there is one.
pub(super) fn named(manifest: &Manifest) -> String {
    let kind = manifest.kind.kind.to_lowercase();
    let group = if manifest.kind.group.is_empty() { String::new() } else { format!(".{}", manifest.kind.group) };
    format!("{kind}{group}/{}", key(manifest))
}

pub(super) fn key(manifest: &Manifest) -> Key {
    let text = |field: &str| manifest.value["metadata"][field].as_str().unwrap_or_default();
    Key::namespaced(text("namespace"), text("name"))
}

async fn apply(store: &Datastore, manifest: &Manifest) -> Result<(Value, &'static str), Error> {
    let (engine, kind, key) = (store.engine(), &manifest.kind, key(manifest));
    let mut last = Error::Conflict(Error::what(kind, &key));
    for _ in 0..ATTEMPTS {
        let tried = match engine.get(kind, &key).await? {
            None => engine.create(kind, manifest.value.clone()).await.map(|made| (made, "created")),
            Some(current) => {
                let changed = engine.update(kind, over(&current, &manifest.value)).await?;
                let same = changed["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
                Ok((changed, if same { "unchanged" } else { "configured" }))
            }
        };
        match tried {
            Err(error @ (Error::Conflict(_) | Error::AlreadyExists(_) | Error::NotFound(_))) => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// The manifest in place of the current object: labels and spec are the manifest's, annotations are added to, and what
/// others decided of the object (finalizers, owners, the node of a pod) stays.
fn over(current: &Value, manifest: &Value) -> Value {
    let mut object = manifest.clone();
    for field in ["resourceVersion", "finalizers", "ownerReferences"] {
        let kept = &current["metadata"][field];
        if !kept.is_null() && object["metadata"][field].is_null() {
            object["metadata"][field] = kept.clone();
        }
    }
    for (key, value) in current["metadata"]["annotations"].as_object().into_iter().flatten() {
        if object["metadata"]["annotations"][key].is_null() {
            object["metadata"]["annotations"][key] = value.clone();
        }
    }
    let node = &current["spec"]["nodeName"];
    if object["kind"] == "Pod" && !node.is_null() && object["spec"]["nodeName"].is_null() {
        object["spec"]["nodeName"] = node.clone();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_decided_stays_and_the_rest_is_the_manifests() {
        let current = json!({"kind": "Pod", "metadata": {
            "name": "p", "resourceVersion": "7", "labels": {"old": "1"}, "annotations": {"theirs": "1"}, "finalizers": ["x/y"]
        }, "spec": {"nodeName": "n1", "containers": []}});
        let manifest =
            json!({"kind": "Pod", "metadata": {"name": "p", "labels": {"new": "1"}}, "spec": {"containers": [1]}});
        assert_eq!(
            over(&current, &manifest),
            json!({"kind": "Pod", "metadata": {
                "name": "p", "resourceVersion": "7", "labels": {"new": "1"}, "annotations": {"theirs": "1"}, "finalizers": ["x/y"]
            }, "spec": {"nodeName": "n1", "containers": [1]}})
        );
    }
}
