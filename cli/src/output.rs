//! Answers as a table, JSON or YAML.

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::Write;

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
        Format::Json | Format::Yaml => print_value(format, value),
    }
}

/// Prints `value` as YAML if that was asked for, else as JSON.
pub(crate) fn print_value<T: Serialize>(format: Format, value: &T) -> anyhow::Result<()> {
    if format == Format::Yaml {
        let text = serde_saphyr::to_string(value).context("the answer cannot be written as YAML")?;
        print_line(text.trim_end())
    } else {
        print_line(&serde_json::to_string_pretty(value)?)
    }
}

/// Prints a line. That nobody reads it any more (`twill get pods | head`) is an error that `main` passes over.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}").map_err(Unwritten)?)
}

/// Prints `rows` under `header`.
pub(crate) fn print_table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> anyhow::Result<()> {
    print_line(&table(header, rows))
}

/// Whether an answer failed only because its reader has gone.
pub(crate) fn nobody_reads(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<Unwritten>();
    io.is_some_and(|error| error.0.kind() == std::io::ErrorKind::BrokenPipe)
}

#[derive(Debug, thiserror::Error)]
#[error("the answer cannot be written")]
struct Unwritten(#[source] std::io::Error);

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table.add_rows(rows);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table.trim_fmt()
}
