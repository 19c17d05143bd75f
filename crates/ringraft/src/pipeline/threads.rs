//! Starting threads and waiting for their end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::StartError;
use crate::thread::sync::{Builder, JoinHandle, Mutex, abort};
use crate::thread::{belongs_to_host, panic_text};

/// The threads of one host.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    handles: Mutex<Vec<JoinHandle<()>>>,
    names: Mutex<Vec<String>>,
}

impl Threads {
    /// Starts a thread. Rule X2: a panic that reaches its end aborts the process: the stage's state, which many groups share, cannot be
    /// trusted, and nothing may be acknowledged from it.
    pub(crate) fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread_name = name.clone();
        let guarded = move || {
            belongs_to_host();
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                report(&thread_name, panic_text(&*payload));
                abort(payload);
            }
        };
        let spawned = Builder::new().name(name.clone()).spawn(guarded);
        let handle =
            spawned.map_err(|error| StartError::Thread { name: name.clone(), message: error.to_string() })?;
        self.handles.lock().push(handle);
        self.names.lock().push(name);
        Ok(())
    }

    /// Names of the threads that were started.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.lock().clone()
    }

    /// Waits until every thread has ended. Several callers may wait.
    pub(crate) fn join(&self) {
        let mut handles = self.handles.lock();
        for handle in handles.drain(..) {
            // A panic has aborted the process.
            let _ = handle.join();
        }
    }
}

/// How long a report may take before the process ends without it.
#[cfg(not(shuttle))]
const REPORT_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Says that a thread has panicked, if anybody can hear it. The abort that follows must not depend on that: a host without one of
/// its threads neither serves nor ends. A log or stderr that is gone may make the report panic, and one whose reader sleeps may block it.
fn report(thread: &str, text: &str) {
    #[cfg(not(shuttle))]
    {
        let end = || {
            std::thread::sleep(REPORT_LIMIT);
            std::process::abort();
        };
        if std::thread::Builder::new().name("rr-abort".to_owned()).spawn(end).is_err() {
            // Nobody would end a report that blocks. The panic hook has had its say.
            return;
        }
    }
    quietly(|| tracing::error!("thread {thread} panicked: {text}; aborting"));
    quietly(|| {
        use std::io::Write;
        // `eprintln!` would panic where this fails.
        let _ = writeln!(std::io::stderr(), "ringraft: thread {thread} panicked: {text}; aborting");
    });
}

/// Runs `call`; a panic in it goes no further.
fn quietly(call: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
        // Dropping what somebody else has thrown may panic, too.
        std::mem::forget(payload);
    }
}

#[cfg(all(test, not(shuttle), target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus, Stdio};
    use std::time::{Duration, Instant};

    use tracing::{Event, Metadata, Subscriber, span};

    use super::*;

    /// Set in the child process: what its log does.
    const CHILD: &str = "RINGRAFT_TEST_PANICKING_THREAD";
    const SIGABRT: i32 = 6;
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A log that panics or blocks, as one does that writes to a stderr that is gone or full.
    struct BrokenLog {
        blocks: bool,
    }

    impl Subscriber for BrokenLog {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
        fn event(&self, _: &Event<'_>) {
            if self.blocks {
                loop {
                    std::thread::park();
                }
            }
            panic!("the log cannot be written");
        }
    }

    /// Runs in a process of its own, started by the tests below; in the run of all tests it does nothing.
    #[test]
    fn child_whose_thread_panics() {
        let Ok(log) = std::env::var(CHILD) else { return };
        tracing::subscriber::set_global_default(BrokenLog { blocks: log == "blocks" }).unwrap();
        let threads = Threads::default();
        threads.spawn("rr-test".to_owned(), || panic!("on purpose")).unwrap();
        threads.join();
        // Reached only by a host that lives on without its thread.
        std::process::exit(0);
    }

    fn end_of_child(log: &str, stderr: Stdio) -> ExitStatus {
        let name = "pipeline::threads::tests::child_whose_thread_panics";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, log)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("the process lives on without its thread");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Shows rule X2.
    #[test]
    fn a_panic_aborts_though_neither_log_nor_stderr_can_be_written() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(end_of_child("panics", full.into()).signal(), Some(SIGABRT));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(end_of_child("panics", writer.into()).signal(), Some(SIGABRT));
    }

    #[test]
    fn a_panic_aborts_though_the_log_blocks_for_ever() {
        assert_eq!(end_of_child("blocks", Stdio::null()).signal(), Some(SIGABRT));
    }
}
