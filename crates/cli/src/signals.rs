//! What the operating system tells the program.
//!
//! SIGPIPE needs nothing: the runtime ignores it before `main`, and a write to a pipe without a reader is an error of that write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

/// How long after the first signal to end another one belongs to it: `timeout`, service managers and terminals send it to a process
/// and again to its group, and that is no impatience.
const ONE_WISH: Duration = Duration::from_millis(300);

/// Has `tell` called, on a thread of its own, for each signal from now on. A second SIGTERM or SIGINT, 300 ms or more after the first,
/// ends the process at once, with the status that a shell shows for the signal. SIGHUP begins the end, but never hastens it. SIGUSR1 does
/// nothing.
///
/// # Errors
/// When the system refuses the handlers or the thread.
pub fn listen(tell: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    listen_for(tell, ONE_WISH)
}

fn listen_for(tell: impl Fn(Signal) + Send + 'static, one_wish: Duration) -> io::Result<()> {
    let impatient = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In the handler itself, so that it works even if all threads are stuck.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&impatient))?;
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    let run = move || {
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                SIGINT => "SIGINT",
                SIGHUP => "SIGHUP",
                SIGUSR2 => {
                    tell(Signal::Describe);
                    continue;
                }
                _ => continue,
            };
            tell(Signal::End(name));
            if !impatient.load(Ordering::Relaxed) {
                std::thread::sleep(one_wish);
                impatient.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(run).map(drop)
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
        let told = Arc::clone(&flag);
        listen(move |signal| {
            if matches!(signal, Signal::End(_)) {
                told.store(true, Ordering::Relaxed);
            }
        })?;
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
        let Ok(plan) = std::env::var(CHILD) else { return };
        let numbers: Vec<i32> = plan.split(' ').map(|number| number.parse().unwrap()).collect();
        let [one_wish, first, second] = numbers[..] else { panic!("{plan}") };
        let (tell, told) = std::sync::mpsc::channel();
        let tell = move |signal| tell.send(signal).unwrap();
        listen_for(tell, Duration::from_secs(one_wish as u64)).unwrap();
        let raise = |signal| signal_hook::low_level::raise(signal).unwrap();
        raise(first);
        assert!(matches!(told.recv(), Ok(Signal::End(_))));
        if one_wish > 0 {
            raise(second);
            std::process::exit(7);
        }
        loop {
            raise(second);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_second_signal_ends_the_process_at_once_if_it_is_another_wish() {
        for (plan, status) in
            [("0 15 15", 143), ("0 15 2", 130), ("0 1 15", 143), ("600 15 15", 7), ("600 2 15", 7)]
        {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "signals::tests::child_that_gets_signals"])
                .env(CHILD, plan)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert_eq!(ended.code(), Some(status), "{plan}");
        }
    }
}
