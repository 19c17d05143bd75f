//! Real threads: nothing lost, nothing twice, order per producer, no sleeper forgotten. The exact interleavings are
//! loom's business (`tests/loom.rs`); here it is volume, and a hang is a failure.
#![cfg(not(any(loom, shuttle)))]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use ringraft_ring::{
    Consumer, Producer, TryPublishError, WaitOutcome, Wake, ring, ring_starting_at, ring_with_wake,
};

const PRODUCERS: usize = 4;

/// An event with a heap part, so that a slot read twice or too early does not go unnoticed.
type Event = (usize, Box<usize>);

struct Order {
    next: Vec<usize>,
}

impl Order {
    fn new() -> Self {
        Self { next: vec![0; PRODUCERS] }
    }

    fn check(&mut self, events: &mut Vec<Event>) {
        for (producer, number) in events.drain(..) {
            assert_eq!(*number, self.next[producer], "producer {producer}");
            self.next[producer] += 1;
        }
    }
}

fn consume(mut consumer: Consumer<Event>, max: usize) -> Vec<usize> {
    let (mut order, mut batch) = (Order::new(), Vec::new());
    loop {
        match consumer.wait(None) {
            WaitOutcome::Ready => {
                consumer.drain(max, &mut batch);
                order.check(&mut batch);
            }
            WaitOutcome::Closed => return order.next,
            WaitOutcome::TimedOut => panic!("a wait without limit timed out"),
        }
    }
}

fn on_four_threads(
    producer: Producer<Event>,
    publish: impl Fn(usize, &Producer<Event>) + Copy + Send + 'static,
) {
    let threads: Vec<_> = (0..PRODUCERS)
        .map(|id| {
            let producer = producer.clone();
            thread::spawn(move || publish(id, &producer))
        })
        .collect();
    drop(producer);
    for thread in threads {
        thread.join().expect("a producer panicked");
    }
}

#[test]
fn four_producers_block_on_a_tiny_ring() {
    for (capacity, max) in [(2, 1), (2, 2), (8, 3), (64, 64)] {
        let (producer, consumer) = ring_starting_at(capacity, usize::MAX / 2 - 1000, None);
        let consumer = thread::spawn(move || consume(consumer, max));
        on_four_threads(producer, |id, producer| {
            for number in 0..20_000 {
                producer.publish((id, Box::new(number))).expect("the consumer is alive");
            }
        });
        assert_eq!(consumer.join().expect("consumer"), [20_000; PRODUCERS]);
    }
}

#[test]
fn four_producers_publish_batches_of_mixed_sizes() {
    let (producer, consumer) = ring(64);
    let consumer = thread::spawn(move || consume(consumer, 48));
    on_four_threads(producer, |id, producer| {
        let (mut batch, mut number) = (Vec::new(), 0);
        while number < 50_000 || !batch.is_empty() {
            while number < 50_000 && batch.len() < 1 + number % 100 {
                batch.push((id, Box::new(number)));
                number += 1;
            }
            if producer.try_publish_batch(&mut batch).expect("the consumer is alive") == 0 {
                // Full: wait for room with the first one.
                producer.publish(batch.remove(0)).expect("the consumer is alive");
            }
        }
    });
    assert_eq!(consumer.join().expect("consumer"), [50_000; PRODUCERS]);
}

#[test]
fn one_handle_shared_by_threads() {
    let (producer, consumer) = ring(16);
    let consumer = thread::spawn(move || consume(consumer, 16));
    thread::scope(|scope| {
        for id in 0..PRODUCERS {
            let producer = &producer;
            scope.spawn(move || {
                for number in 0..20_000 {
                    producer.publish((id, Box::new(number))).expect("the consumer is alive");
                }
            });
        }
    });
    drop(producer);
    assert_eq!(consumer.join().expect("consumer"), [20_000; PRODUCERS]);
}

