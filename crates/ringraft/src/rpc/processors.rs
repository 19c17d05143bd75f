//! The processors of a host's RPC server: what happens to a request or an answer that has arrived.
//!
//! SOFAJRaft's `AppendEntriesRequestProcessor`, `RequestVoteRequestProcessor`, `TimeoutNowRequestProcessor`,
//! `ReadIndexRequestProcessor` and `PingRequestProcessor`; all but the last differ only in their message and share
//! [`process_raft_request`](Processors::process_raft_request). Those of the `CliService` are in [`cli`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use ringraft_core::{PeerId, RaftError, Status};
use ringraft_net::{
    Accept, ConnectionClass, Endpoint, Inbound, LinkId, LogLimiter, ReplyHandle, RequestContext, Transport,
    WireText,
};
use ringraft_proto::{
    DecodeError, OutFrame, RequestFrame, RequestKind, ResponseFrame, ResponseStatus, decode_raft_request,
    decode_raft_response, encode_error_response, encode_response_shared, encode_status_response, group_of,
};
use ringraft_ring::{Producer, TryPublishError};
use rustc_hash::FxHashMap;

use crate::handler::{EntryRoom, LaneEvent, RequestEvent, ResponseEvent};
use crate::rpc::cli;
use crate::rpc::flush::flush_later;
use crate::rpc::routing::RoutingTable;
use crate::rpc::user::{
    Answer, AnswerPath, AnswerRoute, Responder, UserProcessor, UserRequest, handle_guarded,
};
use crate::rpc::worker::{Job, WorkerQueue};

/// Texts of peers that are remembered as parsed.
const PARSED_PEERS: usize = 4096;

/// Where events for the lanes go. Control is always taken; entries, and what goes with them
/// ([`LaneEvent::goes_with_entries`]), are handed back as busy when there is no room, which parks their connection and no other.
pub enum LaneSink {
    /// Into their rings, by number of lane.
    Rings(Vec<SinkRings>),
    /// Into lists that the owner, who drives the network itself, takes after its turn.
    Local {
        /// Control, in order of arrival.
        control: Vec<LaneEvent>,
        /// Entries, in order of arrival.
        entries: Vec<LaneEvent>,
        /// Entries after which more are handed back as busy.
        room: usize,
    },
}

/// Where requests of a class are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the thread that drives the network.
    Network,
    /// On the worker.
    Worker,
}
/// The rings of one lane that the network publishes into.
#[derive(Clone, Debug)]
pub struct SinkRings {
    /// For control.
    pub control: Producer<LaneEvent>,
    /// For entries, and what goes with them.
    pub entries: Producer<LaneEvent>,
    /// Room for those in bytes.
    pub entry_room: Arc<EntryRoom>,
}

impl SinkRings {
    /// Whether entries would find no slot, or no room in bytes. A ring that is closed says so itself.
    fn is_full(&self) -> bool {
        (self.entries.remaining_capacity() == 0 || !self.entry_room.has_room()) && !self.entries.is_closed()
    }

    /// Hands entries to the lane, if there is room for them.
    fn publish(&self, event: LaneEvent) -> Result<(), TryPublishError<LaneEvent>> {
        if self.is_full() {
            return Err(TryPublishError::Full(event));
        }
        let bytes = event.entry_bytes();
        // Before the lane can take it: what it gives back was taken.
        self.entry_room.take(bytes);
        self.entries.try_publish(event).inspect_err(|_| self.entry_room.give_back(bytes))
    }
}

/// Control that waits for room in a lane's ring at most, beside the answers to requests of this host. A lane drains that ring in every
/// turn, so that only one that gets no time at all has so much.
const WAITING_CONTROL: usize = 1 << 16;

/// Content of a request for entries that is surely no heartbeat: it need not be decoded to be handed back.
const NO_HEARTBEAT: usize = 16 << 10;

type ByClass = FxHashMap<Box<[u8]>, (Arc<dyn UserProcessor>, Place)>;

/// The users' processors, by class, and the queue of their worker.
#[derive(Default)]
pub struct UserProcessors {
    by_class: RwLock<ByClass>,
    worker: WorkerQueue,
}

impl UserProcessors {
    pub(crate) fn register(&self, class: &str, processor: Arc<dyn UserProcessor>, place: Place) {
        let before = self.by_class.write().insert(class.as_bytes().into(), (processor, place));
        drop(before); // outside the lock: it is the user's
    }

    fn find(&self, class: &[u8]) -> Option<(Arc<dyn UserProcessor>, Place)> {
        self.by_class.read().get(class).cloned()
    }

