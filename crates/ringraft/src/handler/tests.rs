//! The three handlers driven by hand, as a simulator does it: no thread, no clock, no socket, no file.

mod budget;
mod campaigns;
mod lease_reads;
mod lives;
mod log_lines;
mod peers;
mod reads_in_time;
mod room;
mod scope;

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
