//! Logs go to stderr.

mod storm;
mod writer;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use storm::Calm;
use writer::LineWriter;

pub use storm::ASKED;
pub use writer::{flush, say};

/// Starts logging by `filter`, else by `RUST_LOG`, else by `default`. Panics go there, too.
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
    let writer = LineWriter::start(std::io::stderr())
        .map_err(|error| format!("cannot start the thread that writes the log: {error}"))?;
    report_panics(writer.clone());
    tracing_subscriber::fmt()
        .with_ansi(terminal)
        // Else a line that cannot be formatted or written makes `eprintln!` panic, on the thread that has logged.
        .log_internal_errors(false)
        .event_format(Calm::default())
        .with_env_filter(filter)
        .with_writer(writer)
        .init();
    Ok(())
}

/// The standard hook writes to stderr on the thread that panics, which a reader that sleeps holds up for ever. A panic of an engine
/// thread must get to the abort that follows it.
fn report_panics(writer: LineWriter) {
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{trace}\n"),
            _ => String::new(),
        };
        writer.put(
            format!("\nthread '{name}' panicked at {}:\n{}\n{trace}", place(info), text(info)).as_bytes(),
        );
        flush();
    }));
}

fn place(info: &std::panic::PanicHookInfo<'_>) -> String {
    info.location().map_or_else(String::new, ToString::to_string)
}

fn text(info: &std::panic::PanicHookInfo<'_>) -> String {
    info.payload_as_str().unwrap_or("(no text)").to_owned()
}
