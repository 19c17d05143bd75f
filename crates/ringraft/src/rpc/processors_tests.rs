//! What the processors do with requests of strangers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use ringraft_core::{
    AppendEntriesRequest, AppendKind, ChunkBuilder, Extensions, LogId, RaftError, RaftRequest,
    ReadIndexRequest, ReadOnlyOption, RequestVoteRequest, Status, TimeoutNowRequest,
};
use ringraft_net::{
    Accept, ConnectionClass, Endpoint, Inbound, LinkId, ReplyHandle, RequestContext, SendError, Transport,
};
use ringraft_proto::{
    Envelope, Frame, FrameDecoder, FrameLimits, OutFrame, RequestFrame, ResponseFrame, class,
    decode_error_response, encode_raft_request, put_cluster_id,
};

use crate::handler::{EntryRoom, GroupHandle, LaneEvent};
use crate::identity::cluster_gate::ClusterGate;

use super::user::{Responder, UserRequest};
use super::{LaneSink, Place, Processors, RoutingTable, SinkRings, UserProcessors};

/// Keeps the answers.
#[derive(Default)]
struct Answers(Mutex<Vec<(ReplyHandle, OutFrame)>>);

impl Transport for Answers {
    fn link(&self, _: &Endpoint, _: ConnectionClass) -> LinkId {
        LinkId(0)
    }

    fn request(
        &self,
        _: LinkId,
        _: RequestContext,
        _: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        Err(SendError::Closed)
    }

    fn reply(&self, handle: ReplyHandle, frame: OutFrame) -> Result<(), SendError> {
        self.0.lock().push((handle, frame));
        Ok(())
    }

    fn flush(&self, _: LinkId) {}

    fn flush_reply(&self, _: ReplyHandle) {}
}

fn local(room: usize) -> LaneSink {
    LaneSink::Local { control: Vec::new(), entries: Vec::new(), room }
}

fn processors(sink: LaneSink) -> (Processors, Arc<Answers>, Arc<RoutingTable>, Arc<UserProcessors>) {
    processors_in("", sink)
}

/// Those of a host that belongs to a cluster.
fn processors_in(
    cluster: &str,
    sink: LaneSink,
) -> (Processors, Arc<Answers>, Arc<RoutingTable>, Arc<UserProcessors>) {
    let answers = Arc::<Answers>::default();
    let routes = Arc::new(RoutingTable::in_cluster(Arc::new(ClusterGate::new(cluster, false))));
    let users = Arc::<UserProcessors>::default();
    let processors =
        Processors::new(Arc::clone(&routes), Arc::clone(&users), Arc::clone(&answers) as _, sink);
    (processors, answers, routes, users)
}

fn handle(connection: u32, request: u32) -> ReplyHandle {
    ReplyHandle { connection, generation: 0, request }
}

fn frame(class: &'static str, content: impl Into<Bytes>) -> RequestFrame {
    RequestFrame {
        id: 1,
        codec: 1,
        class: Bytes::from_static(class.as_bytes()),
        header: Bytes::new(),
        content: content.into(),
        timeout_ms: 5000,
        one_way: false,
    }
}

/// A raft request as it arrives, for group `g` at `a:1`.
fn raft(server: &str, request: RaftRequest) -> RequestFrame {
    raft_in("", server, request)
}

/// A raft request of a cluster.
fn raft_in(cluster_id: &str, server: &str, request: RaftRequest) -> RequestFrame {
    let envelope = Envelope { cluster_id, ..Envelope::new("g", server, "a:1") };
    received(encode_raft_request(1, &envelope, 5000, &request))
}

/// A frame as it arrives.
fn received(frame: OutFrame) -> RequestFrame {
    let bytes = frame.parts.concat();
    let frame = FrameDecoder::new(FrameLimits::default()).decode(&mut BytesMut::from(&bytes[..]));
    match frame {
        Ok(Some(Frame::Request(frame))) => frame,
        other => panic!("{other:?}"),
    }
}

fn with_group(routes: &RoutingTable) -> GroupHandle {
    let handle = GroupHandle { lane: 0, slot: 0, generation: 1 };
    routes.insert("g".parse().unwrap(), "a:1".parse().unwrap(), 0, handle);
    handle
}

