//! Nanoseconds per event, beside other bounded channels, interleaved in one run: `cargo bench -p ringraft-ring`.
//!
//! *Free run*: each producer pushes bursts of 64-byte events as fast as it can into 1024 slots, and blocks when they are
//! full. A burst is one call where there is a batch call, a loop where there is none. Consumers take what is there.
//! *Round trip*: one event to another thread and one back, both sides blocking; *hot* at once again, *cold* after a rest
//! that lets the other side fall asleep.
//!
//! A cell is the median of [`RUNS`], then CPU time of the whole process in brackets.
#![cfg(not(any(loom, shuttle)))]

use std::{
    hint::black_box,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use ringraft_ring::{Consumer, Producer, WaitOutcome, ring};

const RUNS: usize = 7;
const CAPACITY: usize = 1024;
const RUN_TIME: Duration = Duration::from_millis(50);

/// Longer than anybody stays awake.
const REST: Option<Duration> = Some(Duration::from_micros(200));

type Event = [u64; 8];

/// A bounded channel under test.
trait Channel {
    const NAME: &'static str;
    type Sender: Clone + Send + 'static;
    type Receiver: Send + 'static;
    fn new() -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, event: Event);
    /// Empties `burst` into the channel.
    fn send_burst(sender: &Self::Sender, burst: &mut Vec<Event>);
    /// Blocks; `false` when the channel has ended. Appends at least one event otherwise.
    fn receive(receiver: &mut Self::Receiver, into: &mut Vec<Event>) -> bool;
}

struct Ring;

impl Channel for Ring {
    const NAME: &'static str = "ring";
    type Sender = Producer<Event>;
    type Receiver = Consumer<Event>;

    fn new() -> (Self::Sender, Self::Receiver) {
        ring(CAPACITY)
    }

    fn send(sender: &Self::Sender, event: Event) {
        sender.publish(event).expect("the consumer is there");
    }

    fn send_burst(sender: &Self::Sender, burst: &mut Vec<Event>) {
        while !burst.is_empty() {
            if sender.try_publish_batch(burst).expect("the consumer is there") == 0 {
                // Full: waits with the first of the rest.
                let first = burst.remove(0);
                sender.publish(first).expect("the consumer is there");
            }
        }
    }

    fn receive(receiver: &mut Self::Receiver, into: &mut Vec<Event>) -> bool {
        match receiver.wait(None) {
            WaitOutcome::Ready => {
                receiver.drain(256, into);
                true
            }
            WaitOutcome::TimedOut | WaitOutcome::Closed => false,
        }
    }
}

struct Crossbeam;

impl Channel for Crossbeam {
    const NAME: &'static str = "crossbeam";
    type Sender = crossbeam_channel::Sender<Event>;
    type Receiver = crossbeam_channel::Receiver<Event>;

    fn new() -> (Self::Sender, Self::Receiver) {
        crossbeam_channel::bounded(CAPACITY)
    }

    fn send(sender: &Self::Sender, event: Event) {
        sender.send(event).expect("the receiver is there");
    }

    fn send_burst(sender: &Self::Sender, burst: &mut Vec<Event>) {
        for event in burst.drain(..) {
            sender.send(event).expect("the receiver is there");
        }
    }

    fn receive(receiver: &mut Self::Receiver, into: &mut Vec<Event>) -> bool {
        let Ok(event) = receiver.recv() else { return false };
        into.push(event);
        into.extend(receiver.try_iter().take(255));
        true
    }
}

struct Std;

impl Channel for Std {
    const NAME: &'static str = "std sync_channel";
    type Sender = mpsc::SyncSender<Event>;
    type Receiver = mpsc::Receiver<Event>;

    fn new() -> (Self::Sender, Self::Receiver) {
        mpsc::sync_channel(CAPACITY)
    }

    fn send(sender: &Self::Sender, event: Event) {
        sender.send(event).expect("the receiver is there");
    }

    fn send_burst(sender: &Self::Sender, burst: &mut Vec<Event>) {
        for event in burst.drain(..) {
            sender.send(event).expect("the receiver is there");
        }
    }

    fn receive(receiver: &mut Self::Receiver, into: &mut Vec<Event>) -> bool {
        let Ok(event) = receiver.recv() else { return false };
        into.push(event);
        into.extend(receiver.try_iter().take(255));
        true
    }
}

/// Wall and CPU nanoseconds per event.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

#[allow(unsafe_code)]
fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec of ours.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "the process has a CPU clock");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn measure(events: usize, work: impl FnOnce()) -> Cost {
    let (wall, cpu) = (Instant::now(), process_cpu());
    work();
    let (wall, cpu) = (wall.elapsed(), process_cpu().saturating_sub(cpu));
    let per_event = |time: Duration| time.as_nanos() as f64 / events as f64;
    Cost { wall: per_event(wall), cpu: per_event(cpu) }
}

