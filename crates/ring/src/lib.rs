//! A bounded ring of events: many producers, one consumer, batches, blocking wait.
//!
//! It joins the stages of a pipeline, each a thread that owns its state. Events move in and out by value. A producer pays
//! one read-modify-write for a publish or for a whole batch, and a wake-up only when the consumer sleeps; the consumer
//! pays one barrier a drain, and a wake-up only when a producer waits for room. Nobody spins without bound, and no code
//! of the user (`Drop`, closures, iterators) runs while a slot is claimed and not published.
//!
//! ```
//! use ringraft_ring::{WaitOutcome, ring};
//!
//! let (producer, mut consumer) = ring(8);
//! let stage = std::thread::spawn(move || {
//!     let (mut batch, mut sum) = (Vec::new(), 0);
//!     while consumer.wait(None) == WaitOutcome::Ready {
//!         consumer.drain(4, &mut batch);
//!         sum += batch.drain(..).sum::<u64>();
//!     }
//!     sum
//! });
//! for event in 1..=100 {
//!     producer.publish(event).expect("the stage is alive");
//! }
//! drop(producer); // the last producer closes; the stage drains what is left
//! assert_eq!(stage.join().expect("the stage did not panic"), 5050);
//! ```
//!
//! The shape follows the LMAX Disruptor (claim n, publish, end of batch) and Vyukov's bounded queue (a stamp a slot).
#![deny(missing_docs)]

mod backoff;
mod consumer;
mod error;
mod producer;
mod room;
mod shared;
mod signal;
mod sync;

use std::sync::Arc;

pub use consumer::{Consumer, ConsumerWaker, Drained, WaitOutcome};
pub use error::{Closed, ClosedBatch, TryPublishError};
pub use producer::Producer;
#[cfg(loom)]
#[doc(hidden)]
pub use sync::model;
#[cfg(shuttle)]
#[doc(hidden)]
pub use sync::parker;

/// Interrupts the sleep of a consumer that polls other things too: an eventfd, a waker of a poll loop.
pub trait Wake: Send + Sync {
    /// Called by a producer or a [`ConsumerWaker`], on its thread, after [`Consumer::prepare_sleep`] has announced a
    /// sleep. Must not block or panic. A wake that comes when the consumer is awake already must be harmless, and one that
    /// comes just before it really sleeps must end that sleep.
    fn wake(&self);
}

/// A ring of `capacity` slots, whose consumer sleeps on its thread's parker.
///
/// # Panics
/// If `capacity` is less than 2 or not a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    build(capacity, 0, None)
}

/// A ring of `capacity` slots, whose consumer's [`prepare_sleep`](Consumer::prepare_sleep) is ended through `wake`.
/// ([`Consumer::wait`] still parks the thread.) `wake` is called only when the consumer has said that it sleeps.
///
/// # Panics
/// If `capacity` is less than 2 or not a power of two.
pub fn ring_with_wake<T: Send>(capacity: usize, wake: Arc<dyn Wake>) -> (Producer<T>, Consumer<T>) {
    build(capacity, 0, Some(wake))
}

/// As [`ring`] or [`ring_with_wake`], with positions that begin at `start`: for tests of the wrap-around.
#[doc(hidden)]
pub fn ring_starting_at<T: Send>(
    capacity: usize,
    start: usize,
    wake: Option<Arc<dyn Wake>>,
) -> (Producer<T>, Consumer<T>) {
    build(capacity, start, wake)
}

fn build<T: Send>(capacity: usize, start: usize, wake: Option<Arc<dyn Wake>>) -> (Producer<T>, Consumer<T>) {
    let shared = sync::Arc::new(shared::Shared::new(capacity, start, signal::Signal::new(wake)));
    let head = start.wrapping_mul(shared::STEP);
    (Producer::new(shared.clone(), head), Consumer::new(shared, head))
}