/// The errors that were answered, in order.
fn errors(answers: &Answers) -> Vec<Status> {
    let decode = |(_, frame): (ReplyHandle, OutFrame)| {
        let bytes = BytesMut::from(&frame.parts.concat()[..]);
        match FrameDecoder::new(FrameLimits::default()).decode(&mut bytes.clone()) {
            Ok(Some(Frame::Response(ResponseFrame { class, content, .. })))
                if class == class::ERROR_RESPONSE =>
            {
                decode_error_response(&content).unwrap()
            }
            _ => None,
        }
    };
    std::mem::take(&mut *answers.0.lock()).into_iter().filter_map(decode).collect()
}

fn entries(term: u64) -> RaftRequest {
    let mut builder = ChunkBuilder::new();
    builder.push(b"hello");
    RaftRequest::AppendEntries(AppendEntriesRequest {
        kind: AppendKind::Entries,
        term,
        prev_log: LogId::default(),
        committed_index: 0,
        entries: builder.take(1, term).into_iter().map(Arc::new).collect(),
        extensions: Extensions::CONFLICT_HINT,
        rejoined: 0,
        promise_wanted: 0,
    })
}

/// Counts the lines that are written while it is in force.
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

fn lines_of(run: impl FnOnce()) -> usize {
    let count = Arc::<AtomicUsize>::default();
    tracing::subscriber::with_default(Lines(Arc::clone(&count)), run);
    count.load(Ordering::Relaxed)
}

#[test]
fn a_payload_that_was_damaged_on_the_way_reaches_nobody() {
    let (mut processors, answers, routes, _) = processors(local(usize::MAX));
    with_group(&routes);
    let sound = raft("b:1", entries(1));
    let mut damaged = sound.clone();
    let mut content = damaged.content.to_vec();
    *content.last_mut().unwrap() ^= 1;
    damaged.content = content.into();
    assert!(matches!(processors.on_request(handle(1, 1), damaged), Accept::Taken));
    let refusal = errors(&answers).pop().expect("an answer");
    assert_eq!(refusal.error, RaftError::Invalid);
    assert!(refusal.message.contains("damaged on the way"), "{refusal}");
    let (mut control, mut events) = (Vec::new(), Vec::new());
    processors.take_local(&mut control, &mut events);
    events.append(&mut control);
    assert!(events.is_empty(), "nothing was taken");
    assert!(matches!(processors.on_request(handle(1, 2), sound), Accept::Taken));
    processors.take_local(&mut control, &mut events);
    events.append(&mut control);
    assert!(matches!(events[..], [LaneEvent::Request(_)]));
}

/// One of each kind, of a term beyond all others.
fn requests_of_a_stranger() -> [RaftRequest; 5] {
    let vote = |pre_vote| {
        let last_log = LogId::new(1 << 40, 1 << 40);
        let (term, extensions, conf_index) = (1 << 40, Extensions::NONE, 0);
        let transfer = true;
        RaftRequest::RequestVote(RequestVoteRequest {
            term,
            last_log,
            pre_vote,
            transfer,
            extensions,
            conf_index,
        })
    };
    [
        vote(true),
        vote(false),
        entries(1 << 40),
        RaftRequest::TimeoutNow(TimeoutNowRequest { term: 1 << 40 }),
        RaftRequest::ReadIndex(ReadIndexRequest { mode: ReadOnlyOption::Safe }),
    ]
}

