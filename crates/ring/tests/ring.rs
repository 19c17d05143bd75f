//! One thread: what each method promises, at every size, on every position of the ring, and that no event is lost or
//! dropped twice.
#![cfg(not(any(loom, shuttle)))]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ringraft_ring::{
    ClosedBatch, Drained, TryPublishError, WaitOutcome, Wake, ring, ring_starting_at, ring_with_wake,
};

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct CountingWake(AtomicUsize);

impl Wake for CountingWake {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn drained(count: usize, end_of_batch: bool, closed: bool) -> Drained {
    Drained { count, end_of_batch, closed }
}

#[test]
fn capacity_must_be_a_power_of_two_and_at_least_two() {
    for capacity in [0, 1, 3, 6, 1000] {
        let panic = catch_unwind(|| ring::<u8>(capacity)).expect_err("a bad capacity panics");
        let text = panic.downcast_ref::<String>().expect("the panic says why");
        assert!(text.contains("power of two") && text.contains(&capacity.to_string()), "{text}");
    }
    for capacity in [2, 4, 1024] {
        assert_eq!(ring::<u8>(capacity).0.capacity(), capacity);
    }
}

#[test]
fn a_full_ring_hands_the_event_back_and_takes_it_after_a_drain() {
    let (producer, mut consumer) = ring(2);
    let mut out = Vec::new();
    producer.try_publish("a").expect("free");
    producer.try_publish("b").expect("free");
    assert_eq!(producer.try_publish("c"), Err(TryPublishError::Full("c")));
    assert_eq!((producer.len(), producer.remaining_capacity()), (2, 0));
    assert_eq!(consumer.drain(1, &mut out), drained(1, false, false));
    assert_eq!((producer.len(), producer.remaining_capacity()), (1, 1));
    producer.try_publish("c").expect("one slot is free again");
    assert_eq!(consumer.drain(8, &mut out), drained(2, true, false));
    assert_eq!(out, ["a", "b", "c"]);
    assert!(producer.is_empty());
}

#[test]
fn drain_knows_the_end_of_the_batch_and_the_end_of_the_ring() {
    let (producer, mut consumer) = ring(4);
    let mut out = Vec::new();
    assert_eq!(consumer.drain(4, &mut out), drained(0, true, false));
    for event in 0..4 {
        producer.try_publish(event).expect("free");
    }
    assert_eq!(
        consumer.drain(0, &mut out),
        drained(0, false, false),
        "room for none does not mean that there is none"
    );
    assert_eq!(consumer.drain(2, &mut out), drained(2, false, false));
    producer.close();
    assert_eq!(producer.try_publish(9), Err(TryPublishError::Closed(9)));
    assert_eq!(consumer.wait(None), WaitOutcome::Ready, "a closed ring is drained first");
    assert_eq!(consumer.drain(1, &mut out), drained(1, false, false));
    assert_eq!(consumer.drain(1, &mut out), drained(1, true, true));
    assert_eq!(consumer.drain(1, &mut out), drained(0, true, true));
    assert_eq!(consumer.wait(None), WaitOutcome::Closed);
    assert_eq!(out, [0, 1, 2, 3]);
}

#[test]
fn events_that_drain_finds_go_behind_those_in_the_vector() {
    let (producer, mut consumer) = ring(4);
    producer.try_publish(2).expect("free");
    let mut out = vec![1];
    consumer.drain(4, &mut out);
    assert_eq!(out, [1, 2]);
}

#[test]
fn batches_of_every_size_at_every_offset_keep_their_order() {
    const CAPACITY: usize = 8;
    for start in [0, usize::MAX / 2 - 5, usize::MAX - 5] {
        for size in 0..=CAPACITY + 3 {
            for filled in 0..=CAPACITY {
                let (producer, mut consumer) = ring_starting_at(CAPACITY, start, None);
                let (mut out, mut expected) = (Vec::new(), Vec::new());
                for round in 0..CAPACITY {
                    for event in 0..filled {
                        producer.try_publish((round, event, "single")).expect("the ring was drained");
                        expected.push((round, event, "single"));
                    }
                    let mut batch: Vec<_> = (0..size).map(|event| (round, event, "batch")).collect();
                    let went = producer.try_publish_batch(&mut batch).expect("open");
                    assert_eq!(went, size.min(CAPACITY - filled));
                    assert_eq!(batch, (went..size).map(|event| (round, event, "batch")).collect::<Vec<_>>());
                    expected.extend((0..went).map(|event| (round, event, "batch")));
                    assert_eq!(producer.len(), filled + went);
                    assert_eq!(consumer.drain(usize::MAX, &mut out), drained(filled + went, true, false));
                    // Moves the next round by one slot.
                    producer.try_publish((round, 0, "step")).expect("empty");
                    expected.push((round, 0, "step"));
                    consumer.drain(1, &mut out);
                }
                assert_eq!(out, expected, "batch of {size} behind {filled}");
            }
        }
    }
}

#[test]
fn a_batch_on_a_closed_ring_stays_with_the_caller() {
    let (producer, mut consumer) = ring(4);
    let mut batch = vec![String::from("a"), String::from("b")];
    consumer.close();
    assert_eq!(producer.try_publish_batch(&mut batch), Err(ClosedBatch));
    assert_eq!(batch, ["a", "b"]);
    assert_eq!(producer.try_publish_batch(&mut Vec::new()), Err(ClosedBatch));
    assert!(producer.is_closed());
}

#[test]
fn the_last_producer_closes() {
    let (first, mut consumer) = ring(2);
    let second = first.clone();
    first.try_publish(1).expect("free");
    drop(first);
    second.try_publish(2).expect("one producer is left");
    drop(second);
    let mut out = Vec::new();
    assert_eq!(consumer.drain(9, &mut out), drained(2, true, true));
    assert_eq!(out, [1, 2]);
    assert!(!consumer.prepare_sleep(), "nobody would wake it");
}

#[test]
fn dropping_the_consumer_drops_what_is_undrained_once_and_closes() {
    for drain_first in 0..=3 {
        let drops = Arc::new(AtomicUsize::new(0));
        let (producer, mut consumer) = ring(4);
        for _ in 0..4 {
            assert!(producer.try_publish(Counted(drops.clone())).is_ok());
        }
        let mut out = Vec::new();
        consumer.drain(drain_first, &mut out);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(consumer);
        assert_eq!(
            drops.load(Ordering::Relaxed),
            4 - drain_first,
            "dropped with the consumer, not with the last handle"
        );
        assert!(producer.publish(Counted(drops.clone())).is_err_and(|back| Arc::strong_count(&back.0.0) > 0));
        drop((producer, out));
        assert_eq!(drops.load(Ordering::Relaxed), 5);
        assert_eq!(Arc::strong_count(&drops), 1);
    }
}

/// Shows rule R7: the only code that an event has is its drop, and no publish runs it, whether there is room for all or not.
#[test]
fn publishing_runs_no_code_of_an_event() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (producer, consumer) = ring(2);
    assert!(producer.try_publish(Counted(drops.clone())).is_ok());
    let mut batch: Vec<_> = (0..3).map(|_| Counted(drops.clone())).collect();
    assert_eq!(producer.try_publish_batch(&mut batch), Ok(1));
    let back = producer.try_publish(batch.pop().expect("two are left"));
    assert!(matches!(back, Err(TryPublishError::Full(_))));
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop((back, batch, producer, consumer));
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

#[test]
fn a_panic_in_an_events_drop_loses_no_other() {
    struct Bomb(Arc<AtomicUsize>, bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(!self.1, "the bomb went off");
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let (producer, consumer) = ring(4);
    for bad in [false, true, false] {
        assert!(producer.try_publish(Bomb(drops.clone(), bad)).is_ok());
    }
    assert!(catch_unwind(AssertUnwindSafe(|| drop(consumer))).is_err());
    assert_eq!(drops.load(Ordering::Relaxed), 3);
    assert!(producer.is_closed());
}

#[test]
fn into_undrained_hands_back_what_is_left_in_order() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (producer, mut consumer) = ring_starting_at(4, usize::MAX - 1, None);
    let mut out = Vec::new();
    for id in 0..2 {
        assert!(producer.try_publish((id, Counted(drops.clone()))).is_ok());
    }
    consumer.drain(2, &mut out);
    for id in 2..6 {
        assert!(producer.try_publish((id, Counted(drops.clone()))).is_ok());
    }
    consumer.drain(1, &mut out);
    let rest = consumer.into_undrained();
    assert_eq!(rest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(drops.load(Ordering::Relaxed), 0);
    drop((rest, out, producer));
    assert_eq!(drops.load(Ordering::Relaxed), 6);
}

#[test]
fn zero_sized_and_large_events() {
    let (producer, mut consumer) = ring(2);
    producer.try_publish(()).expect("free");
    producer.try_publish_batch(&mut vec![(), ()]).expect("open");
    let mut out = Vec::new();
    assert_eq!(consumer.drain(4, &mut out), drained(2, true, false));

    let (producer, mut consumer) = ring(2);
    producer.try_publish([7_u64; 512]).expect("free");
    let mut out = Vec::new();
    consumer.drain(4, &mut out);
    assert_eq!(out, [[7; 512]]);
}

#[test]
fn wake_is_called_only_for_an_announced_sleep_and_once() {
    let wake = Arc::new(CountingWake::default());
    let (producer, mut consumer) = ring_with_wake(8, wake.clone());
    let calls = || wake.0.load(Ordering::SeqCst);
    producer.try_publish(0).expect("free");
    assert_eq!(calls(), 0, "awake");
    assert!(!consumer.prepare_sleep(), "there is an event");
    producer.try_publish(1).expect("free");
    assert_eq!(calls(), 0, "the announcement was taken back");
    let mut out = Vec::new();
    consumer.drain(8, &mut out);
    assert!(consumer.prepare_sleep());
    producer.try_publish(2).expect("free");
    producer.try_publish(3).expect("free");
    assert_eq!(calls(), 1, "one wake-up a sleep");
    consumer.end_sleep();
    consumer.drain(8, &mut out);
    assert!(consumer.prepare_sleep());
    consumer.end_sleep();
    producer.try_publish_batch(&mut vec![4, 5]).expect("open");
    assert_eq!(calls(), 1, "the sleep was over");
    consumer.drain(8, &mut out);
    assert!(consumer.prepare_sleep());
    producer.try_publish_batch(&mut vec![6, 7]).expect("open");
    assert_eq!(calls(), 2);
    consumer.end_sleep();
    consumer.drain(8, &mut out);
    assert!(consumer.prepare_sleep());
    drop(producer);
    assert_eq!(calls(), 3, "closing wakes");
    consumer.end_sleep();
    assert!(!consumer.prepare_sleep());
    assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_wake_without_an_event_is_remembered_until_it_is_taken() {
    let wake = Arc::new(CountingWake::default());
    let (producer, mut consumer) = ring_with_wake::<u8>(2, wake.clone());
    let waker = consumer.waker();
    let calls = || wake.0.load(Ordering::SeqCst);

    waker.wake();
    waker.wake();
    assert_eq!(calls(), 0, "awake");
    assert!(!consumer.prepare_sleep(), "came before the sleep");
    assert!(consumer.prepare_sleep(), "two that came together count as one");
    waker.clone().wake();
    assert_eq!(calls(), 1);
    consumer.end_sleep();
    assert!(consumer.prepare_sleep(), "the end of the sleep took it");
    consumer.end_sleep();

    waker.wake();
    assert_eq!(consumer.wait(None), WaitOutcome::Ready);
    assert_eq!(consumer.wait(Some(Duration::ZERO)), WaitOutcome::TimedOut);
    assert_eq!(consumer.wait(Some(Duration::from_millis(1))), WaitOutcome::TimedOut);

    waker.wake();
    producer.try_publish(1).expect("free");
    let mut out = Vec::new();
    assert_eq!(consumer.wait(None), WaitOutcome::Ready);
    consumer.drain(2, &mut out);
    assert_eq!(consumer.wait(None), WaitOutcome::Ready, "an event does not swallow the wake");
    drop(producer);
    drop(consumer);
    waker.wake();
    assert_eq!(calls(), 1);
}

#[test]
fn errors_tell_what_happened() {
    let (producer, consumer) = ring(2);
    drop(consumer);
    let closed = producer.publish(5).expect_err("no consumer");
    assert!(closed.to_string().contains("closed"), "{closed}");
    assert_eq!(closed.into_inner(), 5);
    let error = producer.try_publish(6).expect_err("no consumer");
    assert!(error.is_closed() && !error.is_full());
    assert_eq!(error.into_inner(), 6);
}
