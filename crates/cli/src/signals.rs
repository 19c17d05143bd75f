//! What the operating system tells the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};

/// Turns the signal of a file-size limit, which would end the process, into the error of the write that met it.
///
/// # Errors
/// When the system refuses the handler.
pub fn survive_file_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Blocks until somebody asks the process to end; names the signal.
///
/// # Errors
/// When the system refuses the handlers.
pub fn wait_for_end() -> io::Result<&'static str> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    let signal = signals.forever().next();
    Ok(if signal == Some(SIGINT) { "SIGINT" } else { "SIGTERM" })
}

/// Asks this process to end, as the signal would.
pub fn end_this_process() {
    // It fails only for signals that do not exist.
    let _ = signal_hook::low_level::raise(SIGTERM);
}

/// Says whether somebody has asked the process to end; a second ctrl-C ends it at once.
#[derive(Clone, Debug)]
pub struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> io::Result<Interrupted> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down and only raises it.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupted(flag))
    }

    /// Whether somebody has asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