/// Whatever another life of a group says, nothing of it is looked at; and all of it writes one line.
#[test]
fn requests_of_another_life_reach_nobody() {
    let (mut processors, answers, routes, _) = processors(local(usize::MAX));
    let handle_of_life = GroupHandle { lane: 0, slot: 0, generation: 1 };
    routes.insert("g".parse().unwrap(), "a:1".parse().unwrap(), 7, handle_of_life);
    let (mut control, mut events) = (Vec::new(), Vec::new());
    let requests = requests_of_a_stranger();
    let of_life = |creation, request: &RaftRequest| {
        let envelope = Envelope { creation, ..Envelope::new("g", "b:1", "a:1") };
        received(encode_raft_request(1, &envelope, 5000, request))
    };
    let lines = lines_of(|| {
        for (creation, request) in [0, 6, 8].iter().flat_map(|n| requests.iter().map(move |r| (*n, r))) {
            let _ = processors.on_request(handle(1, 1), of_life(creation, request));
        }
    });
    processors.take_local(&mut control, &mut events);
    assert!(control.is_empty() && events.is_empty(), "nothing of it was taken");
    assert_eq!(lines, 1);
    let refusals = errors(&answers);
    assert_eq!(refusals.len(), 3 * requests.len());
    assert!(refusals.iter().all(|refusal| refusal.error == RaftError::WrongCreation), "{refusals:?}");
    for request in &requests {
        let _ = processors.on_request(handle(1, 1), of_life(7, request));
    }
    processors.take_local(&mut control, &mut events);
    assert_eq!(control.len() + events.len(), requests.len());
    assert!(errors(&answers).is_empty());
}

/// Whatever another cluster says, nothing of it is looked at; and all of it writes one line.
#[test]
fn requests_of_another_cluster_reach_nobody() {
    let (mut processors, answers, routes, _) = processors_in("ours", local(usize::MAX));
    with_group(&routes);
    let requests = requests_of_a_stranger();
    let (mut control, mut events) = (Vec::new(), Vec::new());
    let lines = lines_of(|| {
        for request in &requests {
            let _ = processors.on_request(handle(1, 1), raft_in("theirs", "b:1", request.clone()));
        }
        for class in [class::RESET_PEER_REQUEST, class::GET_LEADER_REQUEST, class::GROUP_STATE_REQUEST] {
            // Field 1 `g`, and where the message has them field 2 and 3 a peer.
            let peer = [3, b'a', b':', b'1'];
            let mut content = [&[0x0a, 1, b'g', 0x12][..], &peer, &[0x1a], &peer].concat();
            if class == class::GROUP_STATE_REQUEST {
                content.truncate(3);
            }
            put_cluster_id(&mut content, "theirs");
            let _ = processors.on_request(handle(1, 1), frame(class, content));
        }
    });
    processors.take_local(&mut control, &mut events);
    assert!(control.is_empty() && events.is_empty(), "nothing of it was taken");
    assert_eq!(lines, 1);
    let refusals = errors(&answers);
    assert_eq!(refusals.len(), requests.len() + 3);
    for refusal in refusals {
        assert_eq!(refusal.error, RaftError::WrongCluster);
        assert!(
            refusal.message.contains("cluster theirs") && refusal.message.contains("cluster ours"),
            "{refusal}"
        );
    }
    // An id beyond every bound is another cluster's as well.
    let mut content = vec![0x0a, 1, b'g'];
    put_cluster_id(&mut content, &"x".repeat(70_000));
    let _ = processors.on_request(handle(1, 1), frame(class::GROUP_STATE_REQUEST, content));
    let refusal = errors(&answers).pop().expect("refused");
    assert!(refusal.error == RaftError::WrongCluster && refusal.message.len() < 1000, "{refusal}");
    // Those of the own cluster, and of who names none, are handed on.
    for request in &requests {
        for cluster in ["ours", ""] {
            let _ = processors.on_request(handle(1, 1), raft_in(cluster, "b:1", request.clone()));
        }
    }
    processors.take_local(&mut control, &mut events);
    assert_eq!(control.len() + events.len(), 2 * requests.len());
    assert!(errors(&answers).is_empty());
}

/// Shows rule X4.
#[test]
fn ten_thousand_bad_requests_write_a_line_a_kind() {
    let (mut processors, answers, _, users) = processors(local(usize::MAX));
    let panics = |_: UserRequest, _: Responder| panic!("as asked\nERROR forged");
    users.register("test.Panic", Arc::new(panics), Place::Network);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let bad = [
        frame("no\nsuch\x1b[2Jclass", ""),
        frame(class::APPEND_ENTRIES_REQUEST, &[0xff; 40][..]),
        frame(class::REQUEST_VOTE_REQUEST, &[7; 40][..]),
        frame(class::ADD_PEER_REQUEST, &[0xff; 40][..]),
        frame("test.Panic", ""),
    ];
    let lines = lines_of(|| {
        for n in 0..10_000 {
            for frame in &bad {
                let accept = processors.on_request(handle(n, 1), frame.clone());
                assert!(!matches!(accept, Accept::Busy(_)));
                processors.on_turn_end();
            }
        }
    });
    std::panic::set_hook(hook);
    assert_eq!(answers.0.lock().len(), 50_000, "each is answered");
    // Unknown class, raft request, CLI request, panic.
    assert_eq!(lines, 4);
}

