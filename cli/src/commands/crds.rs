//! `twill crds`: the definitions of our kinds, for an API server.

use crate::output::{Format, print_line, print_table, print_value};
use anyhow::Context;
use serde_json::{Value, json};
use std::process::ExitCode;
use twill_crds::definitions;

pub(crate) fn run(format: Format) -> anyhow::Result<ExitCode> {
    match format {
        Format::Table => table(&definitions::all())?,
        Format::Json => print_value(format, &json!({"apiVersion": "v1", "kind": "List", "items": definitions::all()}))?,
        Format::Yaml => {
            print_line(definitions::yaml().context("the definitions cannot be written as YAML")?.trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(definitions: &[Value]) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = definitions.iter().map(|definition| {
        let (spec, names) = (&definition["spec"], &definition["spec"]["names"]);
        let short: Vec<String> = names["shortNames"].as_array().into_iter().flatten().map(text).collect();
        let version = format!("{}/{}", text(&spec["group"]), text(&spec["versions"][0]["name"]));
        vec![text(&names["plural"]), short.join(","), version, text(&spec["scope"]), text(&names["kind"])]
    });
    print_table(&["NAME", "SHORT NAMES", "VERSION", "SCOPE", "KIND"], rows)
}
