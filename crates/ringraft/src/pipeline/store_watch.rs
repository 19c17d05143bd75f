//! Who wants to hear of the end of the log store.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ringraft_core::Status;

use crate::thread::panic_text;
use crate::thread::sync::Mutex;

type Listener = Box<dyn FnOnce(&Status) + Send>;

/// Remembers why the log store of a host has failed, and tells those who asked for it.
#[derive(Default)]
pub(crate) struct StoreWatch(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    error: Option<Status>,
    listeners: Vec<Listener>,
}

impl StoreWatch {
    /// Why the store has failed, if it has.
    pub(crate) fn error(&self) -> Option<Status> {
        self.0.lock().error.clone()
    }

    /// Calls `listener` once, now if the store has failed already.
    pub(crate) fn add(&self, listener: Listener) {
        let mut watched = self.0.lock();
        match watched.error.clone() {
            None => watched.listeners.push(listener),
            Some(status) => {
                drop(watched);
                call(listener, &status);
            }
        }
    }

    /// The store has failed. Only the first reason is told.
    pub(crate) fn tell(&self, status: Status) {
        let mut watched = self.0.lock();
        if watched.error.is_some() {
            return;
        }
        watched.error = Some(status.clone());
        let listeners = std::mem::take(&mut watched.listeners);
        // They may ask for the error, or add another.
        drop(watched);
        listeners.into_iter().for_each(|listener| call(listener, &status));
    }
}

/// A panic in what users wrote must not take the disk stage with it.
fn call(listener: Listener, status: &Status) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| listener(status))) {
        tracing::error!("a listener of the log store's end panicked: {}", panic_text(&*payload));
    }
}

impl fmt::Debug for StoreWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreWatch").field("error", &self.error()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ringraft_core::RaftError;

    use super::*;

    #[test]
    fn each_listener_is_called_once_whenever_it_comes() {
        let (watch, calls) = (StoreWatch::default(), Arc::new(AtomicUsize::new(0)));
        let counter = || {
            let calls = Arc::clone(&calls);
            Box::new(move |status: &Status| {
                assert_eq!(status.message, "first");
                calls.fetch_add(1, Ordering::Relaxed);
            })
        };
        watch.add(counter());
        watch.add(Box::new(|_| panic!("on purpose")));
        assert_eq!((watch.error(), calls.load(Ordering::Relaxed)), (None, 0));
        watch.tell(Status::new(RaftError::Io, "first"));
        watch.tell(Status::new(RaftError::Io, "second"));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        watch.add(counter());
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!(watch.error().map(|status| status.message), Some("first".to_owned()));
    }
}