#[test]
fn a_sender_whose_name_could_forge_lines_is_refused() {
    let (mut processors, answers, routes, _) = processors(local(usize::MAX));
    with_group(&routes);
    let vote = || RaftRequest::TimeoutNow(TimeoutNowRequest { term: 1 });
    for bad in ["b\nERROR:2", "b\x1b[2J:2", "\u{202e}:2", "b c:2"] {
        processors.on_request(handle(0, 1), raft(bad, vote()));
    }
    assert_eq!(answers.0.lock().len(), 4);
    let (mut control, mut entries): (Vec<LaneEvent>, Vec<LaneEvent>) = (Vec::new(), Vec::new());
    processors.take_local(&mut control, &mut entries);
    assert!(control.is_empty() && entries.is_empty());
    processors.on_request(handle(0, 1), raft("b:2", vote()));
    processors.take_local(&mut control, &mut entries);
    assert_eq!((control.len() + entries.len(), answers.0.lock().len()), (1, 4));
}

/// What is large is not decoded before there is room for it, nor again and again while there is none. Damage that only decoding
/// would find shows which it was.
#[test]
fn a_request_is_not_decoded_before_its_lane_has_room() {
    let (control, _) = ringraft_ring::ring(2);
    let (entries, mut consumer) = ringraft_ring::ring(2);
    let damaged = |server: &str| {
        let mut damaged = raft(server, RaftRequest::TimeoutNow(TimeoutNowRequest { term: 1 }));
        // Field 500, 20,000 bytes, makes it large; what stands behind it is no field.
        let large = [&[0xa2, 0x1f, 0xa0, 0x9c, 0x01][..], &[0; 20_000]].concat();
        damaged.content = [&damaged.content[..], &large, &[0xff, 0xff]].concat().into();
        damaged
    };
    let full = || LaneEvent::Connected(Endpoint("x:1".into()));
    let mut taken = Vec::new();
    let entry_room = Arc::new(EntryRoom::new(usize::MAX));
    let lane = SinkRings { control, entries: entries.clone(), entry_room };
    for (rings, sink) in [(true, LaneSink::Rings(vec![lane.clone()])), (false, local(0))] {
        while entries.try_publish(full()).is_ok() {}
        let (mut processors, answers, routes, _) = processors(sink);
        with_group(&routes);
        for _ in 0..3 {
            let accept = processors.on_request(handle(0, 1), damaged("b:2"));
            assert_eq!(accept, Accept::Busy(damaged("b:2")));
        }
        assert!(answers.0.lock().is_empty());
        // For a group that does not run here no lane's room counts.
        if rings {
            let mut elsewhere = damaged("b:2");
            elsewhere.content = [&[10, 1, b'h'], &elsewhere.content[3..]].concat().into();
            assert_eq!(processors.on_request(handle(0, 2), elsewhere), Accept::Refused);
            answers.0.lock().clear();
        }
        consumer.drain(usize::MAX, &mut taken);
        processors.set_room(1);
        assert_eq!(processors.on_request(handle(0, 1), damaged("b:2")), Accept::Refused);
        assert_eq!(answers.0.lock().len(), 1, "now it is looked at, and answered");
    }
}

