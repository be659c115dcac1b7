//! Answers as a table, JSON or YAML.

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Prints `value` in a machine's form, or `rows` under `header`.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> anyhow::Result<()> {
    match format {
        Format::Table => print_table(header, rows),
        Format::Json | Format::Yaml => print_value(format, value)?,
    }
    Ok(())
}

/// Prints `value` as YAML if that was asked for, else as JSON.
pub(crate) fn print_value<T: Serialize>(format: Format, value: &T) -> anyhow::Result<()> {
    if format == Format::Yaml {
        print!("{}", serde_saphyr::to_string(value).context("the answer cannot be written as YAML")?);
    } else {
        println!("{}", serde_json::to_string_pretty(value)?);
    }
    Ok(())
}

/// Prints `rows` under `header`.
pub(crate) fn print_table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    println!("{}", table(header, rows));
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table.add_rows(rows);
    table.trim_fmt()
}
