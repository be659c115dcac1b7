//! One typed get, list, watch, create, update and delete over several engines.
//!
//! In flow the calls of the daemons and commands; out flow objects exactly as the Kubernetes API would show them, whatever
//! the engine. [`Engine`] is the small, untyped interface that an engine implements; [`Datastore`] is the typed handle that
//! everybody uses. Conflict, not-found and already-exists are values of [`Error`], for callers to act on.

mod document;
pub mod engine;
pub mod error;
pub mod event;
mod filter;
mod fresh;
pub mod index;
pub mod io;
pub mod lease;
mod secret;
mod store;

pub use engine::{Engine, Filter, Key, Page, Preconditions, RawEvent, Revision};
pub use error::Error;
pub use fresh::{Freshness, Mark, Present, Scope, Told};
pub use index::{Change, Index};
pub use io::follow::{Followed, follow};
pub use store::{Datastore, List, WatchEvent, WatchStream};
