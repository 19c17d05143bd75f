//! The three handlers driven by hand, as a simulator does it: no thread, no clock, no socket, no file.

mod budget;
mod lease_reads;
mod lives;
mod log_lines;
mod reads_in_time;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use ringraft_core::{
    AppendEntriesRequest, AppendEntriesResponse, AppendKind, Configuration, CoreOptions, Extensions, GroupId,
    LogId, MembershipChange, NodeState, PeerId, RaftError, RaftRequest, RaftResponse, RequestVoteRequest,
    Status, Term, Time, TimeoutNowRequest,
};
use ringraft_net::{ConnectionClass, Endpoint, LinkId, ReplyHandle, RequestContext, SendError, Transport};
use ringraft_proto::OutFrame;
use ringraft_storage::{LogStorage, MemoryLogStorage, StorageError};

use crate::handler::*;
use crate::state_machine::StateMachine;
use crate::state_machine::iterator::Iterator;
use crate::task::completion::{Applied, ApplyError, Completion, CompletionSink, SinkId};

/// Gives out links and sends nothing. Keeps what it is told of others.
#[derive(Default)]
struct NoTransport {
    links: AtomicU32,
    /// Who announced extensions in an answer, or stopped to.
    announced: Mutex<Vec<(String, bool)>>,
    /// The member in whose name each request came, and what it announced.
    spoke: Mutex<Vec<(Option<String>, Option<bool>)>>,
}

impl Transport for NoTransport {
    fn link(&self, _: &Endpoint, _: ConnectionClass) -> LinkId {
        LinkId(self.links.fetch_add(1, Ordering::Relaxed))
    }

    fn request(
        &self,
        _: LinkId,
        _: RequestContext,
        _: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        Ok(())
    }

    fn reply(&self, _: ReplyHandle, _: OutFrame) -> Result<(), SendError> {
        Ok(())
    }

    fn member_spoke(
        &self,
        _: ReplyHandle,
        announced: Option<bool>,
        member: &mut dyn FnMut() -> Option<Endpoint>,
    ) {
        self.spoke.lock().push((member().map(|at| at.to_string()), announced));
    }

    fn extensions_announced(&self, endpoint: &Endpoint, announced: bool) {
        self.announced.lock().push((endpoint.to_string(), announced));
    }

    fn flush(&self, _: LinkId) {}

    fn flush_reply(&self, _: ReplyHandle) {}
}

type Log = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Writes every command under its group's name into one list.
struct Recorder(String, Log);

impl StateMachine for Recorder {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while let Some(entry) = iter.next() {
            self.1.lock().push((self.0.clone(), entry.data.to_vec()));
        }
    }
}

#[derive(Default)]
struct Outcomes(Mutex<Vec<(u64, Result<u64, ApplyError>)>>);

impl CompletionSink for Outcomes {
    fn complete(&self, tag: u64, outcome: Result<&Applied, &ApplyError>) {
        self.0.lock().push((tag, outcome.map(|applied| applied.index).map_err(Clone::clone)));
    }
}

/// One host of single-voter groups, every stage on this thread.
struct World {
    now: Time,
    transport: Arc<NoTransport>,
    lane: LogEntryAndClosureHandler,
    disk: StableClosureEventHandler,
    workers: [ApplyTaskHandler; 2],
    /// Workers that stand still.
    still: [bool; 2],
    /// What stands before the workers.
    rings: [Vec<FsmTask>; 2],
    /// There is always a slot for more before a worker that stands still.
    deep_rings: bool,
    storage: MemoryLogStorage,
    board: ProgressBoard,
    out: LaneOutput,
    replies: Vec<OutReply>,
    log: Log,
    outcomes: Arc<Outcomes>,
    sink: SinkId,
    progress: Vec<(GroupId, Arc<GroupProgress>)>,
    statuses: Vec<Arc<NodeStatus>>,
    max_unapplied_entries: u64,
    members: Configuration,
    /// How often the worker had to wake the owner.
    wakes: u32,
    /// Learns from every group that is opened from now on; it is never heard of.
    learner: Option<PeerId>,
    /// How often the disk had to.
    disk_wakes: u32,
    lease_reads: bool,
    /// Creation number of groups that are opened from now on.
    creation: u64,
}

const PEER: &str = "a:1";

