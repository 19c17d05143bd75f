//! The threads of a host and the thin loops that they run.

use std::cell::Cell;

thread_local! {
    static ON_HOST_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Whether the current thread belongs to a host: it must not wait for the host.
pub(crate) fn on_host_thread() -> bool {
    ON_HOST_THREAD.get()
}