/// Shows rule R1: what waits before a lane is bounded in bytes as well as in slots, one request crosses the bound, and the lane gives back what
/// it takes. Control goes on meanwhile.
#[test]
fn entries_before_a_lane_are_bounded_in_bytes() {
    let (wide, _) = ringraft_ring::ring(64);
    let (size, bound) = (1000, 2500);
    let (rings, mut intake) = crate::pipeline::lane_rings(64, 1, 0, bound, None);
    let entry_room = Arc::clone(&rings.entry_room);
    let lane = SinkRings { control: wide, entries: rings.entries.clone(), entry_room };
    let (mut processors, _, routes, _) = processors(LaneSink::Rings(vec![lane]));
    with_group(&routes);
    let with_bytes = || {
        let mut builder = ChunkBuilder::new();
        builder.push(&vec![b'x'; size]);
        let RaftRequest::AppendEntries(mut append) = entries(1) else { panic!("entries") };
        append.entries = vec![Arc::new(builder.take(1, 1).unwrap())];
        append.prev_log = LogId::default();
        raft("b:2", RaftRequest::AppendEntries(append))
    };
    let mut taken = Vec::new();
    for round in 0..3 {
        for request in 0..3 {
            assert_eq!(processors.on_request(handle(0, request), with_bytes()), Accept::Taken, "{round}");
        }
        assert_eq!(processors.on_request(handle(0, 3), with_bytes()), Accept::Busy(with_bytes()), "{round}");
        let question = RaftRequest::ReadIndex(ReadIndexRequest { mode: ReadOnlyOption::Safe });
        assert_eq!(processors.on_request(handle(1, 1), raft("b:2", question)), Accept::Taken);
        intake.drain_entries(2, &mut taken);
        assert_eq!(processors.on_request(handle(0, 3), with_bytes()), Accept::Taken);
        intake.drain_entries(usize::MAX, &mut taken);
        assert_eq!(taken.len(), 4);
        taken.clear();
    }
    // What the ring cannot take needs no room.
    intake.close_bulk();
    for _ in 0..10 {
        assert_eq!(
            processors.on_request(handle(0, 3), with_bytes()),
            Accept::Taken,
            "refused: the host ends"
        );
    }
}

/// A turn in which users have had their time takes no more of their requests, and takes raft's all the same.
#[test]
fn users_do_not_hold_a_turn() {
    let (mut processors, answers, routes, users) = processors(local(usize::MAX));
    with_group(&routes);
    let slow = |request: UserRequest, responder: Responder| {
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(3) {}
        responder.respond("test.Answer", request.content);
    };
    users.register("test.Slow", Arc::new(slow), Place::Network);
    for turn in 0..3 {
        assert_eq!(processors.on_request(handle(0, 1), frame("test.Slow", "x")), Accept::Taken);
        for class in ["test.Slow", class::GET_LEADER_REQUEST, "test.Unknown"] {
            assert_eq!(
                processors.on_request(handle(1, 1), frame(class, "x")),
                Accept::Later(frame(class, "x"))
            );
        }
        let raft = raft("b:2", RaftRequest::TimeoutNow(TimeoutNowRequest { term: 1 }));
        assert_eq!(processors.on_request(handle(2, 1), raft), Accept::Taken);
        assert_eq!(answers.0.lock().len(), turn + 1);
        processors.on_turn_end();
    }
}

#[test]
fn what_is_for_the_worker_waits_there_and_is_bounded() {
    let (mut processors, answers, _, users) = processors(local(usize::MAX));
    let answer =
        |request: UserRequest, responder: Responder| responder.respond("test.Answer", request.content);
    users.register("test.Wide", Arc::new(answer), Place::Worker);
    let mut taken = 0;
    while processors.on_request(handle(0, taken), frame("test.Wide", "x")) == Accept::Taken {
        taken += 1;
        assert!(taken < 1000, "one connection has no end of requests there");
    }
    processors.on_turn_end();
    assert_eq!(processors.on_request(handle(1, 0), frame("test.Wide", "x")), Accept::Taken);
    processors.on_turn_end();
    // A turn in which it is merely offered again and again has not had its share.
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_millis(20) {
        let accept = processors.on_request(handle(0, taken), frame("test.Wide", "x"));
        assert_eq!(accept, Accept::Busy(frame("test.Wide", "x")));
    }
    assert!(answers.0.lock().is_empty(), "the network's thread handles none of them");
    users.close_worker();
    users.run_worker(&(Arc::clone(&answers) as Arc<dyn Transport>));
    assert_eq!(answers.0.lock().len() as u32, taken + 1, "each is answered, though with a refusal");
}