impl World {
    fn new(limits: LaneLimits) -> World {
        let outcomes = Arc::new(Outcomes::default());
        let transport = Arc::<NoTransport>::default();
        World {
            now: Time(0),
            lane: LogEntryAndClosureHandler::new(0, limits, Arc::clone(&transport) as _),
            transport,
            disk: StableClosureEventHandler::new(),
            workers: [ApplyTaskHandler::new(), ApplyTaskHandler::new()],
            still: [false; 2],
            rings: [Vec::new(), Vec::new()],
            deep_rings: false,
            storage: MemoryLogStorage::new(),
            board: ProgressBoard::new(),
            out: LaneOutput::new(2, 1),
            replies: Vec::new(),
            log: Log::default(),
            sink: SinkId::register(outcomes.clone()),
            outcomes,
            progress: Vec::new(),
            statuses: Vec::new(),
            max_unapplied_entries: 1000,
            members: PEER.parse().unwrap(),
            wakes: 0,
            learner: None,
            disk_wakes: 0,
            lease_reads: false,
            creation: 0,
        }
    }

    fn open(&mut self, name: &str) -> GroupHandle {
        self.open_at(name, 0)
    }

    fn open_at(&mut self, name: &str, worker: u16) -> GroupHandle {
        self.try_open(name, worker).expect("opened")
    }

    fn try_open(&mut self, name: &str, worker: u16) -> Result<GroupHandle, Status> {
        let (group, peer): (GroupId, PeerId) = (name.parse().unwrap(), PEER.parse().unwrap());
        let (key, recovered) = self.storage.open_group(&group).unwrap();
        let names = GroupNames::new(group.clone(), peer.clone(), self.creation);
        let (progress, status) = (Arc::new(GroupProgress::default()), Arc::new(NodeStatus::default()));
        self.progress.push((group.clone(), progress.clone()));
        self.statuses.push(status.clone());
        let machine = Box::new(Recorder(name.to_owned(), self.log.clone()));
        let fsm = FsmGroup::new(names.clone(), machine, progress.clone(), status.clone(), 0);
        let mut conf = self.members.clone();
        conf.learners.extend(self.learner.clone());
        let mut options = CoreOptions::new(group, peer, conf);
        options.max_unapplied_entries = self.max_unapplied_entries;
        options.lease_reads = self.lease_reads;
        let open = OpenGroup {
            names,
            key,
            options,
            recovered,
            seed: 7,
            worker,
            progress,
            status,
            fsm: Box::new(fsm),
        };
        let (answer, opened) = promise();
        self.turn(vec![LaneEvent::Control(Box::new(Control::Open { group: Box::new(open), answer }))]);
        self.settle();
        opened.wait(Some(std::time::Duration::ZERO)).expect("answered at once")
    }

    /// A turn that finds these events, all of which there is room for.
    fn turn(&mut self, events: Vec<LaneEvent>) {
        let mut progress = Vec::new();
        assert_eq!(self.board.take(&mut progress), None);
        self.lane.begin_turn(self.now, &mut self.out);
        self.lane.on_progress(self.now, &mut progress, &mut self.out);
        for event in events {
            match event {
                LaneEvent::Apply(_) | LaneEvent::Read(_) => {
                    self.lane.on_tasks(self.now, 0, &mut vec![event], &mut self.out);
                }
                event => self.lane.on_batch(self.now, &mut vec![event], &mut self.out),
            }
        }
        self.lane.on_tick(self.now, &mut self.out);
        self.lane.end_turn(self.now, &mut self.out);
        self.board.set_starved(self.lane.is_starved());
        self.replies.append(&mut self.out.replies);
    }

    /// One pass of disk and worker over what the lane has put out.
    fn stages(&mut self) {
        if self.learner.is_some() {
            // Nobody carries them; other tests look at what is sent.
            self.out.sends.clear();
        }
        let batch = self.disk.on_batch(&mut self.out.disk);
        let result = self.storage.submit(&batch).and_then(|()| self.storage.complete());
        let mut stable = StableOutput::default();
        self.disk.on_synced(result, &mut stable);
        self.replies.append(&mut stable.replies);
        self.out.sends.append(&mut stable.sends);
        for (handle, progress, sequence) in stable.stable {
            self.disk_wakes += u32::from(self.board.stable(handle, &progress, sequence));
        }
        let mut applied = ApplyOutput::default();
        for worker in 0..2 {
            if self.deep_rings || !self.still[worker] {
                self.rings[worker].append(&mut self.out.fsm[worker]);
            }
            if !self.still[worker] {
                self.workers[worker].on_batch(&mut self.rings[worker], &mut applied);
            }
        }
        for (handle, progress, index) in applied.applied {
            self.wakes += u32::from(self.board.applied(handle, &progress, index));
        }
        for (handle, progress, status) in applied.failed {
            self.board.group_failed(handle, &progress, status);
        }
    }

