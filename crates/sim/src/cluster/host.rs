//! One host: what survives its processes, and the process that runs on it, with every stage of the pipeline.

use std::collections::VecDeque;
use std::sync::Arc;

use ringraft::handler::{
    ApplyTaskHandler, Control, DiskWrite, FsmTask, GroupHandle, GroupProgress, LaneEvent, LaneOutput,
    LogEntryAndClosureHandler, ProgressBoard, ReadTask, StableClosureEventHandler, WriteQueue,
};
use ringraft::rpc::{LaneSink, Outbox as Dispatcher, Processors, RoutingTable, UserProcessors};
use ringraft_core::{CoreOptions, PeerId, RaftError, Status};
use ringraft_net::{Endpoint, RequestContext};
use ringraft_storage::{
    LogReader, LogStorage, MemoryDisk, MemoryLogStorage, SegmentLog, StorageError, WriteBatch,
};
use rustc_hash::FxHashMap;

use super::checks::Answers;
use super::clock::HostClock;
use super::damage::Proof;
use super::machine::Values;
use super::network::Arrival;
use super::plan::{MS, Plan, StoreKind};
use super::random::Random;
use super::transport::SimTransport;
use super::world::{Event, World, broken};
use crate::checkers::Violation;

/// A log store of one of the kinds.
pub(super) enum Store {
    Memory(MemoryLogStorage),
    Segment(Box<SegmentLog>),
}

impl Store {
    pub(super) fn as_log(&mut self) -> &mut dyn LogStorage {
        match self {
            Store::Memory(store) => store,
            Store::Segment(store) => &mut **store,
        }
    }
}

/// State-machine workers of a host.
pub(super) const WORKERS: usize = 2;

/// The worker that a group is pinned to, on every host the same: its replicas are slow together, which is the hardest case.
pub(super) fn worker_of(group: usize) -> usize {
    group % WORKERS
}

/// A state-machine worker.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) fsm: ApplyTaskHandler,
    pub(super) ring: VecDeque<Vec<FsmTask>>,
    pub(super) busy: bool,
}

/// What runs between two crashes.
pub(super) struct Process {
    pub(super) transport: Arc<SimTransport>,
    pub(super) processors: Processors,
    pub(super) routes: Arc<RoutingTable>,
    pub(super) lane: LogEntryAndClosureHandler,
    pub(super) out: LaneOutput,
    /// How much of `out.disk` the checkers have seen: writes, and operations of the last.
    pub(super) seen_disk: (usize, usize),
    /// How much of `out.fsm` they have seen, by worker.
    pub(super) seen_fsm: [usize; WORKERS],
    /// What the lane takes in every turn.
    pub(super) control: VecDeque<LaneEvent>,
    /// Tasks and reads, by worker of their group.
    pub(super) tasks: [VecDeque<LaneEvent>; WORKERS],
    pub(super) board: ProgressBoard,
    pub(super) failed: Vec<(RequestContext, Status)>,
    pub(super) lane_dispatcher: Dispatcher,
    pub(super) disk_dispatcher: Dispatcher,
    pub(super) disk: StableClosureEventHandler,
    pub(super) store: Store,
    pub(super) reader: Arc<dyn LogReader>,
    pub(super) disk_ring: VecDeque<Vec<DiskWrite>>,
    /// What the disk stage has taken and not written.
    pub(super) disk_queue: WriteQueue,
    /// The batch that is being written, and whether the store knows of it.
    pub(super) writing: Option<(WriteBatch, bool)>,
    /// The disk was full when it was submitted.
    pub(super) waits_for_room: bool,
    /// What the disk stage has made durable and not told the lane yet.
    pub(super) telling: Option<Vec<(GroupHandle, Arc<GroupProgress>, u64)>>,
    pub(super) batches: u64,
    pub(super) workers: [Worker; WORKERS],
    pub(super) read_ring: VecDeque<ReadTask>,
    pub(super) read_busy: bool,
    /// Handle of each group that runs here.
    pub(super) handles: Vec<Option<GroupHandle>>,
    /// What each group's state machine holds, for reads by read index.
    pub(super) registers: Vec<Option<Arc<Values>>>,
    pub(super) by_handle: FxHashMap<GroupHandle, usize>,
    pub(super) by_key: FxHashMap<ringraft_storage::GroupKey, usize>,
    /// Group in each slot of the lane.
    pub(super) by_slot: Vec<Option<usize>>,
    pub(super) answers: Answers,
    pub(super) next_turn: Option<u64>,
    /// The process ends when its stages are empty, and comes back after so long.
    pub(super) stopping: Option<u64>,
}

