//! The log of whatever runs, on standard error.

use crate::args::LogFormat;
use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Starts logging at this level, which may name modules.
pub(crate) fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(level).with_context(|| format!("--log {level} is no level; write info or debug, say"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Plain => log.with_target(false).with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
