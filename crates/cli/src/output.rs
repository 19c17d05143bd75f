//! What the program prints: as far as somebody reads it, and never a reason to panic.
//!
//! `println!` and its like panic when the reader is gone (`| head`) or the disk is full. The macros here have the same names and take
//! their place in the whole program, so that no command can forget it.

use std::fmt::Arguments;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;

/// Prints to stdout; see [`crate::output::print`].
macro_rules! print {
    ($($arg:tt)*) => { $crate::output::print(format_args!($($arg)*)) };
}

/// Prints a line to stdout; see [`crate::output::print`].
macro_rules! println {
    () => { $crate::output::print(format_args!("\n")) };
    ($($arg:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints a line to stderr, if that is possible.
macro_rules! eprintln {
    ($($arg:tt)*) => { $crate::output::print_error(format_args!($($arg)*)) };
}

/// What was to be printed could not be.
static FAILED: AtomicBool = AtomicBool::new(false);

/// Unwinds the command whose output nobody reads.
struct NobodyReads;

/// Prints to stdout. When that fails, nobody wants what the command has to say: the command goes on to its status, and ends at once if it
/// wants to print more, cleaning up as it goes (on other threads than the main one the text is dropped). [`guard`] tells.
pub fn print(text: Arguments<'_>) {
    if !FAILED.load(Ordering::Relaxed) {
        let mut stdout = std::io::stdout().lock();
        let printed = stdout.write_fmt(text).and_then(|()| stdout.flush());
        FAILED.store(printed.is_err(), Ordering::Relaxed);
    } else if std::thread::current().name() == Some("main") {
        // Not a panic: no hook runs, nothing is reported.
        resume_unwind(Box::new(NobodyReads));
    }
}

/// Prints a line to stderr. When that fails there is no place left to say so.
pub fn print_error(text: Arguments<'_>) {
    let mut line = text.to_string();
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Prints what clap has to say: help and version on stdout, errors on stderr.
pub fn print_usage(error: &clap::Error) -> Exit {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    match (error.use_stderr(), printed) {
        (true, _) => Exit::Usage,
        (false, Ok(())) => Exit::Fine,
        (false, Err(_)) => Exit::Failed,
    }
}

/// Runs a command. It has failed when what it printed did not get to its reader; panics pass.
pub fn guard(command: impl FnOnce() -> Exit) -> Exit {
    match catch_unwind(AssertUnwindSafe(command)) {
        Ok(Exit::Fine) if FAILED.load(Ordering::Relaxed) => Exit::Failed,
        Ok(exit) => exit,
        Err(payload) if payload.is::<NobodyReads>() => Exit::Failed,
        Err(payload) => resume_unwind(payload),
    }
}