/// A host and its disk.
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    pub(super) peer: PeerId,
    pub(super) disk: MemoryDisk,
    pub(super) memory: Option<MemoryLogStorage>,
    pub(super) clock: HostClock,
    pub(super) life: u32,
    pub(super) process: Option<Box<Process>>,
    pub(super) arrivals: VecDeque<Arrival>,
    pub(super) paused_until: u64,
    /// Until when the state machines of each worker stand still.
    pub(super) still_until: [u64; WORKERS],
    /// Until when it reads one request a turn only.
    pub(super) slow_reader: u64,
    /// How long the disk stage stands still before it next says what is durable.
    pub(super) stall: u64,
    /// Until when writes take how long.
    pub(super) slow_disk: Option<(u64, u64)>,
    /// The disk loses power with the operation of this number.
    pub(super) power_off_at: Option<u64>,
    /// A fault of the disk may show: a store that fails is no bug.
    pub(super) disk_suspect: bool,
    /// No more bytes fit on the disk, also after a loss of power.
    pub(super) disk_full: bool,
    /// Whether a restart is under way, so that a second crash plans none.
    pub(super) returning: bool,
    /// It stays down: left dead in the last phase, or its store was refused.
    pub(super) left_dead: bool,
    /// Its disk was lost at least once: a blank one is started as *rejoin*.
    pub(super) wiped: bool,
    /// The highest creation number that had been given when its disk was lost last.
    pub(super) rejoined_after: u64,
    /// Its disk may be about to damage something.
    pub(super) damage_planned: bool,
    /// What its store can know of damage.
    pub(super) proof: Proof,
    /// Somebody is about to end the process, for something in it has failed.
    pub(super) replacing: bool,
}

/// A blank disk. Where the store keeps batches in blocks of their own, the disk may spoil whole blocks.
pub(super) fn new_disk(plan: &Plan) -> MemoryDisk {
    let disk = MemoryDisk::new();
    if let StoreKind::Segment(options) = &plan.store {
        disk.tear_blocks(options.block_bytes as usize);
    }
    disk
}

impl Host {
    pub(super) fn new(number: usize, clock: HostClock, plan: &Plan) -> Host {
        let peer = crate::script::format::peer_of(number as u32);
        Host {
            endpoint: Endpoint(peer.endpoint().into()),
            peer,
            disk: new_disk(plan),
            memory: Some(MemoryLogStorage::new()),
            clock,
            life: 0,
            process: None,
            arrivals: VecDeque::new(),
            paused_until: 0,
            still_until: [0; WORKERS],
            slow_reader: 0,
            stall: 0,
            slow_disk: None,
            power_off_at: None,
            disk_suspect: false,
            disk_full: false,
            returning: false,
            left_dead: false,
            wiped: false,
            rejoined_after: 0,
            damage_planned: false,
            proof: Proof::default(),
            replacing: false,
        }
    }

    pub(super) fn cut_power_after(&mut self, operations: u64) {
        self.disk.power_off_after(operations);
        self.power_off_at = Some(self.disk.operations() + operations);
    }

    /// Whether the power went with one of the last operations.
    pub(super) fn power_is_off(&self) -> bool {
        self.power_off_at.is_some_and(|at| self.disk.operations() > at)
    }
}

