//! A whole host under shuttle: the real loops of every stage, over a store in memory and a scripted network.
//!
//! `make shuttle`, or `RUSTFLAGS="--cfg shuttle" cargo test -p ringraft --lib shuttle_tests`; each scenario runs
//! [`SCHEDULES`] schedules of each kind, times `SHUTTLE_TIMES` (1 if not set). A failure prints the schedule for
//! `shuttle::replay`.
//!
//! Groups have one voter, so that writes go the whole way without a peer. Time stands still: no timer ever helps a sleeper, so
//! that whoever is forgotten makes a deadlock. Memory is sequentially consistent: missing fences are loom's to find.

mod breakages;
mod failure;
mod network;
mod progress;
mod room;
mod stop;

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringraft_core::{EntryChunk, LogIndex, Term};
use ringraft_storage::{
    GroupKey, GroupOpening, LogReader, LogStorage, MemoryLogStorage, OpenedGroup, RefusedWrites,
    StorageError, StoredGroup, WriteBatch,
};
use rustc_hash::FxHashMap;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread::{JoinHandle, spawn};

use crate::host::options::{HostOptions, StartMode, StoreOptions};
use crate::node::Node;
use crate::options::{ApplyTaskMode, NodeOptions};
use crate::state_machine::StateMachine;
use crate::state_machine::iterator::Iterator;
use crate::task::Task;
use crate::task::completion::{ApplyError, ApplyResult};
use crate::thread::sync::{Condvar, Mutex};

use super::RaftHost;

/// Schedules of each kind (PCT of depth 3, random) for each scenario.
const SCHEDULES: usize = 400;

/// The same schedules in every run; `SHUTTLE_RANDOM_SEED` gives others.
const SEED: u64 = 7;

fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let times: usize =
        std::env::var("SHUTTLE_TIMES").map_or(1, |times| times.parse().expect("SHUTTLE_TIMES is a number"));
    let mut config = shuttle::Config::new();
    config.silence_warnings = true;
    config.stack_size = 256 * 1024;
    let scenario = Arc::new(scenario);
    let again = Arc::clone(&scenario);
    let pct = PctScheduler::new_from_seed(SEED, 3, SCHEDULES * times);
    shuttle::Runner::new(pct, config.clone()).run(move || scenario());
    let random = RandomScheduler::new_from_seed(SEED, SCHEDULES * times);
    shuttle::Runner::new(random, config).run(move || again());
}

const ENDPOINT: &str = "127.0.0.1:1";

/// A host with the smallest rings that there are.
fn tight() -> HostOptions {
    let mut options = HostOptions::new(ENDPOINT, StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    (options.lanes, options.fsm_workers, options.fuse_net) = (1, 1, false);
    (options.apply_ring_size, options.disk_ring_size, options.fsm_ring_size) = (2, 2, 2);
    options.turn_events = 2;
    options
}

/// A sole voter.
fn node_options(mode: ApplyTaskMode) -> NodeOptions {
    let mut options = NodeOptions::with_initial_conf(ENDPOINT.parse().expect("a configuration"));
    options.apply_task_mode = mode;
    options
}

/// What became of every task, and what was applied. Most locks are not shuttle's: looking on changes no schedule.
#[derive(Default)]
struct Ledger {
    /// Outcomes so far.
    told: Mutex<usize>,
    more: Condvar,
    outcomes: parking_lot::Mutex<FxHashMap<u64, Vec<ApplyResult>>>,
    applied: parking_lot::Mutex<Vec<u64>>,
    shutdowns: parking_lot::Mutex<usize>,
}

impl Ledger {
    fn task(self: &Arc<Ledger>, tag: u64) -> Task {
        let ledger = Arc::clone(self);
        Task::with_closure(Bytes::copy_from_slice(&tag.to_be_bytes()), move |outcome| {
            ledger.outcomes.lock().entry(tag).or_default().push(outcome);
            *ledger.told.lock() += 1;
            ledger.more.notify_all();
        })
    }

    /// The outcome of a task, which has one and no more.
    fn outcome(&self, tag: u64) -> ApplyResult {
        let outcomes = self.outcomes.lock();
        let found = outcomes.get(&tag).map_or(&[][..], Vec::as_slice);
        assert_eq!(found.len(), 1, "outcomes of task {tag}: {found:?}");
        found[0].clone()
    }

    /// Waits until all tasks that were ever made, `count` of them, have an outcome.
    fn await_outcomes(&self, count: usize) {
        let mut told = self.told.lock();
        while *told < count {
            self.more.wait(&mut told);
        }
    }

    /// Each of the tasks has one outcome, and what was applied agrees with it.
    fn check(&self, tags: impl std::iter::Iterator<Item = u64>) -> Vec<ApplyResult> {
        let applied = self.applied.lock().clone();
        for tag in &applied {
            assert_eq!(applied.iter().filter(|other| *other == tag).count(), 1, "task {tag} applied once");
        }
        let check = |tag| {
            let outcome = self.outcome(tag);
            match &outcome {
                Ok(_) => assert!(applied.contains(&tag), "task {tag} was answered and not applied"),
                Err(error) if error.is_definite() => {
                    assert!(!applied.contains(&tag), "task {tag} was refused ({error}) and applied");
                }
                Err(_) => {}
            }
            outcome
        };
        tags.map(check).collect()
    }
}

/// Tag of a task that nobody counts.
const LAST: u64 = u64::MAX;

/// Applies a task and waits for its outcome.
fn propose(node: &Node, tag: u64) -> ApplyResult {
    node.propose(tag.to_be_bytes().to_vec()).wait(Duration::MAX)
}

/// Notes what it applies; a gate may hold it up, and one command may make it panic.
struct Recorder {
    ledger: Arc<Ledger>,
    gate: Option<Arc<Gate>>,
    panics_at: Option<u64>,
    /// Lets all others go first.
    yields: bool,
    /// Opened once the group leads.
    leads: Arc<Gate>,
    /// A gate that is opened once this task is applied.
    opens: Option<(u64, Arc<Gate>)>,
}

impl Recorder {
    fn new(ledger: &Arc<Ledger>) -> Recorder {
        let leads = Arc::new(Gate::default());
        leads.close();
        Recorder {
            ledger: Arc::clone(ledger),
            gate: None,
            panics_at: None,
            yields: false,
            leads,
            opens: None,
        }
    }
}

impl StateMachine for Recorder {
    fn on_leader_start(&mut self, _: Term) {
        self.leads.open();
    }

    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        if self.yields {
            shuttle::thread::yield_now();
        }
        while let Some(entry) = iter.next() {
            let tag = u64::from_be_bytes(entry.data[..].try_into().expect("a tag"));
            if self.panics_at == Some(tag) {
                // Without the panic hook, which has nothing to say here.
                resume_unwind(Box::new("scripted"));
            }
            if tag != LAST {
                self.ledger.applied.lock().push(tag);
            }
            if let Some((at, gate)) = &self.opens
                && *at == tag
            {
                gate.open();
            }
        }
    }

    fn on_shutdown(&mut self) {
        *self.ledger.shutdowns.lock() += 1;
    }
}