    /// What the store answers to the reads that were asked for.
    fn reads(&mut self) -> Vec<LaneEvent> {
        let reader = self.storage.reader();
        let reads = std::mem::take(&mut self.out.reads[0]).into_iter();
        let answer = |ReadTask { handle, key, read }: ReadTask| {
            let result = reader.read(key, read.from, read.to, read.max_bytes);
            LaneEvent::LogRead { handle, ticket: read.ticket, result: Box::new(result) }
        };
        reads.map(answer).collect()
    }

    /// Until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.stages();
            let reads = self.reads();
            self.turn(reads);
            let idle = (0..2).all(|worker| self.still[worker] || self.out.fsm[worker].is_empty());
            let idle = idle && self.out.disk.is_empty() && self.out.reads[0].is_empty();
            if idle && !self.board.is_marked() && !self.lane.can_go_on(&self.out) {
                return;
            }
        }
        panic!("the stages do not come to rest");
    }

    fn task(&self, handle: GroupHandle, tag: u64) -> LaneEvent {
        let data = Bytes::from(tag.to_string());
        LaneEvent::Apply(ApplyEvent::new(handle, None, data, Completion::sink(self.sink, tag)))
    }

    fn take_outcomes(&self) -> Vec<(u64, Result<u64, ApplyError>)> {
        std::mem::take(&mut *self.outcomes.0.lock())
    }

    fn describe(&mut self, handle: GroupHandle) -> Option<ringraft_core::NodeDescription> {
        let (answer, described) = promise();
        self.turn(vec![LaneEvent::Control(Box::new(Control::Describe { handle, answer }))]);
        described.wait(Some(std::time::Duration::ZERO)).expect("answered at once")
    }

    fn vote_request(&self, handle: GroupHandle, term: Term, pre_vote: bool) -> LaneEvent {
        let last_log = LogId::new(u64::from(!pre_vote) * 1000, term - 1);
        let request = RequestVoteRequest {
            term,
            last_log,
            pre_vote,
            transfer: false,
            extensions: Extensions::NONE,
            conf_index: 0,
        };
        LaneEvent::Request(Box::new(RequestEvent {
            handle,
            from: "b:1".parse().unwrap(),
            reply: ReplyHandle { connection: 1, generation: 1, request: 9 },
            codec: 1,
            request: RaftRequest::RequestVote(request),
        }))
    }
}

#[test]
fn damage_that_a_read_finds_fails_the_group_and_another_error_does_not() {
    let mut world = World::new(LaneLimits::default());
    let (one, two) = (world.open("g"), world.open("h"));
    let read = |handle, error| LaneEvent::LogRead {
        handle,
        ticket: ringraft_core::Ticket(99),
        result: Box::new(Err(error)),
    };
    let damaged = StorageError::Damaged { path: "f".into(), offset: 7, what: "checksum".into() };
    let io = StorageError::Io {
        operation: "read",
        path: "f".into(),
        message: "EIO".into(),
        kind: ringraft_storage::IoKind::Other,
    };
    world.turn(vec![read(one, damaged), read(two, io)]);
    let described = world.describe(one).unwrap();
    assert_eq!(described.state, NodeState::Error);
    assert!(described.last_error.unwrap().message.contains("checksum"));
    assert_eq!(world.describe(two).unwrap().state, NodeState::Leader);
}

#[test]
fn a_sole_voter_commits_without_a_thread_or_a_clock() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    assert_eq!(world.describe(handle).unwrap().state, NodeState::Leader);
    let tasks = (0..5).map(|tag| world.task(handle, tag)).collect();
    world.turn(tasks);
    assert_eq!(world.out.disk.len(), 1, "one write a group and turn");
    assert!(world.take_outcomes().is_empty(), "nothing is told before it is durable and applied");
    world.settle();
    let expected: Vec<_> = (0..5).map(|tag| (tag, Ok(tag + 2))).collect();
    assert_eq!(world.take_outcomes(), expected);
    assert_eq!(world.log.lock().len(), 5);
}

