//! Objects of the datastore: put there, shown, taken away.

use super::{Output, Store};
use std::path::PathBuf;

/// `twill apply`.
#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// Manifests, or directories of them; `-` is standard input.
    #[arg(short, long = "filename", required = true, num_args = 1..)]
    pub(crate) filename: Vec<PathBuf>,
    /// Only check them.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Kind, e.g. `pods`, `pool`, `NetworkPolicy`.
    pub(crate) kind: String,
    /// Only this object.
    pub(crate) name: Option<String>,
    /// Namespace, for kinds that live in one.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// All namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// `twill delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// Kind, e.g. `pods`, `pool`, `NetworkPolicy`.
    #[arg(required_unless_present = "filename", conflicts_with = "filename", requires = "name")]
    pub(crate) kind: Option<String>,
    /// Name.
    pub(crate) name: Option<String>,
    /// Manifests whose objects to delete, or directories of them; `-` is standard input.
    #[arg(short, long = "filename", num_args = 1..)]
    pub(crate) filename: Vec<PathBuf>,
    /// Namespace, for kinds that live in one.
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// An object that does not exist is no error.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
    #[command(flatten)]
    pub(crate) store: Store,
    #[command(flatten)]
    pub(crate) output: Output,
}