impl World {
    pub(super) fn transport(&self, host: usize) -> Option<Arc<SimTransport>> {
        self.hosts[host].process.as_ref().map(|process| Arc::clone(&process.transport))
    }

    /// Starts the process of a host over whatever its disk holds.
    pub(super) fn start(&mut self, host: usize) -> Result<(), Violation> {
        if self.hosts[host].process.is_some() || self.hosts[host].left_dead {
            return Ok(());
        }
        self.hosts[host].returning = false;
        self.hosts[host].replacing = false;
        // A read that lies once passes for a torn tail when a store is opened (`docs/testing.md`).
        self.hosts[host].disk.corrupt_read_after(None);
        let opened = match &self.plan.store {
            StoreKind::Memory => {
                let store = self.hosts[host].memory.take().unwrap_or_default();
                Ok(Store::Memory(store.reopen()))
            }
            StoreKind::Segment(options) => {
                let disk = Arc::new(self.hosts[host].disk.clone());
                SegmentLog::open(disk, options.clone()).map(|log| Store::Segment(Box::new(log)))
            }
        };
        // A file that is prepared for later may be what the power went with; the store was open by then.
        let opened = match opened {
            Ok(_) if self.hosts[host].power_is_off() => {
                Err(StorageError::Poisoned("the power went while the store was opened".to_owned()))
            }
            opened => opened,
        };
        let damaged = self.is_damaged(host);
        let started = opened.and_then(|store| self.open_process(host, store));
        match started {
            Ok(Ok(())) => {
                if damaged {
                    self.mark("damaged store started");
                }
                Ok(())
            }
            Ok(Err(_)) if damaged && self.hosts[host].proof.may_miss(&self.hosts[host].disk) => {
                self.refused(host, "damage of the last batch passes for a torn write");
                self.drain_outcomes()
            }
            Ok(Err(violation)) => Err(violation),
            Err(StorageError::Damaged { .. }) if damaged => {
                self.refused(host, "damaged store refused");
                self.drain_outcomes()
            }
            Err(error) => self.start_failed(host, &error),
        }
    }

    /// The store could not be opened: with a fault that explains it the host tries again later.
    fn start_failed(&mut self, host: usize, error: &StorageError) -> Result<(), Violation> {
        self.note(|| format!("host {host} cannot start: {error}"));
        let mut r = self.random.fork(self.now);
        let io = matches!(error, StorageError::Io { .. } | StorageError::Poisoned(_));
        let explained = self.hosts[host].power_is_off() || self.hosts[host].disk_suspect;
        if !io || !explained {
            return Err(broken("recovery", format!("host {host} cannot open its store: {error}")));
        }
        if self.hosts[host].power_is_off() {
            self.mark("power cut inside recovery");
        }
        let power = self.hosts[host].power_is_off().then(|| r.next());
        let away = r.sized(MS, self.plan.election_timeout_ms * MS);
        self.crash(host, power, away, &mut r);
        Ok(())
    }