fn free_run<C: Channel>(producers: usize, burst: usize, bursts: usize) -> Cost {
    let (sender, mut receiver) = C::new();
    let events = producers * burst * bursts;
    measure(events, || {
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut batch = Vec::with_capacity(burst);
                    for number in 0..bursts as u64 {
                        if burst == 1 {
                            C::send(&sender, [number; 8]);
                        } else {
                            batch.extend((0..burst as u64).map(|index| [number + index; 8]));
                            C::send_burst(&sender, &mut batch);
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let (mut batch, mut count, mut sum) = (Vec::with_capacity(CAPACITY), 0, 0_u64);
        while C::receive(&mut receiver, &mut batch) {
            count += batch.len();
            sum = batch.drain(..).fold(sum, |sum, event| sum.wrapping_add(event[0] ^ event[7]));
        }
        assert_eq!(count, events);
        black_box(sum);
        for thread in threads {
            thread.join().expect("a producer panicked");
        }
    })
}

fn round_trip<C: Channel>(rest: Option<Duration>, trips: usize) -> Cost {
    let (ping, mut ping_in) = C::new();
    let (pong, mut pong_in) = C::new();
    let other = thread::spawn(move || {
        let mut batch = Vec::new();
        while C::receive(&mut ping_in, &mut batch) {
            for event in batch.drain(..) {
                C::send(&pong, event);
            }
        }
    });
    let mut batch = Vec::new();
    let mut rested = Duration::ZERO;
    let mut cost = measure(trips, || {
        for trip in 0..trips as u64 {
            if let Some(rest) = rest {
                let start = Instant::now();
                thread::sleep(rest);
                rested += start.elapsed();
            }
            C::send(&ping, [trip; 8]);
            assert!(C::receive(&mut pong_in, &mut batch));
            assert_eq!(batch.drain(..).map(|event| event[0]).collect::<Vec<_>>(), [trip]);
        }
    });
    cost.wall -= rested.as_nanos() as f64 / trips as f64;
    drop(ping);
    other.join().expect("the other side panicked");
    cost
}

type Runner = fn(usize) -> Cost;

/// The median of each contender, run in turns, each run as long as [`RUN_TIME`].
fn contest(contenders: &[(&str, Runner)], first_guess: usize) -> Vec<Cost> {
    let sizes: Vec<usize> = contenders
        .iter()
        .map(|(_, run)| {
            let mut size = first_guess;
            loop {
                let start = Instant::now();
                run(size);
                let took = start.elapsed();
                if took * 4 > RUN_TIME {
                    let factor = RUN_TIME.as_secs_f64() / took.as_secs_f64();
                    return ((size as f64 * factor) as usize).max(1);
                }
                size *= 4;
            }
        })
        .collect();
    let mut costs = vec![Vec::new(); contenders.len()];
    for _ in 0..RUNS {
        for (index, (_, run)) in contenders.iter().enumerate() {
            costs[index].push(run(sizes[index]));
        }
    }
    costs
        .into_iter()
        .map(|mut runs| {
            runs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
            runs[RUNS / 2]
        })
        .collect()
}

fn row(name: &str, contenders: &[(&str, Runner)], first_guess: usize) {
    print!("| {name:<28} |");
    for cost in contest(contenders, first_guess) {
        print!(" {:>18} |", format!("{:.1} [{:.1}]", cost.wall, cost.cpu));
    }
    println!();
}

/// The three contenders at one setting.
macro_rules! contenders {
    (|$size:ident, $channel:ident| $run:expr) => {
        &[
            (Ring::NAME, {
                type $channel = Ring;
                |$size| $run
            }),
            (Crossbeam::NAME, {
                type $channel = Crossbeam;
                |$size| $run
            }),
            (Std::NAME, {
                type $channel = Std;
                |$size| $run
            }),
        ]
    };
}

fn main() {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    println!(
        "ns per event (or round trip), wall [CPU]; median of {RUNS}; {CAPACITY} slots of 64 bytes; {cores} cores\n"
    );
    println!("| {:<28} | {:>18} | {:>18} | {:>18} |", "", Ring::NAME, Crossbeam::NAME, Std::NAME);
    println!("| {} | {}: | {}: | {}: |", "-".repeat(28), "-".repeat(17), "-".repeat(17), "-".repeat(17));
    row("1 producer, burst 1", contenders!(|size, C| free_run::<C>(1, 1, size)), 4096);
    row("1 producer, burst 16", contenders!(|size, C| free_run::<C>(1, 16, size)), 256);
    row("1 producer, burst 256", contenders!(|size, C| free_run::<C>(1, 256, size)), 16);
    row("4 producers, burst 1", contenders!(|size, C| free_run::<C>(4, 1, size)), 1024);
    row("4 producers, burst 16", contenders!(|size, C| free_run::<C>(4, 16, size)), 64);
    row("4 producers, burst 256", contenders!(|size, C| free_run::<C>(4, 256, size)), 4);
    row("blocking round trip, hot", contenders!(|size, C| round_trip::<C>(None, size)), 256);
    row("blocking round trip, cold", contenders!(|size, C| round_trip::<C>(REST, size)), 16);
}