#[test]
fn a_hot_group_leaves_its_lane_to_others() {
    let limits = LaneLimits { group_turn_tasks: 3, group_backlog: 7, ..LaneLimits::default() };
    let mut world = World::new(limits);
    let (hot, other) = (world.open("hot"), world.open("other"));
    assert_eq!(world.lane.task_room(0), 7);
    let mut events: Vec<_> = (0..9).map(|tag| world.task(hot, tag)).collect();
    events.push(world.task(other, 100));
    world.turn(events);
    assert_eq!(world.lane.task_room(0), 1, "six of nine wait; the ring keeps what more there is");
    world.stages();
    world.turn(Vec::new());
    world.stages();
    let first: Vec<_> = world.log.lock().iter().map(|(group, _)| group.clone()).collect();
    assert_eq!(first[..4], ["hot", "hot", "hot", "other"], "the share of one turn");
    world.settle();
    let outcomes = world.take_outcomes();
    assert_eq!(outcomes.len(), 10);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    let applied: Vec<_> =
        world.log.lock().iter().filter(|(g, _)| g == "hot").map(|(_, d)| d.clone()).collect();
    let expected: Vec<_> = (0..9).map(|tag: u64| tag.to_string().into_bytes()).collect();
    assert_eq!(applied, expected, "in the order in which they came");
    assert_eq!(world.lane.task_room(0), 7, "nothing waits any more");
}

#[test]
fn by_default_one_group_cannot_take_a_turn() {
    for turn in [1, 4, 4096, 1 << 20] {
        let share = LaneLimits::for_turns_of(turn).group_turn_tasks;
        assert!(share < turn || turn == 1, "{share} of {turn}");
    }
}

/// The worker of one group stands still: that group waits, with what it has committed, and the other, on the same lane, does not.
/// Shows rule R2.
#[test]
fn a_worker_that_stands_still_holds_back_its_own_groups_only() {
    let mut world = World::new(LaneLimits::default());
    let (slow, fine) = (world.open_at("slow", 0), world.open_at("fine", 1));
    world.settle();
    world.still[0] = true;
    for tag in 0..3 {
        world.turn(vec![world.task(slow, tag)]);
        world.settle();
    }
    assert_eq!((world.lane.task_room(0), world.out.fsm[0].len()), (0, 1), "one turn is with the worker");
    assert!(world.lane.holds_back());
    assert!(world.lane.takes_entries(&world.out), "entries of leaders wait for the disk alone");
    let description = world.describe(slow).expect("it runs");
    assert_eq!((description.committed_index, description.state), (4, NodeState::Leader));
    // Votes go on, for the slow group as well.
    world.turn(vec![world.vote_request(slow, 99, true)]);
    assert_eq!(world.replies.len(), 1);
    assert!(world.lane.task_room(1) > 0);
    world.turn(vec![world.task(fine, 10)]);
    world.settle();
    assert_eq!(world.take_outcomes(), [(10, Ok(2))]);
    assert_eq!(world.out.fsm[0].len(), 1, "nothing has gathered for the worker meanwhile");
    world.still[0] = false;
    world.settle();
    assert_eq!(world.take_outcomes(), [(0, Ok(2)), (1, Ok(3)), (2, Ok(4))]);
    assert!(!world.lane.holds_back() && world.lane.task_room(0) > 0);
}

/// The disk is full: whatever brings work for it waits, whoever's it is, and control does not.
/// Shows rule R2. Shows rule R3.
#[test]
fn while_the_disk_is_full_only_bulk_waits() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    world.turn(vec![world.task(handle, 0)]);
    assert!(!world.out.disk.is_empty(), "the disk has not taken it");
    world.turn(vec![world.vote_request(handle, 99, true)]);
    assert_eq!(world.replies.len(), 1, "votes go on");
    assert_eq!((world.lane.task_room(0), world.lane.task_room(1)), (0, 0));
    assert!(!world.lane.takes_entries(&world.out));
    world.settle();
    world.turn(Vec::new());
    assert!(world.lane.task_room(0) > 0 && world.lane.takes_entries(&world.out));
    assert_eq!(world.take_outcomes(), [(0, Ok(2))]);
}

/// Tasks of a group that is gone are answered by a worker that has room, not by one that may stand still.
#[test]
fn tasks_of_a_group_that_is_gone_are_answered_where_there_is_room() {
    let mut world = World::new(LaneLimits::default());
    let gone = GroupHandle { lane: 0, slot: 9, generation: 1 };
    world.still[0] = true;
    let event = world.task(gone, 5);
    world.lane.on_tasks(world.now, 1, &mut vec![event], &mut world.out);
    world.settle();
    assert_eq!(world.take_outcomes(), [(5, Err(ApplyError::Shutdown))]);
}