#[test]
fn a_poll_loop_that_sleeps_elsewhere_misses_nothing() {
    /// Stands for an eventfd: a counter that is read with a blocking wait.
    struct Bell(std::sync::Mutex<bool>, std::sync::Condvar);
    impl Wake for Bell {
        fn wake(&self) {
            *self.0.lock().expect("bell") = true;
            self.1.notify_one();
        }
    }
    let bell = Arc::new(Bell(std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let (producer, mut consumer) = ring_with_wake(8, bell.clone());
    let consumer = thread::spawn(move || {
        let (mut order, mut batch) = (Order::new(), Vec::new());
        loop {
            let drained = consumer.drain(5, &mut batch);
            order.check(&mut batch);
            if drained.closed {
                return order.next;
            }
            if drained.end_of_batch && consumer.prepare_sleep() {
                let mut rung = bell.1.wait_while(bell.0.lock().expect("bell"), |rung| !*rung).expect("bell");
                *rung = false;
                drop(rung);
                consumer.end_sleep();
            }
        }
    });
    on_four_threads(producer, |id, producer| {
        for number in 0..20_000 {
            producer.publish((id, Box::new(number))).expect("the consumer is alive");
        }
    });
    assert_eq!(consumer.join().expect("consumer"), [20_000; PRODUCERS]);
}

#[test]
fn progress_and_its_wake_are_never_missed() {
    let (_producer, mut consumer) = ring::<()>(2);
    let waker = consumer.waker();
    let progress = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let other = thread::spawn({
        let (progress, seen) = (progress.clone(), seen.clone());
        move || {
            for step in 1..=5_000 {
                progress.store(step, Ordering::Relaxed);
                waker.wake();
                while seen.load(Ordering::Acquire) != step {
                    thread::yield_now();
                }
            }
        }
    });
    while seen.load(Ordering::Relaxed) < 5_000 {
        assert_eq!(consumer.wait(None), WaitOutcome::Ready);
        seen.store(progress.load(Ordering::Relaxed), Ordering::Release);
    }
    other.join().expect("the other thread");
}

#[test]
fn shutdown_under_fire_loses_and_doubles_nothing() {
    for round in 0..60 {
        let (producer, mut consumer) = ring(8);
        let taken: Arc<AtomicUsize> = Arc::default();
        let alive: Arc<()> = Arc::default();
        let threads: Vec<_> = (0..PRODUCERS)
            .map(|id| {
                let (producer, taken, alive) = (producer.clone(), taken.clone(), alive.clone());
                thread::spawn(move || {
                    for number in 0.. {
                        // Half of them block, half of them try.
                        let back = if id % 2 == 0 {
                            producer.publish(alive.clone()).err().map(|closed| closed.into_inner())
                        } else {
                            match producer.try_publish(alive.clone()) {
                                Ok(()) => None,
                                Err(TryPublishError::Full(_)) => {
                                    thread::yield_now();
                                    continue;
                                }
                                Err(TryPublishError::Closed(event)) => Some(event),
                            }
                        };
                        match back {
                            None => taken.fetch_add(1, Ordering::Relaxed),
                            Some(_) => return number,
                        };
                    }
                    0
                })
            })
            .collect();
        let mut out = Vec::new();
        for _ in 0..round {
            consumer.wait(Some(Duration::from_millis(1)));
            consumer.drain(3, &mut out);
        }
        let rest = consumer.into_undrained();
        for thread in threads {
            thread.join().expect("a producer panicked");
        }
        assert!(rest.len() <= 8);
        assert_eq!(out.len() + rest.len(), taken.load(Ordering::Relaxed), "round {round}");
        drop((out, rest, producer));
        assert_eq!(Arc::strong_count(&alive), 1, "round {round}");
    }
}

#[test]
fn a_blocked_producer_gets_its_event_back_when_the_consumer_goes() {
    for by_drop in [true, false] {
        let (producer, mut consumer) = ring(2);
        producer.try_publish(1).expect("free");
        producer.try_publish(2).expect("free");
        let other = producer.clone();
        let blocked: Vec<_> = (3..6)
            .map(|event| {
                let producer = producer.clone();
                thread::spawn(move || producer.publish(event).expect_err("never drained").into_inner())
            })
            .collect();
        if by_drop {
            drop(consumer);
        } else {
            other.close();
            let mut out = Vec::new();
            assert!(consumer.drain(9, &mut out).closed);
            assert_eq!(out, [1, 2]);
        }
        let mut back: Vec<_> =
            blocked.into_iter().map(|thread| thread.join().expect("blocked producer")).collect();
        back.sort_unstable();
        assert_eq!(back, [3, 4, 5]);
    }
}

/// A wait with a limit ends by room, by the end of the ring, or by time, and the event is never lost.
#[test]
fn a_bounded_wait_ends_in_one_of_three_ways() {
    let (producer, mut consumer) = ring(2);
    producer.publish(1).expect("a free slot");
    producer.publish(2).expect("a free slot");
    let limit = Duration::from_millis(5);
    assert!(matches!(producer.publish_timeout(3, limit), Err(TryPublishError::Full(3))), "nobody drains");
    assert!(matches!(producer.publish_timeout(3, Duration::ZERO), Err(TryPublishError::Full(3))));
    let waiting = thread::spawn(move || {
        let done = producer.publish_timeout(3, Duration::MAX);
        (producer, done)
    });
    let mut drained = Vec::new();
    while drained.len() < 3 {
        consumer.wait(None);
        consumer.drain(1, &mut drained);
    }
    let (producer, done) = waiting.join().expect("the producer did not panic");
    assert!(done.is_ok());
    assert_eq!(drained, [1, 2, 3]);
    consumer.close();
    assert!(matches!(producer.publish_timeout(4, limit), Err(TryPublishError::Closed(4))));
}
