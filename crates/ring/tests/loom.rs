//! Every interleaving (with at most three preemptions) of the ring's small scenarios.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ringraft-ring --release --test loom`
//!
//! loom fails a model on a data race of a slot, on a leak, on a failed assertion, and, as a deadlock, on a lost wake-up.
#![cfg(loom)]

use std::sync::Arc as StdArc;

use loom::{
    model::Builder,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use ringraft_ring::{Closed, Consumer, TryPublishError, WaitOutcome, Wake, ring, ring_starting_at};

fn model(scenario: impl Fn() + Send + Sync + 'static) {
    ringraft_ring::model::set_total_order(true);
    check(scenario);
}

/// For scenarios in which the consumer never sleeps: orderings are exactly those of the real code.
fn model_awake(scenario: impl Fn() + Send + Sync + 'static) {
    ringraft_ring::model::set_total_order(false);
    check(scenario);
}

fn check(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(scenario);
}

/// Drains with `wait` until the ring is closed and empty.
fn drain_to_the_end<T>(consumer: &mut Consumer<T>, max: usize) -> Vec<T> {
    let mut out = Vec::new();
    while consumer.wait(None) == WaitOutcome::Ready {
        consumer.drain(max, &mut out);
    }
    out
}

/// A bell for `ring_with_wake`: what an eventfd is to a poll loop.
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn new() -> StdArc<Self> {
        StdArc::new(Self { rung: Mutex::new(false), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().expect("no panic under the lock")
    }

    fn sleep(&self) {
        let mut rung = self.lock();
        while !*rung {
            rung = self.changed.wait(rung).expect("no panic under the lock");
        }
        *rung = false;
    }
}

impl Wake for Bell {
    fn wake(&self) {
        *self.lock() = true;
        self.changed.notify_one();
    }
}

#[test]
fn claim_publish_consume_two_producers() {
    model_awake(|| {
        let (first, mut consumer) = ring(2);
        let second = first.clone();
        let one = thread::spawn(move || first.try_publish(Box::new(1)).is_ok());
        let two = thread::spawn(move || second.try_publish(Box::new(2)).is_ok());
        let mut out = Vec::new();
        consumer.drain(1, &mut out);
        assert!(one.join().unwrap() && two.join().unwrap(), "two slots, two events");
        let end = consumer.drain(2, &mut out);
        assert!(end.end_of_batch && end.closed);
        out.sort();
        assert_eq!(out, [Box::new(1), Box::new(2)]);
    });
}

#[test]
fn slots_are_reused_only_after_the_event_is_out() {
    model_awake(|| {
        let (producer, mut consumer) = ring(2);
        let producer = thread::spawn(move || {
            let mut went = 0;
            for event in 0..3 {
                went += usize::from(producer.try_publish(Box::new(event)).is_ok());
            }
            went
        });
        let mut out = Vec::new();
        consumer.drain(1, &mut out);
        consumer.drain(1, &mut out);
        let went = producer.join().unwrap();
        consumer.drain(2, &mut out);
        assert!(went >= 2);
        assert_eq!(out.iter().map(|event| **event).collect::<Vec<_>>(), (0..went).collect::<Vec<_>>());
    });
}

#[test]
fn batch_publish_against_a_single_one() {
    model_awake(|| {
        let (first, mut consumer) = ring(2);
        let second = first.clone();
        let batch = thread::spawn(move || {
            let mut events = vec![Box::new(1), Box::new(2)];
            let went = first.try_publish_batch(&mut events).unwrap();
            assert_eq!(events.len(), 2 - went);
            went
        });
        let single = thread::spawn(move || second.try_publish(Box::new(9)).is_ok());
        let mut out = Vec::new();
        consumer.drain(2, &mut out);
        let (went, single) = (batch.join().unwrap(), single.join().unwrap());
        consumer.drain(2, &mut out);
        assert!(went >= 1 && went + usize::from(single) >= 2, "no slot stays free while somebody wants it");
        let out: Vec<_> = out.into_iter().map(|event| *event).collect();
        let of_batch: Vec<_> = out.iter().copied().filter(|event| *event != 9).collect();
        assert_eq!(of_batch, (1..=went).collect::<Vec<_>>());
        assert_eq!(out.len(), went + usize::from(single));
        if let Some(at) = out.iter().position(|event| *event == 9) {
            assert!(at == 0 || at == went, "one claim: nothing comes between the events of a batch: {out:?}");
        }
    });
}

#[test]
fn batches_reuse_slots() {
    model_awake(|| {
        let (producer, mut consumer) = ring(2);
        let producer = thread::spawn(move || {
            let mut events: Vec<_> = (0..4).map(Box::new).collect();
            let went = producer.try_publish_batch(&mut events).unwrap();
            assert_eq!(went, 2);
            let again = producer.try_publish_batch(&mut events).unwrap();
            assert_eq!(events.len(), 2 - again);
            went + again
        });
        let mut out = Vec::new();
        consumer.drain(2, &mut out);
        consumer.drain(1, &mut out);
        let went = producer.join().unwrap();
        consumer.drain(4, &mut out);
        assert_eq!(out.iter().map(|event| **event).collect::<Vec<_>>(), (0..went).collect::<Vec<_>>());
    });
}

#[test]
fn positions_wrap_around() {
    for before in 1..=2 {
        model_awake(move || {
            let (first, mut consumer) = ring_starting_at(2, usize::MAX / 2 + 1 - before, None);
            let second = first.clone();
            let batch = thread::spawn(move || first.try_publish_batch(&mut vec![1, 2]).unwrap());
            let single = thread::spawn(move || second.try_publish(9).is_ok());
            let mut out = Vec::new();
            consumer.drain(2, &mut out);
            let went = batch.join().unwrap() + usize::from(single.join().unwrap());
            let end = consumer.drain(2, &mut out);
            assert!(went >= 2 && end.closed);
            assert_eq!(out.len(), went);
        });
    }
}

#[test]
fn wrap_around_with_a_producer_that_waits_for_room() {
    model(|| {
        let (producer, mut consumer) = ring_starting_at(2, usize::MAX / 2, None);
        let producer = thread::spawn(move || {
            for event in 0..3 {
                producer.publish(event).unwrap();
            }
        });
        assert_eq!(drain_to_the_end(&mut consumer, 2), [0, 1, 2]);
        producer.join().unwrap();
    });
}

#[test]
fn park_versus_publish() {
    model(|| {
        let (producer, mut consumer) = ring(2);
        let producer = thread::spawn(move || {
            producer.try_publish(1).unwrap();
            // Kept open: only the publish can wake the consumer.
            producer
        });
        let mut out = Vec::new();
        assert_eq!(consumer.wait(None), WaitOutcome::Ready);
        consumer.drain(1, &mut out);
        assert_eq!(out, [1]);
        drop(producer.join().unwrap());
    });
}

#[test]
fn park_versus_publish_of_two_producers() {
    model(|| {
        let (first, mut consumer) = ring(2);
        let second = first.clone();
        let one = thread::spawn(move || {
            first.try_publish(1).unwrap();
            first
        });
        let two = thread::spawn(move || {
            second.try_publish(2).unwrap();
            second
        });
        let mut out = Vec::new();
        while out.len() < 2 {
            assert_eq!(consumer.wait(None), WaitOutcome::Ready);
            assert!(consumer.drain(2, &mut out).count > 0, "an event is what it was woken for");
        }
        drop((one.join().unwrap(), two.join().unwrap()));
    });
}

#[test]
fn park_versus_close() {
    model(|| {
        let (producer, mut consumer) = ring::<u8>(2);
        let closer = thread::spawn(move || {
            producer.close();
            producer
        });
        assert_eq!(consumer.wait(None), WaitOutcome::Closed);
        assert!(consumer.drain(1, &mut Vec::new()).closed, "drain agrees with wait");
        drop(closer.join().unwrap());
    });
}

#[test]
fn outside_sleep_versus_publish() {
    model(|| {
        let bell = Bell::new();
        let (producer, mut consumer) = ring_starting_at(2, 0, Some(bell.clone()));
        let producer = thread::spawn(move || {
            producer.try_publish(1).unwrap();
            producer.try_publish(2).unwrap();
            producer
        });
        let mut out = Vec::new();
        while out.len() < 2 {
            let drained = consumer.drain(1, &mut out);
            if drained.count == 0 && consumer.prepare_sleep() {
                bell.sleep();
                consumer.end_sleep();
            }
        }
        assert_eq!(out, [1, 2]);
        drop(producer.join().unwrap());
    });
}

#[test]
fn full_ring_versus_drain() {
    model_awake(|| {
        let (producer, mut consumer) = ring(2);
        producer.try_publish(0).unwrap();
        producer.try_publish(1).unwrap();
        let blocked = thread::spawn(move || {
            producer.publish(2).unwrap();
            producer
        });
        let mut out = Vec::new();
        // One slot is freed, and the producer needs no other reason to wake.
        consumer.drain(1, &mut out);
        let producer = blocked.join().unwrap();
        consumer.drain(2, &mut out);
        assert_eq!(out, [0, 1, 2]);
        drop(producer);
    });
}

/// Two producers wait for room, and the consumer frees two slots, `at_once` or one after the other.
fn two_producers_wait(at_once: usize) {
    model_awake(move || {
        let (producer, mut consumer) = ring(2);
        producer.try_publish(0).unwrap();
        producer.try_publish(1).unwrap();
        let blocked: Vec<_> = (2..4)
            .map(|event| {
                let producer = producer.clone();
                thread::spawn(move || producer.publish(event).unwrap())
            })
            .collect();
        let mut out = Vec::new();
        while out.len() < 2 {
            consumer.drain(at_once, &mut out);
        }
        for thread in blocked {
            thread.join().unwrap();
        }
        consumer.drain(2, &mut out);
        out.sort_unstable();
        assert_eq!(out, [0, 1, 2, 3]);
    });
}

#[test]
fn two_producers_wait_and_each_slot_wakes_one() {
    two_producers_wait(1);
}

#[test]
fn two_producers_wait_and_one_drain_wakes_both() {
    two_producers_wait(2);
}

#[test]
fn shutdown_versus_publish() {
    model_awake(|| {
        let (producer, mut consumer) = ring(2);
        // The models' own proof that each event ends in one place: its count is back at 1, and loom checks for leaks.
        let alive = Arc::new(());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (producer, alive) = (producer.clone(), alive.clone());
                thread::spawn(move || match producer.try_publish(alive) {
                    Ok(()) => 1,
                    Err(TryPublishError::Closed(_back)) => 0,
                    Err(TryPublishError::Full(_)) => panic!("two slots, two events"),
                })
            })
            .collect();
        let mut out = Vec::new();
        consumer.drain(1, &mut out);
        out.extend(consumer.into_undrained());
        let published: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(out.len(), published);
        drop(out);
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(producer.try_publish(alive).is_err_and(|error| error.is_closed()));
    });
}

