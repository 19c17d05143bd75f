//! The slots and the two positions: claim, publish, take.
//!
//! A *position* counts events since the start, in steps of [`STEP`], and wraps around the word. The lowest bit is thus
//! free: in the tail it marks the ring as closed, in a slot's stamp it marks the event of that position as published.
//! One read-modify-write of the tail therefore claims slots *and* proves that the ring was open, which is what makes a
//! shutdown exact: after the mark is set, the tail says how many events there are to drain.
//!
//! The life of a slot: free (its position is below head + capacity) → claimed (the tail is past it; one producer owns
//! it) → published (its stamp is `position | 1`; the consumer owns it) → free again once the head is past it.

use std::mem::MaybeUninit;

use crossbeam_utils::CachePadded;

use crate::{
    room::Room,
    signal::Signal,
    sync::{self, Arc, AtomicUsize, Ordering, UnsafeCell},
};

/// The distance of two positions that follow each other.
pub(crate) const STEP: usize = 2;
/// The mark of the tail.
const CLOSED: usize = 1;
/// The mark of a stamp.
const PUBLISHED: usize = 1;
/// Events of a batch that become visible together: few enough that their lines are still in the first-level cache.
const RUN: usize = 32;

struct Slot<T> {
    stamp: AtomicUsize,
    event: UnsafeCell<MaybeUninit<T>>,
}

/// What both sides hold.
pub(crate) struct Shared<T> {
    /// The next position to claim, and the closed mark. Producers' line.
    tail: CachePadded<AtomicUsize>,
    /// The position up to which slots are free again. The consumer's line, written once a drain.
    head: CachePadded<AtomicUsize>,
    slots: Box<[Slot<T>]>,
    pub(crate) signal: Arc<Signal>,
    pub(crate) room: Room,
    /// Handles of producers; the last one closes.
    pub(crate) producers: CachePadded<AtomicUsize>,
}

// SAFETY: a slot's event is reached only by its owner of the moment, as the module's text says, and ownership passes
// through release/acquire pairs on stamp and head. Events cross threads by value, hence `T: Send`; no two threads ever
// see the same event, hence no `T: Sync`.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Shared<T> {}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// `count` slots from `position` on are the caller's, to be published at once.
    Claimed {
        position: usize,
        count: usize,
    },
    Full,
    Closed,
}

/// What the tail said.
#[derive(Clone, Copy)]
pub(crate) struct Tail(usize);

impl Tail {
    pub(crate) fn position(self) -> usize {
        self.0 & !CLOSED
    }

    pub(crate) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }
}

impl<T> Shared<T> {
    /// # Panics
    /// If `capacity` is not a power of two, or less than two.
    pub(crate) fn new(capacity: usize, start: usize, signal: Signal) -> Self {
        assert!(
            capacity >= 2 && capacity.is_power_of_two(),
            "the capacity of a ring must be a power of two and at least 2, but it is {capacity}"
        );
        let position = start.wrapping_mul(STEP);
        // A stamp without the mark is never taken for a published one, whatever the position.
        let slots = (0..capacity)
            .map(|_| Slot { stamp: AtomicUsize::new(0), event: UnsafeCell::new(MaybeUninit::uninit()) })
            .collect();
        Self {
            tail: CachePadded::new(AtomicUsize::new(position)),
            head: CachePadded::new(AtomicUsize::new(position)),
            slots,
            signal: Arc::new(signal),
            room: Room::new(),
            producers: CachePadded::new(AtomicUsize::new(1)),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    #[inline(always)]
    fn slot(&self, position: usize) -> &Slot<T> {
        // The mask keeps it in bounds; said this way, the compiler sees it too.
        &self.slots[(position / STEP) & (self.slots.len() - 1)]
    }

    #[inline(always)]
    fn events_between(from: usize, to: usize) -> usize {
        to.wrapping_sub(from) / STEP
    }

    /// Claims up to `want` (at least 1) slots in one step. `known_head` is the claiming handle's memory of the head, which
    /// spares it the consumer's line until the slots known to be free are used up.
    #[inline]
    pub(crate) fn claim(&self, want: usize, known_head: &AtomicUsize) -> Claim {
        let capacity = self.capacity();
        let mut tail = self.tail.load(Ordering::Acquire);
        loop {
            if tail & CLOSED != 0 {
                return Claim::Closed;
            }
            // More than the capacity (after wrapping) when the handle's memory is a lap or more behind, or when `tail` is
            // already behind it: in both cases the real head decides.
            let mut used = Self::events_between(known_head.load(Ordering::Acquire), tail);
            if used > capacity || capacity - used < want {
                // Acquire: the consumer has moved the events out of the slots that this head sets free.
                let head = self.head.load(Ordering::Acquire);
                used = Self::events_between(head, tail);
                if used > capacity {
                    // The head has passed the tail that we read: others were here meanwhile.
                    tail = self.tail.load(Ordering::Acquire);
                    continue;
                }
                known_head.store(head, Ordering::Release);
                if used == capacity {
                    return Claim::Full;
                }
            }
            let count = want.min(capacity - used);
            // SeqCst for the consumer's sleep; see `Signal::rouse`.
            match self.tail.compare_exchange_weak(
                tail,
                tail.wrapping_add(count * STEP),
                Ordering::SeqCst,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    sync::total_order_for_loom();
                    return Claim::Claimed { position: tail, count };
                }
                Err(now) => tail = now,
            }
        }
    }

    /// Moves an event into a claimed slot and publishes it.
    ///
    /// # Safety
    /// `position` was claimed by the caller and is published once.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn publish_at(&self, position: usize, event: T) {
        let slot = self.slot(position);
        // SAFETY: the claim made the caller the slot's owner, and the slot holds no event: the head that allowed the claim
        // was stored after the consumer had moved the last one out.
        slot.event.with_mut(|cell| unsafe { cell.write(MaybeUninit::new(event)) });
        slot.stamp.store(position | PUBLISHED, Ordering::Release);
    }

