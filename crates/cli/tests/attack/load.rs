//! Honest load: clients that add 1 to counters of their own and check every sum, and others that read them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringraft_atomic::{AtomicClient, ClientError, Command, ReadFrom, ReadMode};

/// How long it may take until counters can be read at the end.
const READ_LIMIT: Duration = Duration::from_secs(15);
/// Pause between two reads of a reader.
const READ_PAUSE: Duration = Duration::from_millis(5);
/// Pause of a client that was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Writers of each group, with a counter each.
    pub writers: usize,
    /// What a writer waits between two requests.
    pub pause: Duration,
    /// Length of the counters' names: each entry has as many bytes at least.
    pub key_bytes: usize,
    /// Threads that read counters of any group.
    pub readers: usize,
    /// A group without writers.
    pub idle: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions { writers: 2, pause: Duration::from_millis(50), key_bytes: 16, readers: 0, idle: None }
    }
}

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub at: Instant,
    pub group: usize,
    pub latency: Duration,
}

/// A load that runs.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    client: AtomicClient,
    counters: Vec<Counter>,
    stop: AtomicBool,
    acks: Mutex<Vec<Ack>>,
    unknown: AtomicU64,
    refused: AtomicU64,
    reads: AtomicU64,
    /// Reads that were answered with less than was acknowledged before they were asked.
    stale: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// A counter that one writer adds to.
struct Counter {
    key: String,
    group: usize,
    /// The last sum that was answered. Whoever asks later must not be told less.
    acked: AtomicI64,
    /// Additions whose outcome nobody knows, and which no later sum has shown.
    floating: AtomicI64,
}

/// What is left of a load, counters read.
pub struct Finished {
    pub acks: Vec<Ack>,
    pub unknown: u64,
    pub refused: u64,
    pub reads: u64,
    pub stale: u64,
    /// Counters that hold less than was acknowledged, or more than was ever sent, or cannot be read.
    pub lost: u64,
    /// What was wrong, the first few.
    pub failures: Vec<String>,
}

/// What is wrong with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Value,
    Unreadable,
}