    pub(super) fn core_options(&self, group: usize, host: usize) -> CoreOptions {
        let plan = &self.plan;
        let conf = self.initial_conf(group, host);
        let mut options = CoreOptions::new(self.lives.group_id(group), self.hosts[host].peer.clone(), conf);
        options.rejoin = self.rejoins(group, host);
        options.lease_reads = plan.operators.lease_reads;
        options.read_index_timeout_ms = plan.rpc_timeout_ms;
        options.catchup_margin = plan.operators.catchup_margin;
        options.disk_stall_timeout_ms = plan.operators.disk_stall_ms;
        options.election_timeout_ms = plan.election_timeout_ms;
        if plan.operators.uneven {
            // A change of options that goes from host to host: each life has others.
            let mut r = self.random.fork(u64::from(self.hosts[host].life) << 32 | 1 << 24 | host as u64);
            let timeouts = [plan.shortest_timeout_ms(), plan.election_timeout_ms];
            options.election_timeout_ms = timeouts[r.index(2)];
            options.lease_reads = r.chance(950);
        }
        options.max_election_delay_ms = plan.election_delay_ms;
        options.election_heartbeat_factor = plan.heartbeat_factor;
        options.step_down_when_vote_timedout = plan.step_down_when_vote_timedout;
        options.max_entries_size = plan.entries_size;
        options.max_body_size = plan.body_size;
        options.max_replicator_inflight_msgs = plan.inflight_msgs;
        options.max_replicator_inflight_bytes = plan.inflight_bytes;
        options.rpc_default_timeout_ms = plan.rpc_timeout_ms;
        options.max_unstable_entries = plan.unstable_entries;
        options.max_unstable_bytes = plan.unstable_bytes();
        options.max_unapplied_entries = plan.unapplied_entries;
        options.max_unapplied_bytes = plan.unapplied_bytes;
        options.max_tail_bytes = plan.tail_bytes;
        options
    }

    fn open_process(&mut self, host: usize, mut store: Store) -> Result<Result<(), Violation>, StorageError> {
        let transport = Arc::new(SimTransport::new(self.plan.net.outbox));
        transport.take_fresh(self.now);
        let routes = Arc::new(RoutingTable::in_cluster(Arc::clone(&self.gate)));
        let sink = LaneSink::Local { control: Vec::new(), entries: Vec::new(), room: 0 };
        let dynamic: Arc<dyn ringraft_net::Transport> = Arc::clone(&transport) as _;
        let processors = Processors::new(
            Arc::clone(&routes),
            Arc::<UserProcessors>::default(),
            Arc::clone(&dynamic),
            sink,
        );
        self.removals_go_on(host, store.as_log())?;
        let reader = store.as_log().reader();
        let groups = self.plan.groups.len();
        let mut process = Box::new(Process {
            transport,
            processors,
            routes,
            lane: LogEntryAndClosureHandler::new(0, self.plan.limits, Arc::clone(&dynamic)),
            out: LaneOutput::new(WORKERS, 1),
            seen_disk: (0, 0),
            seen_fsm: [0; WORKERS],
            control: VecDeque::new(),
            tasks: Default::default(),
            board: ProgressBoard::new(),
            failed: Vec::new(),
            lane_dispatcher: Dispatcher::new(Arc::clone(&dynamic)),
            disk_dispatcher: Dispatcher::new(dynamic),
            disk: StableClosureEventHandler::new(),
            store,
            reader,
            disk_ring: VecDeque::new(),
            disk_queue: WriteQueue::new(),
            writing: None,
            waits_for_room: false,
            telling: None,
            batches: 0,
            workers: Default::default(),
            read_ring: VecDeque::new(),
            read_busy: false,
            handles: vec![None; groups],
            registers: vec![None; groups],
            by_handle: FxHashMap::default(),
            by_key: FxHashMap::default(),
            by_slot: Vec::new(),
            answers: Answers::default(),
            next_turn: None,
            stopping: None,
        });
        let life = self.hosts[host].life;
        let now = self.hosts[host].clock.now(self.now);
        for group in 0..groups {
            if !self.plan.groups[group].contains(&host) || !self.lives.runs(group, host) {
                continue;
            }
            if let Err(violation) = self.open_replica(&mut process, host, group)? {
                return Ok(Err(violation));
            }
        }
        process.lane.end_turn(now, &mut process.out);
        self.note(|| format!("host {host} starts, life {life}"));
        self.hosts[host].process = Some(process);
        self.wake(host, 1);
        self.after(self.plan.election_timeout_ms * MS, Event::Sweep(host, life));
        Ok(self.observe_turn(host))
    }