    /// Handles what is for the worker, on this thread, until [`close_worker`](Self::close_worker).
    pub(crate) fn run_worker(&self, transport: &Arc<dyn Transport>) {
        let answers: Arc<dyn AnswerPath> = Arc::new(TransportAnswers(Arc::clone(transport)));
        self.worker.run(transport, &answers);
    }

    /// Whether any class is handled by the worker.
    pub(crate) fn needs_worker(&self) -> bool {
        self.by_class.read().values().any(|(_, place)| *place == Place::Worker)
    }

    /// Ends the worker, whether it runs already or will.
    pub(crate) fn close_worker(&self) {
        self.worker.close();
    }
}

impl fmt::Debug for UserProcessors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes: Vec<_> =
            self.by_class.read().keys().map(|c| String::from_utf8_lossy(c).into_owned()).collect();
        f.debug_tuple("UserProcessors").field(&classes).finish()
    }
}

/// Time that requests of users and operators have on the network's thread in one turn. What they begin is bounded elsewhere; this
/// bounds what they keep the groups waiting. The one that goes beyond it is the last of the turn.
const USER_TIME: Duration = Duration::from_millis(2);

/// Receives what the network reads: decodes it and hands it to the lane that it concerns.
pub struct Processors {
    routes: Arc<RoutingTable>,
    users: Arc<UserProcessors>,
    transport: Arc<dyn Transport>,
    answers: Arc<dyn AnswerPath>,
    sink: LaneSink,
    /// Control that found its lane's ring full, by lane: one lane that is late does not keep others waiting. Bounded by the requests of
    /// ours that wait for an answer, and [`WAITING_CONTROL`].
    overflow: Vec<VecDeque<LaneEvent>>,
    peers: FxHashMap<Box<str>, PeerId>,
    /// What is used of [`USER_TIME`] in this turn.
    user_time: Duration,
    /// For every line that a stranger can cause.
    log: LogLimiter,
}

impl Processors {
    /// Processors of a host with so many lanes.
    pub fn new(
        routes: Arc<RoutingTable>,
        users: Arc<UserProcessors>,
        transport: Arc<dyn Transport>,
        sink: LaneSink,
    ) -> Processors {
        let answers = Arc::new(TransportAnswers(Arc::clone(&transport)));
        let overflow = match &sink {
            LaneSink::Rings(rings) => rings.iter().map(|_| VecDeque::new()).collect(),
            LaneSink::Local { .. } => Vec::new(),
        };
        Processors {
            routes,
            users,
            transport,
            answers,
            sink,
            overflow,
            peers: FxHashMap::default(),
            user_time: Duration::ZERO,
            log: LogLimiter::new(),
        }
    }

    /// Moves what has arrived for the owner that drives the network behind what is in the lists.
    pub fn take_local(&mut self, into_control: &mut Vec<LaneEvent>, into_entries: &mut Vec<LaneEvent>) {
        if let LaneSink::Local { control, entries, .. } = &mut self.sink {
            into_control.append(control);
            into_entries.append(entries);
        }
    }

    /// How many requests with entries may be waiting locally from now on.
    pub fn set_room(&mut self, room: usize) {
        if let LaneSink::Local { room: current, .. } = &mut self.sink {
            *current = room;
        }
    }

    /// Tries again what found a ring full; says whether anything is left.
    pub fn retry(&mut self) -> bool {
        let LaneSink::Rings(rings) = &self.sink else { return false };
        for (waiting, ring) in self.overflow.iter_mut().zip(rings) {
            while let Some(event) = waiting.pop_front() {
                if let Err(TryPublishError::Full(event)) = ring.control.try_publish(event) {
                    waiting.push_front(event);
                    break;
                }
            }
        }
        self.overflow.iter().any(|waiting| !waiting.is_empty())
    }

    /// Hands control on, which must not be lost.
    fn deliver(&mut self, lane: usize, event: LaneEvent) {
        match &mut self.sink {
            LaneSink::Local { control, .. } => control.push(event),
            LaneSink::Rings(rings) => {
                let (Some(ring), Some(waiting)) = (rings.get(lane), self.overflow.get_mut(lane)) else {
                    return;
                };
                // Behind what waits already, so that control keeps its order.
                if !waiting.is_empty() {
                    waiting.push_back(event);
                } else if let Err(TryPublishError::Full(event)) = ring.control.try_publish(event) {
                    waiting.push_back(event);
                }
            }
        }
    }

    fn tell_all(&mut self, event: impl Fn() -> LaneEvent) {
        let lanes = match &self.sink {
            LaneSink::Rings(rings) => rings.len(),
            LaneSink::Local { .. } => 1,
        };
        (0..lanes).for_each(|lane| self.deliver(lane, event()));
    }

