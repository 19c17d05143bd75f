//! Keeps a fixed number of proposals or reads in flight for every group that this process serves, and measures them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use parking_lot::{Condvar, Mutex};
use ringraft::{Applied, ApplyError, Completion, CompletionSink, Node, ReadOnlyOption, SinkId, Task};

/// How a bench reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reads {
    /// As entries of the log, at the leader
    Log,
    /// Through a quorum (ReadIndex), at the leader
    Quorum,
    /// By the leader's lease
    Lease,
    /// Through a quorum, at the followers, which ask the leader
    Follower,
}

impl std::fmt::Display for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reads::Log => "log",
            Reads::Quorum => "quorum",
            Reads::Lease => "lease",
            Reads::Follower => "follower",
        })
    }
}

/// What a load keeps in flight.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Proposals of so many bytes, at leaders.
    Propose(usize),
    /// Reads without an entry.
    Read {
        /// How the leader is confirmed.
        mode: ReadOnlyOption,
        /// At the leader, else at the followers.
        at_leader: bool,
    },
}

impl Work {
    /// The reads of this kind; those through the log have `payload` bytes.
    pub fn reads(kind: Reads, payload: usize) -> Work {
        match kind {
            Reads::Log => Work::Propose(payload),
            Reads::Quorum => Work::Read { mode: ReadOnlyOption::Safe, at_leader: true },
            Reads::Lease => Work::Read { mode: ReadOnlyOption::LeaseBased, at_leader: true },
            Reads::Follower => Work::Read { mode: ReadOnlyOption::Safe, at_leader: false },
        }
    }

    /// Whether it is for this replica as it is now.
    fn is_for(self, node: &Node) -> bool {
        match self {
            Work::Propose(_) | Work::Read { at_leader: true, .. } => node.is_leader(),
            Work::Read { at_leader: false, .. } => !node.is_leader() && node.leader_id().is_some(),
        }
    }
}

/// What was measured between `begin` and `end` of a measurement.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Proposals or reads that were carried out.
    pub ops: u64,
    /// Those that were answered with an error.
    pub errors: u64,
    /// Latency of the applied ones, in microseconds.
    pub latency_us: Histogram<u64>,
}

/// Longest latency that the histogram tells apart: one minute.
const LATENCY_MAX_US: u64 = 60_000_000;

impl Measured {
    fn new() -> Measured {
        let latency_us =
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).unwrap_or_else(|e| unreachable!("{e}"));
        Measured { ops: 0, errors: 0, latency_us }
    }
}

struct Shared {
    /// Proposals that each group may still have in flight.
    credits: Vec<usize>,
    measured: Measured,
    measuring: bool,
}

struct Sink {
    origin: Instant,
    shared: Mutex<Shared>,
    moved: Condvar,
}

/// Group in the upper 16 bits, send time in microseconds in the lower 48.
fn tag(group: usize, sent_us: u64) -> u64 {
    (group as u64) << 48 | sent_us & 0xFFFF_FFFF_FFFF
}

thread_local! {
    /// Outcomes of the batch under way: tag and whether it was applied.
    static BATCH: RefCell<Vec<(u64, bool)>> = const { RefCell::new(Vec::new()) };
}

impl CompletionSink for Sink {
    fn complete(&self, tag: u64, outcome: Result<&Applied, &ApplyError>) {
        BATCH.with_borrow_mut(|batch| batch.push((tag, outcome.is_ok())));
    }

    fn batch_end(&self) {
        BATCH.with_borrow_mut(|batch| {
            let now = self.origin.elapsed().as_micros() as u64;
            let mut shared = self.shared.lock();
            let measuring = shared.measuring;
            for (tag, applied) in batch.drain(..) {
                if let Some(credits) = shared.credits.get_mut((tag >> 48) as usize) {
                    *credits += 1;
                }
                if !measuring {
                    continue;
                }
                if applied {
                    let latency = (now - (tag & 0xFFFF_FFFF_FFFF)).clamp(1, LATENCY_MAX_US);
                    shared.measured.ops += 1;
                    shared.measured.latency_us.saturating_record(latency);
                } else {
                    shared.measured.errors += 1;
                }
            }
        });
        self.moved.notify_one();
    }
}

/// A closed loop of proposals or reads over the groups of one host.
pub struct Load {
    sink: Arc<Sink>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to keep so much of the work in flight for each node that it is for; 0 means idle.
    pub fn start(nodes: Vec<Node>, window: usize, work: Work) -> Load {
        let shared =
            Shared { credits: vec![window; nodes.len()], measured: Measured::new(), measuring: false };
        let sink =
            Arc::new(Sink { origin: Instant::now(), shared: Mutex::new(shared), moved: Condvar::new() });
        let stop = Arc::new(AtomicBool::new(false));
        let thread = (window > 0).then(|| {
            let (sink, stop) = (Arc::clone(&sink), Arc::clone(&stop));
            std::thread::spawn(move || work_all(&sink, &stop, &nodes, work))
        });
        Load { sink, stop, thread }
    }

    /// Forgets what was measured and measures from now on.
    pub fn begin(&self) {
        let mut shared = self.sink.shared.lock();
        shared.measured = Measured::new();
        shared.measuring = true;
    }

    /// Ends the measurement.
    pub fn end(&self) -> Measured {
        let mut shared = self.sink.shared.lock();
        shared.measuring = false;
        shared.measured.clone()
    }

    /// Stops proposing and waits for the thread.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sink.moved.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work_all(sink: &Arc<Sink>, stop: &AtomicBool, nodes: &[Node], work: Work) {
    let id = SinkId::register(Arc::clone(sink) as Arc<dyn CompletionSink>);
    let data = match work {
        Work::Propose(payload) => Bytes::from(vec![7u8; payload]),
        Work::Read { .. } => Bytes::new(),
    };
    let mut ready: Vec<(usize, usize)> = Vec::new();
    let mut tasks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut shared = sink.shared.lock();
        loop {
            ready.clear();
            for (group, credits) in shared.credits.iter_mut().enumerate() {
                if *credits > 0 && work.is_for(&nodes[group]) {
                    ready.push((group, std::mem::take(credits)));
                }
            }
            // A group may become leader without any outcome: look again now and then.
            if !ready.is_empty() || sink.moved.wait_for(&mut shared, Duration::from_millis(20)).timed_out() {
                break;
            }
        }
        drop(shared);
        let now = sink.origin.elapsed().as_micros() as u64;
        for &(group, credits) in &ready {
            if let Work::Read { mode, .. } = work {
                // A refusal comes through the sink, credit included.
                let refused = (0..credits)
                    .filter(|_| {
                        nodes[group].read_index_with(mode, Completion::sink(id, tag(group, now))).is_err()
                    })
                    .count();
                if refused > 0 {
                    std::thread::yield_now();
                }
                continue;
            }
            tasks
                .extend((0..credits).map(|_| Task::new(data.clone(), Completion::sink(id, tag(group, now)))));
            let outcome = nodes[group].apply_batch(&mut tasks);
            // What was not taken is offered again with the next round.
            let left = tasks.len();
            tasks.drain(..).for_each(|task| std::mem::forget(task.done));
            sink.shared.lock().credits[group] += left;
            if outcome.is_err() {
                return;
            }
            if left > 0 {
                std::thread::yield_now();
            }
        }
    }
}
