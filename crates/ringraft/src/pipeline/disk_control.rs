//! What the host asks of the disk stage beside its ring.
//!
//! The ring keeps the order of writes, and fills while the disk has no room. Whoever removes groups to make some must not stand in line
//! behind the writes that wait for it.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::pipeline::disk_event::DiskEvent;
use crate::thread::sync::{AtomicBool, Condvar, Mutex, Ordering};

/// Requests that wait for no write, and what the stage tells of itself.
#[derive(Default)]
pub(crate) struct DiskControl {
    requests: Mutex<Requests>,
    come: Condvar,
    full: AtomicBool,
}

#[derive(Default)]
struct Requests {
    waiting: VecDeque<DiskEvent>,
    closed: bool,
}

impl DiskControl {
    /// Asks for something. Says whether the stage still runs. It looks here after whatever it takes from its ring: who asks publishes
    /// [`DiskEvent::Look`] there, and need not care whether there is room.
    pub(crate) fn ask(&self, request: DiskEvent) -> bool {
        let mut requests = self.requests.lock();
        if !requests.closed {
            requests.waiting.push_back(request);
            self.come.notify_one();
        }
        !requests.closed
    }

    /// The oldest request.
    pub(crate) fn next(&self) -> Option<DiskEvent> {
        self.requests.lock().waiting.pop_front()
    }

    /// Waits for a request, for so long at most.
    pub(crate) fn wait(&self, limit: Duration) {
        let mut requests = self.requests.lock();
        if requests.waiting.is_empty() {
            self.come.wait_until(&mut requests, Instant::now() + limit);
        }
    }

    /// The stage has ended: whoever waits learns by that, that there is no answer.
    pub(crate) fn close(&self) {
        let mut requests = self.requests.lock();
        requests.closed = true;
        requests.waiting.clear();
    }

    /// Whether a write waits for room on the disk.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Says whether one does.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Release);
    }
}

impl fmt::Debug for DiskControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskControl").field("full", &self.is_full()).finish_non_exhaustive()
    }
}