    /// Hands a request to its lane; gives it back when there is no room for its kind.
    fn offer(&mut self, lane: usize, event: LaneEvent) -> Result<(), TryPublishError<LaneEvent>> {
        if !event.goes_with_entries() {
            if self.overflow.get(lane).is_some_and(|waiting| waiting.len() >= WAITING_CONTROL) {
                return Err(TryPublishError::Full(event));
            }
            if let LaneSink::Rings(rings) = &self.sink
                && rings.get(lane).is_none_or(|ring| ring.control.is_closed())
            {
                return Err(TryPublishError::Closed(event));
            }
            self.deliver(lane, event);
            return Ok(());
        }
        match &mut self.sink {
            LaneSink::Local { entries, room, .. } if entries.len() < *room => {
                entries.push(event);
                Ok(())
            }
            LaneSink::Local { .. } => Err(TryPublishError::Full(event)),
            LaneSink::Rings(rings) => match rings.get(lane) {
                Some(ring) => ring.publish(event),
                None => Err(TryPublishError::Closed(event)),
            },
        }
    }

    /// Whether a request with entries would surely be handed back. Rule R4: only its own lane decides, so that no other
    /// connection waits. Asked before the work of decoding it, which for a large one is much, and
    /// would be done again each time that it is offered.
    fn is_full_for(&self, frame: &RequestFrame) -> bool {
        frame.content.len() > NO_HEARTBEAT
            && match &self.sink {
                LaneSink::Local { entries, room, .. } => entries.len() >= *room,
                LaneSink::Rings(rings) => {
                    let lane = group_of(frame).ok().and_then(|group| self.routes.lane(group));
                    let ring = lane.and_then(|lane| rings.get(usize::from(lane)));
                    // A request that can go nowhere needs no room for its refusal.
                    ring.is_some_and(SinkRings::is_full)
                }
            }
    }

    fn reply(&self, handle: ReplyHandle, frame: OutFrame) {
        if self.transport.reply(handle, frame).is_ok() {
            flush_later(&self.transport, handle);
        }
    }

    fn reply_error(&self, handle: ReplyHandle, codec: u8, status: &Status) {
        self.reply(handle, encode_error_response(handle.request, codec, Some(status)));
    }

    /// AppendEntries, RequestVote and TimeoutNow.
    fn process_raft_request(&mut self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        if self.is_full_for(&frame) {
            return Accept::Busy(frame);
        }
        let codec = frame.codec;
        let request = match decode_raft_request(&frame) {
            Ok(request) => request,
            Err(error) => {
                if let Some(left_out) = self.log.pass("raft request") {
                    let text = error.to_string();
                    tracing::warn!(error = %WireText(text.as_bytes()), left_out, "a raft request cannot be understood");
                }
                if let DecodeError::DataChecksum { .. } = error {
                    // Damaged on the way: its sender is well, and sends it again.
                    self.reply_error(handle, codec, &Status::new(RaftError::Invalid, error.to_string()));
                    return Accept::Taken;
                }
                let status = ResponseStatus::ServerDeserialException;
                self.reply(handle, encode_status_response(handle.request, codec, status));
                return Accept::Refused;
            }
        };
        if let Err(status) = self.routes.admit(&request) {
            self.reply_error(handle, codec, &status);
            return Accept::Taken;
        }
        let found = self.routes.find(request.group, request.peer_id, request.creation);
        let from = parse_peer(&mut self.peers, request.server_id);
        let (group, from) = match found.and_then(|group| Ok((group, from?))) {
            Ok(both) => both,
            Err(status) => {
                if status.error == RaftError::WrongCreation
                    && let Some(left_out) = self.log.pass("creation")
                {
                    let from = WireText(request.server_id.as_bytes());
                    tracing::warn!(%from, %status, left_out, "a request of another life of a group is refused");
                }
                self.reply_error(handle, codec, &status);
                return Accept::Refused;
            }
        };
        let event = RequestEvent { handle: group, from, reply: handle, codec, request: request.request };
        match self.offer(usize::from(group.lane), LaneEvent::Request(Box::new(event))) {
            Ok(()) => Accept::Taken,
            Err(TryPublishError::Full(_)) => Accept::Busy(frame),
            Err(TryPublishError::Closed(_)) => {
                let status = Status::new(RaftError::Shutdown, "the host is shutting down");
                self.reply_error(handle, codec, &status);
                Accept::Taken
            }
        }
    }