/// What came on the connection for entries keeps its order; all else overtakes it.
#[test]
fn an_order_to_campaign_and_probes_stay_among_the_entries() {
    let world = World::new(LaneLimits::default());
    let handle = GroupHandle { lane: 0, slot: 0, generation: 1 };
    let event = |request| {
        let reply = ReplyHandle { connection: 1, generation: 1, request: 9 };
        let from = "b:1".parse().unwrap();
        LaneEvent::Request(Box::new(RequestEvent { handle, from, reply, codec: 1, request }))
    };
    let append = |kind| {
        RaftRequest::AppendEntries(AppendEntriesRequest {
            kind,
            term: 1,
            prev_log: LogId::default(),
            committed_index: 0,
            rejoined: 0,
            promise_wanted: 0,
            entries: Vec::new(),
            extensions: Default::default(),
        })
    };
    assert!(event(append(AppendKind::Entries)).goes_with_entries());
    assert!(event(append(AppendKind::Probe)).goes_with_entries());
    let order = TimeoutNowRequest { term: 1 };
    assert!(event(RaftRequest::TimeoutNow(order)).goes_with_entries());
    assert!(!event(append(AppendKind::Heartbeat)).goes_with_entries());
    assert!(!world.vote_request(handle, 9, false).goes_with_entries());
    assert!(!world.task(handle, 0).goes_with_entries(), "a task comes on no connection");
}

/// Shows rule O2.
#[test]
fn what_belongs_to_an_earlier_life_is_dropped() {
    let mut world = World::new(LaneLimits::default());
    let first = world.open("g");
    let (answer, closed) = promise();
    world.turn(vec![
        world.task(first, 0),
        LaneEvent::Control(Box::new(Control::Close { handle: first, answer })),
        world.task(first, 1),
    ]);
    world.settle();
    assert_eq!(closed.wait(Some(std::time::Duration::ZERO)), Some(true));
    let outcomes = world.take_outcomes();
    assert!(matches!(outcomes[0], (0, Err(ApplyError::Unknown(_)))), "handed on, then lost: {outcomes:?}");
    assert_eq!(outcomes[1..], [(1, Err(ApplyError::Shutdown))]);
    let second = world.open("g");
    assert_eq!((second.slot, first.slot), (0, 0), "the slot is used again");
    assert_ne!(first.generation, second.generation);
    world.turn(vec![world.task(first, 2), world.vote_request(first, 5, true)]);
    world.settle();
    assert_eq!(world.take_outcomes(), [(2, Err(ApplyError::Shutdown))]);
    assert!(matches!(world.replies.pop().unwrap().response, RaftResponse::Error(_)));
    assert!(world.describe(first).is_none());
    world.turn(vec![world.task(second, 3)]);
    world.settle();
    assert!(matches!(world.take_outcomes()[..], [(3, Ok(_))]));
}

/// Shows rule O1: a lane touches no node of another one, whatever is meant for it and comes here.
#[test]
fn a_group_of_another_lane_is_left_alone() {
    let mut world = World::new(LaneLimits::default());
    let own = world.open("g");
    let term = world.describe(own).unwrap().term;
    let other = GroupHandle { lane: own.lane + 1, ..own };
    world.turn(vec![world.task(other, 0), world.vote_request(other, term + 1, false)]);
    world.settle();
    assert_eq!(world.take_outcomes(), [(0, Err(ApplyError::Shutdown))]);
    assert!(matches!(world.replies.pop().unwrap().response, RaftResponse::Error(_)));
    assert_eq!(world.describe(own).unwrap().term, term);
}

/// A debug assertion of the core stands for any bug in it.
/// Shows rule X1.
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_a_step_stops_its_group_only() {
    let mut world = World::new(LaneLimits::default());
    let (broken, fine) = (world.open("broken"), world.open("fine"));
    world.turn(vec![world.task(broken, 0), world.task(fine, 1)]);
    let progress = world.progress[0].1.clone();
    let _ = world.board.applied(broken, &progress, 1_000_000);
    world.turn(vec![world.task(broken, 2)]);
    world.settle();
    let mut outcomes = world.take_outcomes();
    outcomes.sort_by_key(|(tag, _)| *tag);
    assert!(
        matches!(&outcomes[0], (0, Err(ApplyError::Unknown(s))) if s.error == RaftError::BadNode),
        "{outcomes:?}"
    );
    assert!(matches!(outcomes[1], (1, Ok(_))), "{outcomes:?}");
    assert!(matches!(outcomes[2], (2, Err(ApplyError::Failed(_)))), "{outcomes:?}");
    let described = world.describe(broken).unwrap();
    assert_eq!(described.state, NodeState::Error);
    assert!(described.last_error.is_some());
    world.turn(vec![world.vote_request(broken, 5, true)]);
    assert!(matches!(world.replies.pop().unwrap().response, RaftResponse::Error(Status { .. })));
    world.turn(vec![world.task(fine, 3), world.task(broken, 4)]);
    world.settle();
    assert_eq!(world.take_outcomes().len(), 2, "each has its outcome");
}

