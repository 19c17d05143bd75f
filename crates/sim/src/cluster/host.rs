//! One host: what survives its processes, and the process that runs on it, with every stage of the pipeline.

use std::collections::VecDeque;
use std::sync::Arc;

use ringraft::handler::{
    ApplyTaskHandler, DiskWrite, FsmTask, GroupHandle, GroupProgress, LaneEvent, LaneOutput,
    LogEntryAndClosureHandler, ProgressBoard, ReadTask, StableClosureEventHandler, WriteQueue,
};
use ringraft::rpc::{Outbox as Dispatcher, Processors, RoutingTable};
use ringraft_core::{PeerId, Status};
use ringraft_net::{ConnectionClass, Endpoint, LinkId, RequestContext};
use ringraft_proto::{RequestFrame, ResponseFrame};
use ringraft_storage::{LogReader, LogStorage, MemoryDisk, MemoryLogStorage, SegmentLog, WriteBatch};
use rustc_hash::FxHashMap;

use super::checks::Answers;
use super::clock::HostClock;
use super::damage::Proof;
use super::machine::Values;
use super::plan::{Plan, StoreKind};
use super::transport::{ConnectionId, SimTransport};

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

/// What has arrived at a host and waits for its next turn.
pub(super) enum Arrival {
    Request(ConnectionId, RequestFrame),
    Response(RequestContext, ResponseFrame),
    Failed(RequestContext, &'static str),
    Connected(LinkId, Endpoint, ConnectionClass),
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
