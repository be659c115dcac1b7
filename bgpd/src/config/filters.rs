//! Filters of the file: by name, each with the rules of a BGPFilter's spec.

use super::{ConfigError, wrong};
use crate::filter::{Filter, Part};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use twill_crds::{BGPFilter, BGPFilterSpec, manifest};

/// Filters by name.
pub(super) type Filters = BTreeMap<String, BGPFilterSpec>;

pub(super) fn read(file: &BTreeMap<String, Spanned<Value>>) -> Result<Filters, ConfigError> {
    let read = |(name, spec): (&String, &Spanned<Value>)| {
        let object: Result<BGPFilter, _> = manifest::spec(name, &spec.value);
        let object = object.map_err(|problem| {
            let field = problem.field.strip_prefix("spec.").unwrap_or_default();
            let at = if field.is_empty() { String::new() } else { format!("{field}: ") };
            wrong(spec, &format!("filter {name}: {at}{}", problem.problem))
        })?;
        Ok((name.clone(), object.spec))
    };
    file.iter().map(read).collect()
}

/// The import and the export filter of a peer that names these, in order.
pub(super) fn of(filters: &Filters, names: &[String]) -> Result<(Filter, Filter), String> {
    let mut named = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let Some(spec) = filters.get(name) else {
            return Err(format!("filters: there is no filter {name}; write it under filters, or leave it out"));
        };
        if names[..at].contains(name) {
            return Err(format!("filters: {name} stands here twice; the second one decides nothing"));
        }
        let titles = ["import", "export"].map(|direction| format!("filter {name}: {direction}"));
        named.push((titles, spec));
    }
    let import = named.iter().map(|(titles, spec)| Part { name: &titles[0], rules: &spec.import });
    let export = named.iter().map(|(titles, spec)| Part { name: &titles[1], rules: &spec.export });
    let (import, export): (Vec<_>, Vec<_>) = (import.collect(), export.collect());
    Ok((Filter::new(&import, false), Filter::new(&export, false)))
}