    fn process_user_request(&self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        let Some((processor, place)) = self.users.find(&frame.class) else {
            if let Some(left_out) = self.log.pass("class") {
                tracing::warn!(class = %WireText(&frame.class), left_out, "no processor for this class");
            }
            // Rule X4: whoever asks must not wait for his time-out to learn that nobody serves it.
            let status = ResponseStatus::ServerException;
            self.reply(handle, encode_status_response(handle.request, frame.codec, status));
            return Accept::Refused;
        };
        let timeout_ms = u32::try_from(frame.timeout_ms).ok().filter(|timeout| *timeout > 0);
        let request = UserRequest { class: frame.class.clone(), content: frame.content.clone(), timeout_ms };
        match place {
            Place::Network => {
                let responder = Responder::to(&self.answers, handle, frame.codec);
                drop(frame);
                handle_guarded(&*processor, request, responder, &self.log);
            }
            Place::Worker => {
                let job = Job { handle, codec: frame.codec, request, processor };
                if self.users.worker.offer(job).is_err() {
                    return Accept::Busy(frame);
                }
            }
        }
        Accept::Taken
    }

    /// What users and operators ask.
    fn process_other_request(&mut self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        if self.user_time >= USER_TIME {
            return Accept::Later(frame);
        }
        let start = Instant::now();
        let accept = if cli::process(&self.routes, &self.transport, &self.log, handle, &frame) {
            Accept::Taken
        } else {
            self.process_user_request(handle, frame)
        };
        // Only what is taken counts: a turn that takes nothing has no end that would reset it.
        if !matches!(accept, Accept::Busy(_)) {
            self.user_time += start.elapsed();
        }
        accept
    }
}

impl Inbound for Processors {
    fn on_request(&mut self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        match RequestKind::of_class(&frame.class) {
            Some(RequestKind::Ping) => {
                self.reply(handle, encode_error_response(handle.request, frame.codec, None));
                Accept::Taken
            }
            Some(_) => self.process_raft_request(handle, frame),
            None => self.process_other_request(handle, frame),
        }
    }

    fn on_response(&mut self, context: RequestContext, frame: ResponseFrame) {
        let result = RequestKind::try_from(context.kind)
            .map_err(|error| error.to_string())
            .and_then(|kind| decode_raft_response(kind, &frame).map_err(|error| error.to_string()))
            .map_err(|message| Status::new(RaftError::Internal, format!("RPC exception: {message}")));
        let event = LaneEvent::Response(Box::new(ResponseEvent { context, result }));
        self.deliver(usize::from(context.lane), event);
    }

    fn on_request_failed(&mut self, context: RequestContext, reason: &str) {
        let result = Err(Status::new(RaftError::HostDown, reason));
        let event = LaneEvent::Response(Box::new(ResponseEvent { context, result }));
        self.deliver(usize::from(context.lane), event);
    }

    fn on_turn_end(&mut self) {
        self.user_time = Duration::ZERO;
    }

    fn on_connected(&mut self, _link: LinkId, endpoint: &Endpoint, class: ConnectionClass) {
        if class == ConnectionClass::Log {
            self.tell_all(|| LaneEvent::Connected(endpoint.clone()));
        }
    }

    fn on_room(&mut self, _link: LinkId, endpoint: &Endpoint, class: ConnectionClass) {
        if class == ConnectionClass::Log {
            self.tell_all(|| LaneEvent::LinkHasRoom(endpoint.clone()));
        }
    }
}

impl fmt::Debug for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processors").field("lanes", &self.overflow.len()).finish_non_exhaustive()
    }
}

/// The sender of a request. Texts repeat, so that the last many are remembered. The sender's name ends up in lines of the log, so it
/// must not hold what could end a line or steer a terminal.
fn parse_peer(known: &mut FxHashMap<Box<str>, PeerId>, text: &str) -> Result<PeerId, Status> {
    if let Some(peer) = known.get(text) {
        return Ok(peer.clone());
    }
    let invalid = || Status::new(RaftError::Invalid, format!("Fail to parse peerId: {text}"));
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid());
    }
    let peer: PeerId = text.parse().map_err(|_| invalid())?;
    if known.len() >= PARSED_PEERS {
        known.clear();
    }
    known.insert(text.into(), peer.clone());
    Ok(peer)
}

/// Answers of users, through the transport.
struct TransportAnswers(Arc<dyn Transport>);

impl AnswerPath for TransportAnswers {
    fn answer(&self, route: AnswerRoute, answer: Answer) {
        let AnswerRoute { handle, codec } = route;
        let frame = match answer {
            Answer::Message(class, content) => {
                encode_response_shared(handle.request, codec, ResponseStatus::Success, &class, content)
            }
            Answer::Error(status) => encode_error_response(handle.request, codec, Some(&status)),
        };
        if self.0.reply(handle, frame).is_ok() {
            flush_later(&self.0, handle);
        }
    }
}
