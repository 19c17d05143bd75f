//! What every thread of a host stands on: locks, the clock, and whose thread it is. Knows nothing of raft.

#[cfg(shuttle)]
pub(crate) mod breakage;
pub(crate) mod clock;
pub(crate) mod sync;

use std::any::Any;
use std::cell::Cell;

use sync::thread_local;

thread_local! {
    static ON_HOST_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// The current thread belongs to a host from now on.
pub(crate) fn belongs_to_host() {
    ON_HOST_THREAD.with(|on_host| on_host.set(true));
}

/// Whether the current thread belongs to a host: it must not wait for the host.
pub(crate) fn on_host_thread() -> bool {
    ON_HOST_THREAD.with(Cell::get)
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}
