//! `twill get`: objects of the datastore.

use crate::args::Get;
use crate::commands::columns;
use crate::io::{now, with_store};
use crate::output::{Format, print_table, print_value};
use anyhow::Context;
use serde_json::{Value, json};
use std::process::ExitCode;
use twill_crds::{Kind, known};
use twill_datastore::{Datastore, Error, Filter, Key};

pub(crate) fn run(args: &Get) -> anyhow::Result<ExitCode> {
    with_store(&args.store.datastore, async |store| {
        let kind = kind(&store, &args.kind).await?;
        let namespace = kind.namespaced.then(|| args.namespace.clone());
        if let Some(name) = &args.name {
            let key = Key::namespaced(namespace.unwrap_or_default(), name);
            let object =
                store.engine().get(&kind, &key).await?.ok_or_else(|| Error::NotFound(Error::what(&kind, &key)))?;
            match args.output.output {
                Format::Table => table(&kind, &[object], false)?,
                format => print_value(format, &object)?,
            }
            return Ok(ExitCode::SUCCESS);
        }
        let filter = Filter { namespace: namespace.filter(|_| !args.all_namespaces), ..Filter::default() };
        let page = store.engine().list(&kind, &filter).await?;
        match args.output.output {
            Format::Table => table(&kind, &page.items, kind.namespaced && args.all_namespaces)?,
            format => {
                let metadata = json!({"resourceVersion": page.revision.0.to_string()});
                print_value(
                    format,
                    &json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": page.items}),
                )?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The kind that a person means: one that is known, or one that has objects.
pub(super) async fn kind(store: &Datastore, name: &str) -> anyhow::Result<Kind> {
    if let Some(kind) = known::named(name) {
        return Ok(kind);
    }
    let lower = name.to_lowercase();
    let stored = store.engine().kinds().await?;
    let found = stored.iter().find(|kind| {
        let (single, plural) = (kind.kind.to_lowercase(), kind.plural.to_string());
        [&single, &plural].into_iter().any(|form| *form == lower || format!("{form}.{}", kind.group) == lower)
    });
    let names = || stored.iter().map(|kind| kind.plural.as_ref()).collect::<Vec<_>>().join(", ");
    found.cloned().with_context(|| format!("there is no kind {name}; the datastore has {}", names()))
}

fn table(kind: &Kind, objects: &[Value], with_namespace: bool) -> anyhow::Result<()> {
    if objects.is_empty() {
        eprintln!("no {} found", kind.plural);
        return Ok(());
    }
    let columns = columns::of(kind);
    let mut header: Vec<&str> = if with_namespace { vec!["NAMESPACE"] } else { Vec::new() };
    header.push("NAME");
    header.extend(columns.iter().map(|(name, _)| *name));
    header.push("AGE");
    let now = now();
    let rows = objects.iter().map(|object| {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let mut row = if with_namespace { vec![text("namespace")] } else { Vec::new() };
        row.push(text("name"));
        row.extend(columns.iter().map(|(_, cell)| cell(object)));
        row.push(columns::age(&text("creationTimestamp"), now));
        row
    });
    print_table(&header, rows)
}