    /// The process is gone. With `power` the machine loses power, too, and what was not synced survives by that chance.
    /// It comes back after `away`, unless something else brings it back already.
    pub(super) fn crash(&mut self, host: usize, power: Option<u64>, away: u64, r: &mut Random) {
        let was_running = self.hosts[host].process.is_some();
        let process = self.hosts[host].process.take();
        self.hosts[host].life += 1;
        self.hosts[host].arrivals.clear();
        self.drop_ends(host, r);
        if let Some(process) = process {
            let Process { store, disk_ring, writing, by_key, .. } = *process;
            let submitted = writing.filter(|(_, submitted)| *submitted).map(|(batch, _)| batch);
            self.oracle.crashed(host, submitted.as_ref(), &by_key);
            drop(disk_ring);
            if let Store::Memory(store) = store {
                self.hosts[host].memory = Some(store);
            }
        }
        if let Some(seed) = power {
            self.hosts[host].disk.crash(seed);
            self.hosts[host].power_off_at = None;
            self.hosts[host].damage_planned = false;
            self.hosts[host].disk_suspect = self.hosts[host].disk_full;
            self.oracle.lost_power(host);
        }
        if was_running {
            self.mark(if power.is_some() { "recovered after power loss" } else { "recovered after kill" });
        }
        self.note(|| format!("host {host} is down, power {}", power.is_some()));
        if !self.hosts[host].left_dead && !std::mem::replace(&mut self.hosts[host].returning, true) {
            self.after(away, Event::Start(host));
        }
    }

    /// The process is asked to end; it comes back after `away`.
    pub(super) fn begin_shutdown(&mut self, host: usize, away: u64) {
        let Some(process) = &mut self.hosts[host].process else { return };
        if process.stopping.is_none() {
            process.stopping = Some(away);
            process.control.push_back(LaneEvent::Control(Box::new(Control::Stop)));
            self.wake(host, 1);
        }
    }

    /// Ends a process that was asked to, once all of its stages are empty.
    pub(super) fn end_if_stopped(&mut self, host: usize) -> Result<(), Violation> {
        let Some(process) = &mut self.hosts[host].process else { return Ok(()) };
        let Some(away) = process.stopping else { return Ok(()) };
        let idle = process.lane.is_stopping()
            && process.out.is_empty()
            && process.control.is_empty()
            && process.tasks.iter().all(VecDeque::is_empty)
            && process.disk_is_idle()
            && process.writing.is_none()
            && process.telling.is_none()
            && process.workers.iter().all(|worker| worker.ring.is_empty() && !worker.busy)
            && process.read_ring.is_empty();
        if !idle {
            return Ok(());
        }
        process.workers.iter_mut().for_each(|worker| worker.fsm.shutdown());
        // What was still arriving belongs to nobody; what was taken in has been answered.
        if process.disk.failed().is_none() {
            let ended = process.answers.ended();
            ended.map_err(|what| broken("one answer a request", format!("host {host} {what}")))?;
        }
        let mut r = self.random.fork(self.now ^ 77);
        self.crash(host, None, away, &mut r);
        self.drain_outcomes()
    }

    /// An operator ends the process of this host soon, and starts it again.
    pub(super) fn replace_soon(&mut self, host: usize) {
        if !std::mem::replace(&mut self.hosts[host].replacing, true) {
            let life = self.hosts[host].life;
            let delay = self.random.sized(1, self.plan.election_timeout_ms * MS);
            self.after(delay, Event::Replace(host, life));
        }
    }

    /// Says that the store has failed and lets the process end soon, as an operator would.
    pub(super) fn store_failed(&mut self, host: usize, status: &Status) -> Result<(), Violation> {
        self.mark("store failed");
        self.note(|| format!("the store of host {host} fails: {status}"));
        let explained = self.hosts[host].disk_suspect || self.is_damaged(host);
        if status.error != RaftError::Io || !explained {
            return Err(broken(
                "store",
                format!("the store of host {host} failed without a fault: {status}"),
            ));
        }
        self.replace_soon(host);
        Ok(())
    }
}