/// Opened in the store just before it failed, by another group's write.
#[test]
fn no_group_starts_over_a_store_that_has_failed() {
    let mut world = World::new(LaneLimits::default());
    let first = world.open("first");
    let failure = Status::new(RaftError::Io, "gone");
    world.lane.on_store_failed(world.now, &failure, &mut world.out);
    world.settle();
    assert_eq!(world.describe(first).unwrap().state, NodeState::Error);
    assert_eq!(world.try_open("second", 0), Err(failure));
}

/// A bound of unapplied entries below what a worker reports by itself: the owner holds entries back, and must be woken.
#[test]
fn a_worker_wakes_the_owner_that_holds_entries_back() {
    let mut world = World::new(LaneLimits::default());
    world.max_unapplied_entries = 4;
    let handle = world.open("g");
    world.turn(vec![
        world.task(handle, 0),
        world.task(handle, 1),
        world.task(handle, 2),
        world.task(handle, 3),
    ]);
    world.settle();
    assert_eq!(world.wakes, 0, "nothing is held back");
    let tasks = (4..10).map(|tag| world.task(handle, tag)).collect();
    world.turn(tasks);
    world.stages();
    world.turn(Vec::new());
    assert_eq!(world.out.fsm[0].len(), 1, "committed, and handed over as far as the bound allows");
    world.stages();
    assert_eq!(world.wakes, 1, "the rest waits for what was applied now");
    world.settle();
    assert_eq!(world.take_outcomes().len(), 10);
}

/// Its election time-out counts from when the vote is durable: it must not learn of that only when it is over.
#[test]
fn the_disk_wakes_an_owner_that_has_granted_a_vote() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let before = world.disk_wakes;
    world.turn(vec![world.vote_request(handle, 9, false)]);
    world.stages();
    assert!(
        matches!(&world.replies.pop().unwrap().response, RaftResponse::RequestVote(r) if r.granted && r.term == 9)
    );
    assert_eq!(world.disk_wakes, before + 1);
    world.turn(Vec::new());
    let before = world.disk_wakes;
    world.turn(vec![world.vote_request(handle, 9, true)]);
    world.stages();
    assert_eq!(world.disk_wakes, before, "nothing more to wait for");
}

/// Who is ordered to campaign must have what was sent before, or those that have it refuse their votes.
#[test]
fn an_order_to_campaign_goes_behind_the_entries() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let peer: PeerId = "b:1".parse().unwrap();
    let mut entries = None;
    let mut call = |world: &mut World, call| {
        let (answer, _) = promise();
        world.turn(vec![LaneEvent::Control(Box::new(Control::Call { handle, call, answer }))]);
        for _ in 0..20 {
            // Who is added gets the last entry, which is in the store alone by now.
            let mut answers = world.reads();
            for send in std::mem::take(&mut world.out.sends) {
                match &send.request {
                    RaftRequest::TimeoutNow(_) => return Some((send.link, entries)),
                    RaftRequest::AppendEntries(request) => {
                        if request.kind == AppendKind::Entries {
                            entries = Some(send.link);
                        }
                        let response = AppendEntriesResponse {
                            term: request.term,
                            success: true,
                            last_log_index: None,
                            conflict: None,
                            promised: 0,
                            rejoining: 0,
                            extensions: Extensions::NONE,
                        };
                        let result = Ok(RaftResponse::AppendEntries(response).into());
                        let event = ResponseEvent { context: send.context, result };
                        answers.push(LaneEvent::Response(Box::new(event)));
                    }
                    other => panic!("{other:?} was sent"),
                }
            }
            world.turn(answers);
            world.stages();
        }
        None
    };
    let change = MembershipChange::AddPeer(peer.clone());
    assert_eq!(call(&mut world, NodeCall::ChangeMembers { change, prev_index: None }), None);
    let order = call(&mut world, NodeCall::TransferLeadership { to: Some(peer) });
    let (order, entries) = order.expect("b has everything");
    assert_eq!(Some(order), entries, "on one connection, which keeps the order");
}

