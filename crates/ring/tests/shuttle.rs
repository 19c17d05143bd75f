//! What loom cannot reach: many producers, many events, waits that block and end, under shuttle's schedules.
//!
//! `make shuttle`, or `RUSTFLAGS="--cfg shuttle" cargo test -p ringraft-ring --test shuttle`; each scenario runs
//! `SCHEDULES` schedules of each kind, times `SHUTTLE_TIMES` (1 if not set). A failure prints the schedule for
//! `shuttle::replay`.
//!
//! shuttle's memory is sequentially consistent and its time stands still: a lost event, a double drop or a lost wake-up
//! (a deadlock) is found here, a missing fence by loom alone.
#![cfg(shuttle)]

use std::sync::Arc as StdArc;

use ringraft_ring::{Closed, Consumer, Producer, TryPublishError, WaitOutcome, Wake, ring, ring_with_wake};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Schedules of each kind (PCT of depth 3, random) for each scenario.
const SCHEDULES: usize = 2_000;

/// The same schedules in every run; `SHUTTLE_RANDOM_SEED` gives others.
const SEED: u64 = 7;

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let times: usize =
        std::env::var("SHUTTLE_TIMES").map_or(1, |times| times.parse().expect("SHUTTLE_TIMES is a number"));
    let mut config = Config::new();
    config.silence_warnings = true;
    let scenario = StdArc::new(scenario);
    let again = StdArc::clone(&scenario);
    let pct = PctScheduler::new_from_seed(SEED, 3, SCHEDULES * times);
    Runner::new(pct, config.clone()).run(move || scenario());
    let random = RandomScheduler::new_from_seed(SEED, SCHEDULES * times);
    Runner::new(random, config).run(move || again());
}

const PRODUCERS: usize = 3;
const EVENTS: usize = 20;

/// Producer and number; the heap part makes a slot that is read twice a crash.
type Event = (usize, Box<usize>);

fn event(producer: usize, number: usize) -> Event {
    (producer, Box::new(number))
}

/// Each producer's numbers from 0 on without a gap; how many there are of each.
fn in_order(events: &[Event]) -> [usize; PRODUCERS] {
    let mut next = [0; PRODUCERS];
    for (producer, number) in events {
        assert_eq!(**number, next[*producer], "producer {producer}");
        next[*producer] += 1;
    }
    next
}

fn drain_to_the_end(consumer: &mut Consumer<Event>, max: usize) -> Vec<Event> {
    let mut out = Vec::new();
    while consumer.wait(None) == WaitOutcome::Ready {
        consumer.drain(max, &mut out);
    }
    out
}

/// Runs `publish` on a thread for each producer; gives how many events each of them got rid of.
fn producers(
    producer: Producer<Event>,
    publish: impl Fn(usize, Producer<Event>) -> usize + Copy + Send + 'static,
) -> Vec<thread::JoinHandle<usize>> {
    let threads = (0..PRODUCERS).map(|id| {
        let producer = producer.clone();
        thread::spawn(move || publish(id, producer))
    });
    threads.collect()
}

fn join(threads: Vec<thread::JoinHandle<usize>>) -> Vec<usize> {
    threads.into_iter().map(|thread| thread.join().expect("the producer did not panic")).collect()
}

fn publish_all(id: usize, producer: Producer<Event>) -> usize {
    let closed = |number| producer.publish(event(id, number)).is_err();
    (0..EVENTS).find(|number| closed(*number)).unwrap_or(EVENTS)
}

/// Batches of seven, and one that waits where none fits.
fn publish_batches(id: usize, producer: Producer<Event>) -> usize {
    let (mut went, mut batch) = (0, Vec::new());
    while went < EVENTS {
        batch.clear();
        batch.extend((went..EVENTS.min(went + 7)).map(|number| event(id, number)));
        match producer.try_publish_batch(&mut batch) {
            Ok(0) => match producer.publish(batch.swap_remove(0)) {
                Ok(()) => went += 1,
                Err(Closed(_)) => return went,
            },
            Ok(count) => went += count,
            Err(_) => return went,
        }
    }
    went
}

#[test]
fn three_producers_wait_for_room() {
    explore(|| {
        let (producer, mut consumer) = ring(4);
        let threads = producers(producer, publish_all);
        let out = drain_to_the_end(&mut consumer, 3);
        assert_eq!(in_order(&out), [EVENTS; PRODUCERS]);
        join(threads);
    });
}

#[test]
fn batches_of_three_producers() {
    explore(|| {
        let (producer, mut consumer) = ring(8);
        let threads = producers(producer, publish_batches);
        let out = drain_to_the_end(&mut consumer, 5);
        assert_eq!(in_order(&out), [EVENTS; PRODUCERS]);
        join(threads);
    });
}

