//! Starting threads and waiting for their end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::StartError;
use crate::handler::panic_text;
use crate::pipeline::ON_HOST_THREAD;
use crate::sync::{Builder, JoinHandle, Mutex, abort};

/// The threads of one host.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    handles: Mutex<Vec<JoinHandle<()>>>,
    names: Mutex<Vec<String>>,
}

impl Threads {
    /// Starts a thread. A panic that reaches its end aborts the process: the stage's state, which many groups share, cannot be
    /// trusted, and nothing may be acknowledged from it.
    pub(crate) fn spawn(&self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread_name = name.clone();
        let guarded = move || {
            ON_HOST_THREAD.with(|on_host| on_host.set(true));
            if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
                tracing::error!("thread {thread_name} panicked: {}; aborting", panic_text(&*payload));
                eprintln!("ringraft: thread {thread_name} panicked: {}; aborting", panic_text(&*payload));
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
