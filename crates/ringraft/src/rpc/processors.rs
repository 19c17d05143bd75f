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

use crate::handler::{LaneEvent, RequestEvent, ResponseEvent};
use crate::rpc::cli;
use crate::rpc::flush::flush_later;
use crate::rpc::routing::RoutingTable;
use crate::rpc::user::{
    Answer, AnswerPath, AnswerRoute, Responder, UserProcessor, UserRequest, handle_guarded,
};
use crate::rpc::worker::{Job, WorkerQueue};

/// Texts of peers that are remembered as parsed.
const PARSED_PEERS: usize = 4096;

/// Where events for the lanes go.
pub enum LaneSink {
    /// Into their rings, by number of lane.
    Rings(Vec<Producer<LaneEvent>>),
    /// Into a list that the owner, who drives the network itself, takes after its turn: at most `room` requests.
    Local {
        /// Events in order of arrival.
        events: Vec<LaneEvent>,
        /// Events after which requests are handed back as busy.
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
    /// Events that found their ring full and cannot be handed back. Bounded by the requests of ours that wait for an answer.
    overflow: VecDeque<(usize, LaneEvent)>,
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
        Processors {
            routes,
            users,
            transport,
            answers,
            sink,
            overflow: VecDeque::new(),
            peers: FxHashMap::default(),
            user_time: Duration::ZERO,
            log: LogLimiter::new(),
        }
    }

    /// Moves the local events into `into`, and sets how many requests are taken until the next call.
    pub fn take_local(&mut self, into: &mut Vec<LaneEvent>) {
        if let LaneSink::Local { events, .. } = &mut self.sink {
            into.append(events);
        }
    }

    /// How many requests may be waiting locally from now on.
    pub fn set_room(&mut self, room: usize) {
        if let LaneSink::Local { room: current, .. } = &mut self.sink {
            *current = room;
        }
    }

    /// Tries again what found a ring full; says whether anything is left.
    pub fn retry(&mut self) -> bool {
        while let Some((lane, event)) = self.overflow.pop_front() {
            let LaneSink::Rings(rings) = &self.sink else { return false };
            if let Some(Err(TryPublishError::Full(event))) =
                rings.get(lane).map(|ring| ring.try_publish(event))
            {
                self.overflow.push_front((lane, event));
                return true;
            }
        }
        false
    }

    /// Hands an event on that must not be lost.
    fn deliver(&mut self, lane: usize, event: LaneEvent) {
        match &mut self.sink {
            LaneSink::Local { events, .. } => events.push(event),
            LaneSink::Rings(rings) => {
                let Some(ring) = rings.get(lane) else { return };
                // Behind what waits already, so that answers keep their order.
                if !self.overflow.is_empty() {
                    self.overflow.push_back((lane, event));
                } else if let Err(TryPublishError::Full(event)) = ring.try_publish(event) {
                    self.overflow.push_back((lane, event));
                }
            }
        }
    }

    /// Whether a raft request would be taken now; asked before the work of decoding it, which for a large one is much, and would be done
    /// again each time that it is offered.
    fn has_room(&self, frame: &RequestFrame) -> bool {
        match &self.sink {
            LaneSink::Local { events, room } => events.len() < *room,
            LaneSink::Rings(rings) => {
                let lane = group_of(frame).ok().and_then(|group| self.routes.lane(group));
                let ring = lane.and_then(|lane| rings.get(usize::from(lane)));
                // A request that can go nowhere needs no room for its refusal.
                ring.is_none_or(|ring| ring.remaining_capacity() > 0 || ring.is_closed())
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
        if !self.has_room(&frame) {
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
        let found = self.routes.find(request.group, request.peer_id);
        let from = parse_peer(&mut self.peers, request.server_id);
        let (group, from) = match found.and_then(|group| Ok((group, from?))) {
            Ok(both) => both,
            Err(status) => {
                self.reply_error(handle, codec, &status);
                return Accept::Refused;
            }
        };
        let event = RequestEvent { handle: group, from, reply: handle, codec, request: request.request };
        let event = LaneEvent::Request(Box::new(event));
        match &mut self.sink {
            LaneSink::Local { events, .. } => events.push(event),
            LaneSink::Rings(rings) => {
                match rings.get(usize::from(group.lane)).map(|ring| ring.try_publish(event)) {
                    Some(Err(TryPublishError::Full(_))) => return Accept::Busy(frame),
                    Some(Ok(())) => {}
                    Some(Err(TryPublishError::Closed(_))) | None => {
                        let status = Status::new(RaftError::Shutdown, "the host is shutting down");
                        self.reply_error(handle, codec, &status);
                    }
                }
            }
        }
        Accept::Taken
    }

    fn process_user_request(&self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        let Some((processor, place)) = self.users.find(&frame.class) else {
            if let Some(left_out) = self.log.pass("class") {
                tracing::warn!(class = %WireText(&frame.class), left_out, "no processor for this class");
            }
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
        self.user_time += start.elapsed();
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
        if class != ConnectionClass::Log {
            return;
        }
        let lanes = match &self.sink {
            LaneSink::Rings(rings) => rings.len(),
            LaneSink::Local { .. } => 1,
        };
        for lane in 0..lanes {
            self.deliver(lane, LaneEvent::Connected(endpoint.clone()));
        }
    }
}

impl fmt::Debug for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processors").field("overflow", &self.overflow.len()).finish_non_exhaustive()
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
