//! The log of whatever runs, on standard error.

use crate::args::LogFormat;
use tracing_subscriber::EnvFilter;

/// Starts logging; level `info` unless RUST_LOG says otherwise.
pub(crate) fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Plain => log.with_target(false).with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
