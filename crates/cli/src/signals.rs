//! What the operating system tells the program.
//!
//! SIGPIPE needs nothing: the runtime ignores it before `main`, and a write to a pipe without a reader is an error of that write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};

/// Turns the signal of a file-size limit, which would end the process, into the error of the write that met it.
///
/// # Errors
/// When the system refuses the handler.
pub fn survive_file_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// What somebody asks of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// To end in order (SIGTERM, SIGINT, SIGHUP); with the signal's name.
    End(&'static str),
    /// To say how it is (SIGUSR2, as SOFAJRaft's).
    Describe,
}

/// Has `tell` called, on a thread of its own, for each signal from now on. A second SIGTERM or SIGINT ends the process at once, with
/// the status that a shell shows for the signal; SIGHUP begins the end, but never hastens it, because service managers send it right
/// behind SIGTERM. SIGUSR1 does nothing.
///
/// # Errors
/// When the system refuses the handlers or the thread.
pub fn listen(tell: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    end_at_the_second(Arc::default(), &[SIGTERM, SIGINT])?;
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    let run = move || {
        for signal in signals.forever() {
            match signal {
                SIGTERM => tell(Signal::End("SIGTERM")),
                SIGINT => tell(Signal::End("SIGINT")),
                SIGHUP => tell(Signal::End("SIGHUP")),
                SIGUSR2 => tell(Signal::Describe),
                _ => {}
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(run).map(drop)
}

/// Raises the flag at the first of these signals, and ends the process at the next, even if all of its threads are stuck.
fn end_at_the_second(flag: Arc<AtomicBool>, signals: &[i32]) -> io::Result<()> {
    for signal in signals {
        // In this order: the first signal finds the flag down and only raises it.
        signal_hook::flag::register_conditional_shutdown(*signal, 128 + signal, Arc::clone(&flag))?;
        signal_hook::flag::register(*signal, Arc::clone(&flag))?;
    }
    Ok(())
}

/// Says whether somebody has asked this program to end; a second ctrl-C ends it at once.
#[derive(Clone, Debug)]
pub struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Starts to listen.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> io::Result<Interrupted> {
        let flag = Arc::new(AtomicBool::new(false));
        end_at_the_second(Arc::clone(&flag), &[SIGINT, SIGTERM])?;
        signal_hook::flag::register(SIGHUP, Arc::clone(&flag))?;
        Ok(Interrupted(flag))
    }

    /// Whether somebody has asked.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Set in the child process: its signals.
    const CHILD: &str = "RINGRAFT_TEST_SIGNALS";

    /// Runs in a process of its own, started by the test below; in the run of all tests it does nothing.
    #[test]
    fn child_that_gets_signals() {
        let Ok(signals) = std::env::var(CHILD) else { return };
        let flag = Arc::new(AtomicBool::new(false));
        end_at_the_second(Arc::clone(&flag), &[SIGTERM, SIGINT]).unwrap();
        for signal in signals.split(' ') {
            signal_hook::low_level::raise(signal.parse().unwrap()).unwrap();
            assert!(flag.load(Ordering::Relaxed), "told of the first");
        }
        std::process::exit(7);
    }

    #[test]
    fn the_second_signal_ends_the_process_at_once() {
        for (signals, status) in [("15", 7), ("2", 7), ("15 15", 143), ("15 2", 130), ("2 15", 143)] {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "signals::tests::child_that_gets_signals"])
                .env(CHILD, signals)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert_eq!(ended.code(), Some(status), "{signals}");
        }
    }
}