    /// Moves `count` events into claimed slots and publishes them.
    ///
    /// Events first, then the stamps from last to first: the consumer, which looks at the front, finds the run when it is
    /// whole, instead of taking the producer's cache lines away event by event. Twice the speed of one after the other.
    ///
    /// # Safety
    /// The `count` positions from `position` on were claimed by the caller and are published once; `events` points to as
    /// many events, which are not used after.
    #[inline]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn publish_run_at(&self, position: usize, events: *const T, count: usize) {
        let mut done = 0;
        while done < count {
            let run = done..done + (count - done).min(RUN);
            done = run.end;
            for index in run.clone() {
                let slot = self.slot(position.wrapping_add(index * STEP));
                // SAFETY: the slot is the caller's and holds no event, as in `publish_at`; `events` has `count` of them.
                slot.event.with_mut(|cell| unsafe {
                    cell.cast::<T>().copy_from_nonoverlapping(events.add(index), 1)
                });
            }
            for index in run.rev() {
                let at = position.wrapping_add(index * STEP);
                self.slot(at).stamp.store(at | PUBLISHED, Ordering::Release);
            }
        }
    }

    /// Consumer: whether the event at `position` can be taken.
    #[inline(always)]
    pub(crate) fn is_published(&self, position: usize) -> bool {
        self.slot(position).stamp.load(Ordering::Acquire) == position | PUBLISHED
    }

    /// Consumer: moves an event out. The slot stays taken until [`free_until`](Self::free_until).
    ///
    /// # Safety
    /// Called by the one consumer, once for each position, in order, after [`is_published`](Self::is_published).
    #[inline(always)]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn take(&self, position: usize) -> T {
        // SAFETY: a published slot holds an event and is the consumer's; taken once, it is not read again before the next
        // publish, which waits for the head.
        self.slot(position).event.with(|cell| unsafe { cell.read().assume_init() })
    }

    /// Consumer: every slot below `position` is free; `count` of them are newly so. Wakes producers that wait.
    #[inline]
    pub(crate) fn free_until(&self, position: usize, count: usize) {
        self.head.store(position, Ordering::Release);
        self.room.announce(count);
    }

    /// The tail, in the total order that sleeping and waking rely on.
    pub(crate) fn tail(&self) -> Tail {
        Tail(self.tail.load(Ordering::SeqCst))
    }

    /// Events claimed and not yet freed. Exact only while nobody else moves.
    pub(crate) fn len(&self) -> usize {
        // Head first: the tail read after it is not behind it.
        let head = self.head.load(Ordering::Acquire);
        Self::events_between(head, self.tail().position()).min(self.capacity())
    }

    /// Parks a producer until there is a free slot, the ring is closed, or `deadline` is over.
    pub(crate) fn wait_for_room(&self, deadline: Option<sync::Instant>) {
        self.room.wait_until(deadline, || {
            let tail = self.tail();
            let head = self.head.load(Ordering::Acquire);
            // A head past the tail just read wraps to another value than the capacity: look again, do not park.
            tail.is_closed() || Self::events_between(head, tail.position()) != self.capacity()
        });
    }

    /// No claim succeeds after this. Wakes whoever sleeps.
    pub(crate) fn close(&self) {
        if Tail(self.tail.fetch_or(CLOSED, Ordering::SeqCst)).is_closed() {
            return;
        }
        sync::total_order_for_loom();
        self.signal.mark_closed();
        self.signal.rouse();
        self.room.announce(usize::MAX);
    }
}