#[test]
fn shutdown_versus_batch() {
    model_awake(|| {
        let (producer, consumer) = ring(2);
        let batch = thread::spawn(move || {
            let mut events = vec![Box::new(1), Box::new(2), Box::new(3)];
            let went = producer.try_publish_batch(&mut events).unwrap_or(0);
            (went, events)
        });
        let undrained = consumer.into_undrained();
        let (went, kept) = batch.join().unwrap();
        assert!(went == 0 || went == 2, "one claim: all that fit or none");
        assert_eq!(undrained.len(), went);
        assert_eq!(
            undrained.into_iter().chain(kept).collect::<Vec<_>>(),
            [Box::new(1), Box::new(2), Box::new(3)]
        );
    });
}

#[test]
fn shutdown_versus_a_producer_that_waits_for_room() {
    model_awake(|| {
        let (producer, consumer) = ring(2);
        producer.try_publish(Box::new(0)).unwrap();
        producer.try_publish(Box::new(1)).unwrap();
        let blocked = thread::spawn(move || producer.publish(Box::new(2)));
        drop(consumer);
        assert_eq!(blocked.join().unwrap(), Err(Closed(Box::new(2))));
    });
}

#[test]
fn close_versus_a_producer_that_waits_for_room() {
    model_awake(|| {
        let (producer, mut consumer) = ring(2);
        producer.try_publish(0).unwrap();
        producer.try_publish(1).unwrap();
        let blocked = thread::spawn(move || producer.publish(2));
        consumer.close();
        assert_eq!(blocked.join().unwrap(), Err(Closed(2)), "no drain, only the close can wake it");
        assert_eq!(consumer.into_undrained(), [0, 1]);
    });
}

