//! `twill delete`: objects out of the datastore, by name or by manifest.

use crate::args::Delete;
use crate::commands::{apply, get};
use crate::io::{manifests, with_store};
use crate::output::{Format, print_line, print_value};
use std::process::ExitCode;
use twill_crds::manifest::Manifest;
use twill_datastore::{Error, Preconditions};

pub(crate) fn run(args: &Delete) -> anyhow::Result<ExitCode> {
    let listed = if args.filename.is_empty() { Vec::new() } else { manifests::read(&args.filename)? };
    with_store(&args.store.datastore, async |store| {
        let mut targets = listed;
        if let (Some(kind), Some(name)) = (&args.kind, &args.name) {
            let kind = get::kind(&store, kind).await?;
            let mut value = serde_json::json!({"metadata": {"name": name}});
            if kind.namespaced {
                value["metadata"]["namespace"] = args.namespace.clone().into();
            }
            targets.push(Manifest { kind, value, line: 0 });
        }
        let (mut gone, mut missing) = (Vec::new(), Vec::new());
        // What was created last goes first.
        for target in targets.iter().rev() {
            match store.engine().delete(&target.kind, &apply::key(target), &Preconditions::default()).await {
                Ok(()) => gone.push(apply::named(target)),
                Err(Error::NotFound(what)) => missing.push(what),
                Err(error) => return Err(error.into()),
            }
        }
        match args.output.output {
            Format::Table => gone.iter().try_for_each(|name| print_line(&format!("{name} deleted")))?,
            format => print_value(format, &gone)?,
        }
        if args.ignore_not_found || missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        anyhow::bail!("{} not exist; --ignore-not-found passes over that", does_or_do(&missing))
    })
}

fn does_or_do(missing: &[String]) -> String {
    format!("{} {}", missing.join(", "), if missing.len() == 1 { "does" } else { "do" })
}