/// The consumer ends while producers wait for room: each event is drained, handed back to the consumer, or kept by its
/// producer.
fn the_consumer_ends(publish: fn(usize, Producer<Event>) -> usize) {
    explore(move || {
        let (producer, mut consumer) = ring(2);
        let threads = producers(producer, publish);
        let mut out = Vec::new();
        while out.len() < 9 && consumer.wait(None) == WaitOutcome::Ready {
            consumer.drain(2, &mut out);
        }
        out.extend(consumer.into_undrained());
        let went = join(threads);
        assert_eq!(in_order(&out).to_vec(), went);
    });
}

#[test]
fn the_consumer_ends_while_the_ring_is_full() {
    the_consumer_ends(publish_all);
}

#[test]
fn the_consumer_ends_among_batches() {
    the_consumer_ends(publish_batches);
}

#[test]
fn a_dropped_consumer_frees_who_waits() {
    explore(|| {
        let (producer, consumer) = ring(2);
        let threads = producers(producer.clone(), publish_all);
        drop(consumer);
        let went: usize = join(threads).into_iter().sum();
        assert!(went <= 2, "nothing was drained");
        assert!(producer.is_closed());
    });
}

#[test]
fn one_producer_closes_for_all_while_the_ring_is_full() {
    explore(|| {
        let (producer, mut consumer) = ring(2);
        let threads = producers(producer.clone(), publish_all);
        let closer = thread::spawn(move || producer.close());
        let out = drain_to_the_end(&mut consumer, 1);
        closer.join().expect("no panic");
        assert_eq!(in_order(&out).to_vec(), join(threads), "drained is what was taken");
    });
}

#[test]
fn try_publish_never_loses_what_it_cannot_take() {
    explore(|| {
        let (producer, mut consumer) = ring(2);
        let threads = producers(producer, |id, producer| {
            let mut went = 0;
            while went < EVENTS {
                match producer.try_publish(event(id, went)) {
                    Ok(()) => went += 1,
                    Err(TryPublishError::Full((_, number))) => {
                        assert_eq!(*number, went);
                        thread::yield_now();
                    }
                    Err(TryPublishError::Closed(_)) => panic!("nobody closes"),
                }
            }
            went
        });
        let out = drain_to_the_end(&mut consumer, 2);
        assert_eq!(in_order(&out), [EVENTS; PRODUCERS]);
        join(threads);
    });
}

/// Progress beside the ring, as the later stages report it: the wait ends for the last report, whatever came before.
#[test]
fn wakes_and_events_end_the_wait() {
    explore(|| {
        let (producer, mut consumer) = ring(2);
        let progress = Arc::new(AtomicUsize::new(0));
        let reporters: Vec<_> = (0..2)
            .map(|_| {
                let (waker, progress) = (consumer.waker(), progress.clone());
                thread::spawn(move || {
                    for _ in 0..5 {
                        progress.fetch_add(1, Ordering::Relaxed);
                        waker.wake();
                    }
                })
            })
            .collect();
        let publisher = thread::spawn(move || {
            assert_eq!(publish_all(0, producer.clone()), EVENTS);
            producer
        });
        let mut out = Vec::new();
        while out.len() < EVENTS || progress.load(Ordering::Relaxed) < 10 {
            assert_eq!(consumer.wait(None), WaitOutcome::Ready);
            consumer.drain(2, &mut out);
        }
        in_order(&out);
        reporters.into_iter().for_each(|reporter| reporter.join().expect("no panic"));
        // Kept open until here: no close has ended a wait.
        drop(publisher.join().expect("no panic"));
    });
}

/// What an eventfd is to a poll loop.
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
    deaf: bool,
}

impl Bell {
    fn new(deaf: bool) -> StdArc<Bell> {
        StdArc::new(Bell { rung: Mutex::new(false), changed: Condvar::new(), deaf })
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().expect("no panic under the lock");
        while !*rung {
            rung = self.changed.wait(rung).expect("no panic under the lock");
        }
        *rung = false;
    }
}

impl Wake for Bell {
    fn wake(&self) {
        if self.deaf {
            return;
        }
        *self.rung.lock().expect("no panic under the lock") = true;
        self.changed.notify_one();
    }
}

fn sleep_outside(deaf: bool) {
    explore(move || {
        let bell = Bell::new(deaf);
        let (producer, mut consumer) = ring_with_wake(4, bell.clone());
        let threads = producers(producer, publish_all);
        let mut out = Vec::new();
        while !consumer.drain(3, &mut out).closed {
            if consumer.prepare_sleep() {
                bell.sleep();
                consumer.end_sleep();
            }
        }
        assert_eq!(in_order(&out), [EVENTS; PRODUCERS]);
        join(threads);
    });
}

#[test]
fn a_sleep_outside_ends() {
    sleep_outside(false);
}

/// That these tests can fail: a bell that nobody hears is a lost wake-up.
#[test]
#[should_panic(expected = "deadlock")]
fn a_deaf_bell_is_found() {
    sleep_outside(true);
}