/// Holds a stage up while it is closed; open at first.
#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            self.opened.wait(&mut closed);
        }
    }

    fn close(&self) {
        *self.closed.lock() = true;
    }

    fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }
}

/// The store in memory, with a gate before each write, a failure after some, and reads that are counted.
#[derive(Default)]
struct ScriptedStore {
    inner: MemoryLogStorage,
    gate: Option<Arc<Gate>>,
    writes_until_failure: Option<usize>,
    reads: Arc<Reads>,
}

/// Counts reads, and may hold them up.
#[derive(Default)]
struct Reads {
    count: AtomicUsize,
    gate: Gate,
}

impl ScriptedStore {
    fn gated(gate: Arc<Gate>) -> StoreOptions {
        ScriptedStore { gate: Some(gate), ..ScriptedStore::default() }.into_options()
    }

    fn failing_after(writes: usize) -> StoreOptions {
        ScriptedStore { writes_until_failure: Some(writes), ..ScriptedStore::default() }.into_options()
    }

    fn reading(reads: Arc<Reads>) -> StoreOptions {
        ScriptedStore { reads, ..ScriptedStore::default() }.into_options()
    }

    fn into_options(self) -> StoreOptions {
        StoreOptions::Custom { storage: Box::new(self), blank: true }
    }
}

struct ScriptedReader(Arc<dyn LogReader>, Arc<Reads>);

impl LogReader for ScriptedReader {
    fn read(
        &self,
        group: GroupKey,
        from: LogIndex,
        to: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Arc<EntryChunk>>, StorageError> {
        self.1.count.fetch_add(1, Ordering::Relaxed);
        self.1.gate.pass();
        self.0.read(group, from, to, max_bytes)
    }
}

impl LogStorage for ScriptedStore {
    fn open_groups(
        &mut self,
        groups: &[GroupOpening],
    ) -> Result<Vec<Result<OpenedGroup, StorageError>>, StorageError> {
        self.inner.open_groups(groups)
    }

    fn remove_group(&mut self, group: GroupKey) -> Result<(), StorageError> {
        self.inner.remove_group(group)
    }

    fn stored_groups(&self) -> Vec<StoredGroup> {
        self.inner.stored_groups()
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        if let Some(left) = &mut self.writes_until_failure {
            if *left == 0 {
                return Err(StorageError::Poisoned("scripted".into()));
            }
            *left -= 1;
        }
        self.inner.submit(batch)
    }

    fn complete(&mut self) -> Result<Vec<RefusedWrites>, StorageError> {
        self.inner.complete()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(ScriptedReader(self.inner.reader(), Arc::clone(&self.reads)))
    }
}

/// Starts a group whose state machine notes what it applies.
fn start_group(host: &RaftHost, name: &str, mode: ApplyTaskMode, ledger: &Arc<Ledger>) -> Node {
    start_with(host, name, node_options(mode), Recorder::new(ledger))
}

/// Starts a group and waits until it leads.
fn start_with(host: &RaftHost, name: &str, options: NodeOptions, machine: Recorder) -> Node {
    let leads = Arc::clone(&machine.leads);
    let (group, server) = (name.parse().expect("a name"), ENDPOINT.parse().expect("a peer"));
    let node = host.start_group(group, server, options, Box::new(machine)).expect("the group starts");
    leads.pass();
    node
}

/// A thread that applies the tasks one after the other.
fn producer(node: &Node, ledger: &Arc<Ledger>, tags: std::ops::Range<u64>) -> JoinHandle<()> {
    let (node, ledger) = (node.clone(), Arc::clone(ledger));
    spawn(move || {
        for tag in tags {
            // The refusal is the outcome, too.
            let _ = node.apply(ledger.task(tag));
        }
    })
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        thread.join().expect("the thread did not panic");
    }
}

fn yield_until(done: impl Fn() -> bool) {
    while !done() {
        shuttle::thread::yield_now();
    }
}
