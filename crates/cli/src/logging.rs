//! Logs go to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging by `filter`, else by `RUST_LOG`, else by `default`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start(filter: Option<&str>, default: &str) -> Result<(), String> {
    let filter = match filter {
        Some(filter) => EnvFilter::try_new(filter)
            .map_err(|error| format!("--log {filter:?}: {error}; write for example --log debug"))?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default)),
    };
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal).init();
    Ok(())
}