/// What the network needs to know to treat members better than strangers, and Java nodes more patiently than others.
#[test]
fn the_network_is_told_who_is_a_member_and_who_understands_extensions() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let request = |from: &str, request| {
        let (from, reply) = (from.parse().unwrap(), ReplyHandle { connection: 1, generation: 1, request: 9 });
        LaneEvent::Request(Box::new(RequestEvent { handle, from, reply, codec: 1, request }))
    };
    let append = |extensions| {
        RaftRequest::AppendEntries(AppendEntriesRequest {
            kind: AppendKind::Heartbeat,
            term: 1000,
            prev_log: LogId::default(),
            committed_index: 0,
            entries: Vec::new(),
            extensions,
            rejoined: 0,
            promise_wanted: 0,
        })
    };
    world.turn(vec![
        world.vote_request(handle, 5, true),
        request("a:1", append(Extensions::NONE)),
        request("b:1", append(Extensions::NONE)),
        request("b:1", append(Extensions::REJOIN)),
    ]);
    world.stages();
    let spoke = std::mem::take(&mut *world.transport.spoke.lock());
    let a = Some("a:1".to_owned());
    assert_eq!(spoke, [(None, None), (a, Some(false)), (None, Some(false)), (None, Some(true))]);
    // A follower says in its answers that it is no Java node, but not to one.
    let said: Vec<bool> = (world.replies.iter())
        .filter_map(|reply| match &reply.response {
            RaftResponse::AppendEntries(answer) => Some(answer.extensions != Extensions::NONE),
            _ => None,
        })
        .collect();
    assert_eq!(said, [false, true]);
}

#[test]
fn a_change_of_what_a_peer_announces_is_passed_on_once() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let (answer, _) = promise();
    let change = MembershipChange::AddPeer("b:1".parse().unwrap());
    let call = NodeCall::ChangeMembers { change, prev_index: None };
    world.turn(vec![LaneEvent::Control(Box::new(Control::Call { handle, call, answer }))]);
    let context = world.out.sends.first().expect("the new member is asked").context;
    let mut hear = |extensions| {
        let answer = AppendEntriesResponse {
            term: 1,
            success: false,
            last_log_index: None,
            conflict: None,
            promised: 0,
            rejoining: 0,
            extensions,
        };
        let result = Ok(RaftResponse::AppendEntries(answer).into());
        world.turn(vec![LaneEvent::Response(Box::new(ResponseEvent { context, result }))]);
        std::mem::take(&mut *world.transport.announced.lock())
    };
    assert_eq!(hear(Extensions::NONE), [], "taken for a Java node anyway");
    assert_eq!(hear(Extensions::REJOIN), [("b:1".to_owned(), true)]);
    assert_eq!(hear(Extensions::REJOIN), []);
    assert_eq!(hear(Extensions::NONE), [("b:1".to_owned(), false)]);
}

/// A world whose groups have members elsewhere, who answer when the test says so.
fn world_of_three(limits: LaneLimits) -> World {
    let mut world = World::new(limits);
    world.members = "a:1,b:1,c:1".parse().unwrap();
    world
}

impl World {
    /// Turns every 10 ms for so long, each on time; gives the groups (by slot) that asked for pre-votes, in order.
    fn wait(&mut self, ms: u64) -> Vec<u32> {
        let mut asked = Vec::new();
        for _ in 0..ms / 10 {
            self.now = self.now.after_millis(10);
            self.turn(Vec::new());
            asked.extend(self.campaigns());
            self.stages();
        }
        asked
    }

    /// Groups that have asked `b:1` for pre-votes or votes just now.
    fn campaigns(&mut self) -> Vec<u32> {
        let sends = std::mem::take(&mut self.out.sends);
        let asks = |send: &&OutSend| {
            &*send.to == "b:1" && matches!(&send.request, RaftRequest::RequestVote(vote) if vote.pre_vote)
        };
        sends.iter().filter(asks).map(|send| send.context.slot).collect()
    }

    fn heartbeat(&self, handle: GroupHandle, term: Term) -> LaneEvent {
        let request = AppendEntriesRequest {
            kind: AppendKind::Heartbeat,
            term,
            prev_log: LogId::default(),
            committed_index: 0,
            rejoined: 0,
            promise_wanted: 0,
            entries: Vec::new(),
            extensions: Default::default(),
        };
        LaneEvent::Request(Box::new(RequestEvent {
            handle,
            from: "b:1".parse().unwrap(),
            reply: ReplyHandle { connection: 1, generation: 1, request: 9 },
            codec: 1,
            request: RaftRequest::AppendEntries(request),
        }))
    }
}

