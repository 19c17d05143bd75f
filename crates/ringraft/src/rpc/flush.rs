//! Answers that leave together: on a thread of the host they are flushed at the end of its batch, elsewhere at once.

use std::cell::RefCell;
use std::sync::Arc;

use ringraft_net::{ReplyHandle, Transport};

use crate::thread::sync::thread_local;

/// Connections with answers that wait for the end of the batch.
type Gathered = Vec<(Arc<dyn Transport>, ReplyHandle)>;

thread_local! {
    static LATER: RefCell<Option<Gathered>> = const { RefCell::new(None) };
}

/// From now on this thread flushes with [`flush_now`].
pub(crate) fn gather_flushes() {
    LATER.with(|later| {
        later.borrow_mut().get_or_insert_default();
    });
}

/// Flushes the connection of an answer that was queued, now or at the end of this thread's batch.
pub(crate) fn flush_later(transport: &Arc<dyn Transport>, handle: ReplyHandle) {
    let gathered = LATER.with(|later| {
        let mut later = later.borrow_mut();
        let Some(later) = later.as_mut() else { return false };
        let same = |(_, other): &(_, ReplyHandle)| {
            (other.connection, other.generation) == (handle.connection, handle.generation)
        };
        if !later.iter().any(same) {
            later.push((Arc::clone(transport), handle));
        }
        true
    });
    if !gathered {
        transport.flush_reply(handle);
    }
}

/// Ends a batch: flushes what was gathered.
pub(crate) fn flush_now() {
    let gathered = LATER.with(|later| later.borrow_mut().as_mut().map(std::mem::take));
    for (transport, handle) in gathered.unwrap_or_default() {
        transport.flush_reply(handle);
    }
}