impl Load {
    /// Starts the threads.
    pub fn start(client: AtomicClient, options: LoadOptions) -> Load {
        let groups = client.slot_count();
        let counters: Vec<Counter> = (0..groups)
            .filter(|group| options.idle != Some(*group))
            .flat_map(|group| (0..options.writers).map(move |writer| (group, writer)))
            .map(|(group, writer)| Counter {
                key: key_in(&client, group, writer, options.key_bytes),
                group,
                acked: AtomicI64::new(0),
                floating: AtomicI64::new(0),
            })
            .collect();
        let shared = Arc::new(Shared {
            client,
            counters,
            stop: AtomicBool::new(false),
            acks: Mutex::default(),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            failures: Mutex::default(),
        });
        let writers = (0..shared.counters.len()).map(|counter| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.write(&shared.counters[counter], options.pause))
        });
        let readers = (0..options.readers).map(|reader| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.read(reader))
        });
        let threads = writers.chain(readers).collect();
        Load { shared, threads }
    }

    /// Writes that were acknowledged so far.
    pub fn acked(&self) -> usize {
        self.shared.acks.lock().len()
    }

    /// A copy of what was acknowledged in a time.
    pub fn acks_between(&self, from: Instant, to: Instant) -> Vec<Ack> {
        self.shared.acks.lock().iter().filter(|ack| (from..to).contains(&ack.at)).copied().collect()
    }

    /// A counter of the group, and the key that it has.
    pub fn key_of(&self, group: usize) -> &str {
        self.shared.counters.iter().find(|counter| counter.group == group).map_or("", |counter| &counter.key)
    }

    /// Waits until `group`, or any group, has acknowledged a write that was answered after `since`.
    pub fn wait_for_ack(&self, group: Option<usize>, since: Instant, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let fits = |ack: &&Ack| ack.at >= since && group.is_none_or(|group| group == ack.group);
            if let Some(ack) = self.shared.acks.lock().iter().rev().take(100_000).rfind(fits) {
                return Some(ack.at - since);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Stops and reads every counter through the log.
    pub fn finish(self) -> Finished {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if thread.join().is_err() {
                self.shared.fail("a thread of the load has panicked".into());
            }
        }
        let shared = &self.shared;
        let (mut lost, mut readable) = (0, true);
        for counter in &shared.counters {
            // When one cannot be read the others are not tried: each would take its whole time.
            if !readable {
                lost += 1;
            } else if let Err(why) = shared.verify(counter) {
                readable = why == Wrong::Value;
                lost += 1;
            }
        }
        Finished {
            acks: shared.acks.lock().clone(),
            unknown: shared.unknown.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            reads: shared.reads.load(Ordering::Relaxed),
            stale: shared.stale.load(Ordering::Relaxed),
            lost,
            failures: shared.failures.lock().iter().take(3).cloned().collect(),
        }
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, what: String) {
        self.failures.lock().push(what);
    }

    fn write(&self, counter: &Counter, pause: Duration) {
        while !self.stopped() {
            let command = Command::IncrementAndGet { key: counter.key.clone(), delta: 1 };
            match self.client.execute(command, ReadMode::default()) {
                Ok(outcome) => {
                    let (at, latency) = (Instant::now(), outcome.latency);
                    self.take(counter, outcome.value().unwrap_or(0));
                    self.acks.lock().push(Ack { at, group: counter.group, latency });
                }
                Err(ClientError::Unknown(_)) => {
                    counter.floating.fetch_add(1, Ordering::SeqCst);
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(REFUSED_PAUSE);
                }
            }
            std::thread::sleep(pause);
        }
    }

    /// The counter has one writer: a sum is the one before, and 1, and what was unknown and is carried out now.
    fn take(&self, counter: &Counter, sum: i64) {
        let before = counter.acked.load(Ordering::SeqCst);
        let shown = sum - before - 1;
        if (0..=counter.floating.load(Ordering::SeqCst)).contains(&shown) {
            counter.floating.fetch_sub(shown, Ordering::SeqCst);
        } else {
            let short: String = counter.key.chars().take(20).collect();
            self.fail(format!("{short}: {before} was acknowledged, and adding 1 answered {sum}"));
        }
        counter.acked.fetch_max(sum, Ordering::SeqCst);
    }

    fn read(&self, reader: usize) {
        let leader = |lease| ReadMode::Quorum { from: ReadFrom::Leader, lease };
        let any = |lease| ReadMode::Quorum { from: ReadFrom::AnyReplica, lease };
        let modes = [leader(true), leader(false), any(false), leader(true), any(true), ReadMode::ThroughLog];
        for turn in reader.. {
            if self.stopped() {
                return;
            }
            let counter = &self.counters[turn.wrapping_mul(7919) % self.counters.len()];
            let mode = modes[turn % modes.len()];
            let floor = counter.acked.load(Ordering::SeqCst);
            match self.client.execute(Command::Get { key: counter.key.clone() }, mode) {
                Ok(outcome) => {
                    self.reads.fetch_add(1, Ordering::Relaxed);
                    let value = outcome.value().unwrap_or(0);
                    if value < floor {
                        self.stale.fetch_add(1, Ordering::Relaxed);
                        self.fail(format!(
                            "{mode:?} at {} answered {value} after {floor} was acknowledged",
                            outcome.server
                        ));
                    }
                }
                Err(_) => std::thread::sleep(REFUSED_PAUSE),
            }
            std::thread::sleep(READ_PAUSE);
        }
    }

    /// Says when a counter does not hold what it must.
    fn verify(&self, counter: &Counter) -> Result<(), Wrong> {
        let deadline = Instant::now() + READ_LIMIT;
        let least = counter.acked.load(Ordering::SeqCst);
        let most = least + counter.floating.load(Ordering::SeqCst);
        let short: String = counter.key.chars().take(20).collect();
        loop {
            match self.client.get(&counter.key, ReadMode::ThroughLog) {
                Ok(value) if (least..=most).contains(&value.unwrap_or(0)) => return Ok(()),
                Ok(value) => {
                    self.fail(format!("{short}: {least} to {most} were expected, {value:?} was read"));
                    return Err(Wrong::Value);
                }
                Err(error) if Instant::now() > deadline => {
                    self.fail(format!("{short} cannot be read: {error}"));
                    return Err(Wrong::Unreadable);
                }
                Err(_) => std::thread::sleep(REFUSED_PAUSE),
            }
        }
    }
}

/// A key that belongs to the group. What differs stands first: the hash does not carry differences at the end far enough up.
pub fn key_in(client: &AtomicClient, group: usize, writer: usize, bytes: usize) -> String {
    for attempt in 0.. {
        let mut key = format!("{attempt}/{group}/{writer}/");
        while key.len() < bytes {
            key.push('k');
        }
        if client.slot_of(&key) == group {
            return key;
        }
    }
    String::new()
}

/// Whole seconds between two moments in which nobody of `groups` acknowledged a write, counted from `from`.
pub fn silent_seconds(acks: &[Ack], from: Instant, to: Instant, groups: impl Fn(usize) -> bool) -> Vec<u64> {
    let seconds = to.saturating_duration_since(from).as_secs();
    let mut heard = vec![false; seconds as usize];
    for ack in acks.iter().filter(|ack| ack.at >= from && groups(ack.group)) {
        if let Some(second) = heard.get_mut((ack.at - from).as_secs() as usize) {
            *second = true;
        }
    }
    (0..seconds).filter(|second| !heard[*second as usize]).collect()
}

/// The latency that 99 of 100 do not exceed, in milliseconds.
pub fn p99_ms(acks: &[Ack]) -> f64 {
    let mut latencies: Vec<Duration> = acks.iter().map(|ack| ack.latency).collect();
    latencies.sort_unstable();
    let rank = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
    latencies.get(rank).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
}