#[test]
fn last_producer_versus_the_last_but_one() {
    model(|| {
        let (first, mut consumer) = ring(2);
        let second = first.clone();
        let one = thread::spawn(move || first.try_publish(1).unwrap());
        let two = thread::spawn(move || second.try_publish(2).unwrap());
        let mut out = drain_to_the_end(&mut consumer, 1);
        out.sort_unstable();
        assert_eq!(out, [1, 2], "closed means that the events of both are there");
        one.join().unwrap();
        two.join().unwrap();
    });
}

#[test]
fn notify_versus_park() {
    model(|| {
        let (_producer, mut consumer) = ring::<u8>(2);
        let (waker, progress) = (consumer.waker(), Arc::new(AtomicUsize::new(0)));
        let other = thread::spawn({
            let progress = progress.clone();
            move || {
                for step in 1..=2 {
                    progress.store(step, Ordering::Relaxed);
                    waker.wake();
                }
            }
        });
        while progress.load(Ordering::Relaxed) < 2 {
            assert_eq!(consumer.wait(None), WaitOutcome::Ready);
        }
        other.join().unwrap();
    });
}

#[test]
fn notify_versus_outside_sleep() {
    model(|| {
        let bell = Bell::new();
        let (_producer, mut consumer) = ring_starting_at::<u8>(2, 0, Some(bell.clone()));
        let (waker, progress) = (consumer.waker(), Arc::new(AtomicUsize::new(0)));
        let other = thread::spawn({
            let progress = progress.clone();
            move || {
                progress.store(1, Ordering::Relaxed);
                waker.wake();
            }
        });
        while progress.load(Ordering::Relaxed) == 0 {
            if consumer.prepare_sleep() {
                bell.sleep();
                consumer.end_sleep();
            }
        }
        other.join().unwrap();
    });
}

#[test]
fn notify_and_publish_versus_park() {
    model(|| {
        let (producer, mut consumer) = ring(2);
        let (waker, progress) = (consumer.waker(), Arc::new(AtomicUsize::new(0)));
        let notifier = thread::spawn({
            let progress = progress.clone();
            move || {
                progress.store(1, Ordering::Relaxed);
                waker.wake();
            }
        });
        let publisher = thread::spawn(move || {
            producer.try_publish(1).unwrap();
            producer
        });
        let mut out = Vec::new();
        while out.is_empty() || progress.load(Ordering::Relaxed) == 0 {
            assert_eq!(consumer.wait(None), WaitOutcome::Ready);
            consumer.drain(1, &mut out);
        }
        notifier.join().unwrap();
        drop(publisher.join().unwrap());
    });
}