/// The lane did not run for longer than any election time-out. It does not campaign over what it could not hear: the leader's
/// heartbeats are read in a moment.
#[test]
fn a_lane_that_was_late_waits_before_it_campaigns() {
    let mut world = world_of_three(LaneLimits::default());
    let handle = world.open("g");
    world.turn(vec![world.heartbeat(handle, 1)]);
    for _ in 0..3 {
        world.now = world.now.after_millis(5000);
        world.turn(Vec::new());
        assert!(world.campaigns().is_empty(), "it does not campaign over a gap of its own");
        let heartbeat = world.heartbeat(handle, 1);
        world.now = world.now.after_millis(10);
        world.turn(vec![heartbeat]);
        assert!(world.wait(900).is_empty(), "the leader is there");
    }
    assert_eq!(world.describe(handle).unwrap().term, 1, "no term was begun");
    // A leader that is really gone is not waited for without end, however late the lane is each time.
    let mut gaps = 0;
    while world.campaigns().is_empty() {
        world.now = world.now.after_millis(1000);
        world.turn(Vec::new());
        gaps += 1;
        assert!(gaps < 10, "four election time-outs are enough");
    }
}

/// A host of a thousand groups hears of no leader any more: it campaigns for one after the other, and first where somebody waits.
#[test]
fn campaigns_of_a_lane_are_spread() {
    let mut world = world_of_three(LaneLimits::default());
    let handles: Vec<_> = (0..1000).map(|n| world.open(&format!("g{n}"))).collect();
    let heartbeats = handles.iter().map(|handle| world.heartbeat(*handle, 1)).collect();
    world.turn(heartbeats);
    assert!(world.wait(2000).len() <= 220, "their patience ends within a second, but not all begin");
    let wanted = handles[998];
    world.turn(vec![world.task(wanted, 7)]);
    assert_eq!(world.wait(10).first(), Some(&wanted.slot), "a client waits");
    let begun = world.wait(1000);
    assert!((190..=210).contains(&begun.len()), "{} campaigns in a second", begun.len());
    // The rest hears of a leader, and wants no more.
    let heartbeats = handles.iter().map(|handle| world.heartbeat(*handle, 2)).collect();
    world.turn(heartbeats);
    assert!(world.wait(500).is_empty());
}

/// A link without room is flow control: what is in flight stays, and the group goes on when there is room.
#[test]
fn a_full_link_resumes_when_it_has_room() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let change = MembershipChange::AddPeer("b:1".parse().unwrap());
    let (answer, _) = promise();
    let call = NodeCall::ChangeMembers { change, prev_index: None };
    world.turn(vec![LaneEvent::Control(Box::new(Control::Call { handle, call, answer }))]);
    let entries = |world: &mut World| {
        let sends = std::mem::take(&mut world.out.sends);
        sends.into_iter().find(|send| send.request.log_class())
    };
    let first = entries(&mut world).expect("a probe");
    let full = Status::new(RaftError::Again, "full");
    world.lane.on_send_failed(world.now, first.context, full, &mut world.out);
    world.turn(Vec::new());
    assert!(entries(&mut world).is_none(), "it waits");
    world.turn(vec![LaneEvent::LinkHasRoom(Endpoint("c:1".into()))]);
    assert!(entries(&mut world).is_none(), "that was another host");
    world.turn(vec![LaneEvent::LinkHasRoom(Endpoint("b:1".into()))]);
    let again = entries(&mut world).expect("it goes on");
    assert_eq!(format!("{:?}", again.request), format!("{:?}", first.request), "where it was");
}

trait LogClass {
    fn log_class(&self) -> bool;
}

impl LogClass for RaftRequest {
    /// Whether it goes on the connection for entries.
    fn log_class(&self) -> bool {
        matches!(self, RaftRequest::AppendEntries(append) if append.kind != AppendKind::Heartbeat)
    }
}

#[test]
fn a_stop_closes_every_group() {
    let mut world = World::new(LaneLimits::default());
    let (a, b) = (world.open("a"), world.open("b"));
    world.turn(vec![world.task(a, 0), LaneEvent::Control(Box::new(Control::Stop)), world.task(b, 1)]);
    assert!(world.lane.is_stopping());
    world.settle();
    let mut outcomes = world.take_outcomes();
    outcomes.sort_by_key(|(tag, _)| *tag);
    assert!(
        matches!(outcomes[..], [(0, Err(ApplyError::Unknown(_))), (1, Err(ApplyError::Shutdown))]),
        "{outcomes:?}"
    );
    assert!(world.describe(a).is_none() && world.describe(b).is_none());
}
