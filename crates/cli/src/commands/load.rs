//! Keeps a fixed number of proposals in flight for every group that this process leads, and measures them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use parking_lot::{Condvar, Mutex};
use ringraft::{Applied, ApplyError, Completion, CompletionSink, Node, SinkId, Task};

/// What was measured between `begin` and `end` of a measurement.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Proposals that were applied.
    pub ops: u64,
    /// Proposals that were answered with an error.
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

/// A closed loop of proposals over the groups of one host.
pub struct Load {
    sink: Arc<Sink>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to keep `window` proposals of `payload` bytes in flight for each node that leads; 0 means idle.
    pub fn start(nodes: Vec<Node>, window: usize, payload: usize) -> Load {
        let shared =
            Shared { credits: vec![window; nodes.len()], measured: Measured::new(), measuring: false };
        let sink =
            Arc::new(Sink { origin: Instant::now(), shared: Mutex::new(shared), moved: Condvar::new() });
        let stop = Arc::new(AtomicBool::new(false));
        let thread = (window > 0).then(|| {
            let (sink, stop) = (Arc::clone(&sink), Arc::clone(&stop));
            std::thread::spawn(move || propose_all(&sink, &stop, &nodes, payload))
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

fn propose_all(sink: &Arc<Sink>, stop: &AtomicBool, nodes: &[Node], payload: usize) {
    let id = SinkId::register(Arc::clone(sink) as Arc<dyn CompletionSink>);
    let data = Bytes::from(vec![7u8; payload]);
    let mut ready: Vec<(usize, usize)> = Vec::new();
    let mut tasks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut shared = sink.shared.lock();
        loop {
            ready.clear();
            for (group, credits) in shared.credits.iter_mut().enumerate() {
                if *credits > 0 && nodes[group].is_leader() {
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
