//! How many bytes of entries may wait before a lane, in requests of leaders.
//!
//! The slots of the ring bound how many requests wait, whatever is in them: 16,384 of 512 KiB are 8 GiB, and many leaders send at
//! once what each of their windows allows. So they are counted in bytes as well, from when the network hands them over until the lane takes
//! them; then the bounds of their groups count them. Whoever finds no room keeps its request on its connection, which is not read until there is some.

use crate::thread::sync::{AtomicUsize, Ordering};

/// Bytes of entries before one lane: `max`, which one request crosses, so that a large one gets in as easily as a small one.
#[derive(Debug)]
pub struct EntryRoom {
    max: usize,
    taken: AtomicUsize,
}

impl EntryRoom {
    /// Room for so many bytes.
    pub fn new(max: usize) -> EntryRoom {
        EntryRoom { max, taken: AtomicUsize::new(0) }
    }

    /// Whether another request may wait. Rule R1.
    pub(crate) fn has_room(&self) -> bool {
        self.taken.load(Ordering::Relaxed) < self.max
    }

    /// A request waits.
    pub(crate) fn take(&self, bytes: usize) {
        if bytes > 0 {
            self.taken.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Requests with so many bytes wait no more.
    pub(crate) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
