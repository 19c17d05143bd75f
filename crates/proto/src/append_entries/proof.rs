//! The hand-written codec against the generated one, on random, odd and damaged messages.

mod examples;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use protobuf::{EnumOrUnknown, Message};
use ringraft_core::{
    AppendEntriesRequest, AppendKind, ChunkKind, Configuration, EntryChunk, Extensions, InvalidConfiguration,
    LogId, PeerId,
};

use super::decode::decode_content;
use super::*;
use crate::bolt::{FrameDecoder, FrameLimits};
use crate::envelope::Envelope;
use crate::error::{DecodeError, Malformed};
use crate::frame::{Frame, OutFrame, RequestFrame};
use crate::generated::enum_::EntryType;
use crate::generated::raft::EntryMeta;
use crate::generated::rpc::{self, AppendEntriesRequestHeader};

const GROUP: &str = "grp";
const SERVER: &str = "127.0.0.1:28082";
const PEER: &str = "127.0.0.1:28081";
/// What a Java node says of itself.
const JAVA: Envelope<'_> =
    Envelope { group: GROUP, server_id: SERVER, peer_id: PEER, cluster_id: "", creation: 0 };

fn receive(frame: &OutFrame) -> RequestFrame {
    let mut buf = BytesMut::from(&frame.parts.concat()[..]);
    let decoded = FrameDecoder::new(FrameLimits::default()).decode(&mut buf);
    match decoded {
        Ok(Some(Frame::Request(request))) if buf.is_empty() => request,
        other => panic!("{other:?} and {} bytes", buf.len()),
    }
}

fn encode(request: &AppendEntriesRequest) -> RequestFrame {
    receive(&encode_append_entries(7, &envelope(request), 5000, request))
}

/// Requests with extensions come with a cluster and a creation number, most of them.
fn envelope(request: &AppendEntriesRequest) -> Envelope<'static> {
    let Extensions(bits) = request.extensions;
    let cluster_id = ["", "9", "0123456789abcdef0123456789abcdef"][bits as usize % 3];
    Envelope { cluster_id, creation: bits.rotate_left(5), ..JAVA }
}

/// The generated message that stands for `request`.
fn generated(request: &AppendEntriesRequest) -> rpc::AppendEntriesRequest {
    let texts = |peers: &[PeerId]| peers.iter().map(PeerId::to_string).collect();
    let mut message = rpc::AppendEntriesRequest::new();
    message.set_group_id(GROUP.into());
    message.set_server_id(SERVER.into());
    message.set_peer_id(PEER.into());
    message.set_term(request.term as i64);
    message.set_prev_log_term(request.prev_log.term as i64);
    message.set_prev_log_index(request.prev_log.index as i64);
    message.set_committed_index(request.committed_index as i64);
    let mut data = Vec::new();
    for chunk in &request.entries {
        for position in 0..chunk.len() {
            let mut meta = EntryMeta::new();
            meta.set_term(chunk.term() as i64);
            meta.set_data_len(chunk.entry(position).len() as i64);
            data.extend_from_slice(chunk.entry(position));
            match chunk.kind() {
                ChunkKind::NoOp => meta.set_type(EntryType::ENTRY_TYPE_NO_OP),
                ChunkKind::Data => meta.set_type(EntryType::ENTRY_TYPE_DATA),
                ChunkKind::Configuration { conf, old_conf } => {
                    meta.set_type(EntryType::ENTRY_TYPE_CONFIGURATION);
                    meta.peers = texts(&conf.peers);
                    meta.learners = texts(&conf.learners);
                    meta.old_peers = texts(&old_conf.peers);
                    meta.old_learners = texts(&old_conf.learners);
                }
            }
            message.entries.push(meta);
        }
    }
    if !data.is_empty() || request.kind == AppendKind::Probe {
        message.set_data(data.into());
    }
    if request.extensions != Extensions::NONE {
        message.set_extensions(request.extensions.0);
    }
    if request.rejoined != 0 {
        message.set_rejoined(request.rejoined);
    }
    if request.promise_wanted != 0 {
        message.set_promise_wanted(request.promise_wanted);
    }
    if request.extensions != Extensions::NONE && !message.data().is_empty() {
        let crc = crc32c::crc32c(message.data());
        message.set_data_crc(crc);
    }
    let Envelope { cluster_id, creation, .. } = envelope(request);
    if !cluster_id.is_empty() {
        message.set_cluster_id(cluster_id.into());
    }
    if creation != 0 {
        message.set_creation(creation);
    }
    message
}

/// What the generated parser and the documented rules make of a content, entry by entry and without hurry.
fn reference(content: &Bytes) -> Option<AppendEntriesRequest> {
    let message = rpc::AppendEntriesRequest::parse_from_tokio_bytes(content).ok()?;
    let count = |value: i64| u64::try_from(value).ok();
    let peers =
        |texts: &[String]| texts.iter().map(|text| text.parse().ok()).collect::<Option<Vec<PeerId>>>();
    let term = count(message.term())?;
    let prev_log = LogId::new(count(message.prev_log_index())?, count(message.prev_log_term())?);
    let committed_index = count(message.committed_index())?;
    if message.entries.len() > MAX_APPEND_ENTRIES
        || prev_log.index + message.entries.len() as u64 > i64::MAX as u64
    {
        return None;
    }
    let data = message.data();
    if message.data_crc.is_some_and(|crc| crc != crc32c::crc32c(data)) || message.cluster_id().len() > 255 {
        return None;
    }
    let mut runs: Vec<(u64, ChunkKind, Vec<u32>, Vec<u8>)> = Vec::new();
    let (mut at, mut last_term) = (0_usize, prev_log.term);
    for meta in &message.entries {
        let entry_term = count(meta.term())?;
        if entry_term < last_term || entry_term > term {
            return None;
        }
        last_term = entry_term;
        let named = meta.peers.len() + meta.old_peers.len() + meta.learners.len() + meta.old_learners.len();
        if named > 256 {
            return None;
        }
        let kind = match meta.type_?.enum_value().ok()? {
            EntryType::ENTRY_TYPE_UNKNOWN => return None,
            EntryType::ENTRY_TYPE_NO_OP if named == 0 => ChunkKind::NoOp,
            EntryType::ENTRY_TYPE_DATA if named == 0 => ChunkKind::Data,
            EntryType::ENTRY_TYPE_CONFIGURATION => {
                let conf = Configuration { peers: peers(&meta.peers)?, learners: peers(&meta.learners)? };
                let old_conf =
                    Configuration { peers: peers(&meta.old_peers)?, learners: peers(&meta.old_learners)? };
                conf.validate().ok()?;
                if !matches!(old_conf.validate(), Ok(()) | Err(InvalidConfiguration::NoVoter)) {
                    return None;
                }
                ChunkKind::Configuration { conf, old_conf }
            }
            _ => return None,
        };
        let end = at.checked_add(usize::try_from(meta.data_len()).ok()?)?;
        let payload = data.get(at..end)?;
        at = end;
        let alone = matches!(kind, ChunkKind::Configuration { .. });
        match runs.last_mut() {
            Some((t, k, ends, bytes)) if !alone && *t == entry_term && *k == kind => {
                bytes.extend_from_slice(payload);
                ends.push(bytes.len() as u32);
            }
            _ => runs.push((entry_term, kind, vec![payload.len() as u32], payload.to_vec())),
        }
    }
    if at != data.len() {
        return None;
    }
    let mut entries = Vec::new();
    let mut next = prev_log.index + 1;
    for (run_term, kind, ends, payload) in runs {
        let count = ends.len() as u64;
        entries.push(Arc::new(EntryChunk::from_parts(next, run_term, kind, ends, payload.into()).ok()?));
        next += count;
    }
    let kind = match (entries.is_empty(), message.has_data()) {
        (false, _) => AppendKind::Entries,
        (true, true) => AppendKind::Probe,
        (true, false) => AppendKind::Heartbeat,
    };
    let extensions = Extensions(message.extensions());
    let (rejoined, promise_wanted) = (message.rejoined(), message.promise_wanted());
    Some(AppendEntriesRequest {
        kind,
        term,
        prev_log,
        committed_index,
        entries,
        extensions,
        rejoined,
        promise_wanted,
    })
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let payload = prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => (0_usize..200_000).prop_map(|len| vec![0x5a; len]),
        1 => Just(vec![1; 127]), 1 => Just(vec![2; 128]), 1 => Just(vec![3; 16_384]),
    ];
    proptest::collection::vec(payload, 1..20)
}

fn kinds() -> impl Strategy<Value = (ChunkKind, Vec<Vec<u8>>)> {
    let configuration = ("a:1,b:2::7,c:3/learner", "x:1:9,y:2");
    let conf: Configuration = configuration.0.parse().unwrap();
    let old_conf: Configuration = configuration.1.parse().unwrap();
    let joint = ChunkKind::Configuration { conf: conf.clone(), old_conf };
    let plain = ChunkKind::Configuration { conf, old_conf: Configuration::default() };
    prop_oneof![
        5 => payloads().prop_map(|p| (ChunkKind::Data, p)),
        1 => payloads().prop_map(|p| (ChunkKind::NoOp, p)),
        1 => Just((joint, vec![vec![]])),
        1 => Just((plain, vec![vec![]])),
    ]
}

/// Any request that a leader could send, its chunks as a decoder would cut them.
fn requests() -> impl Strategy<Value = AppendEntriesRequest> {
    let number = prop_oneof![0_u64..200, (1_u64 << 40)..(1 << 41), Just((1_u64 << 62) - 1)];
    let chunks = proptest::collection::vec((0_u64..3, kinds()), 0..5);
    (number.clone(), number, 0_u64..1000, chunks, any::<bool>(), prop_oneof![Just(0), any::<u64>()]).prop_map(
        |(index, term, committed_index, chunks, probe, extensions)| {
            let prev_log = LogId::new(index, term);
            let (mut last, mut entries) = (prev_log, Vec::<Arc<EntryChunk>>::new());
            for (step, (kind, payloads)) in chunks {
                let alike = |c: &Arc<EntryChunk>| {
                    c.kind() == &kind && !matches!(kind, ChunkKind::Configuration { .. })
                };
                // Two runs of one kind need different terms, or they would be one.
                let step = if entries.last().is_some_and(alike) { step.max(1) } else { step };
                let mut ends = Vec::new();
                let mut payload = Vec::new();
                for bytes in payloads {
                    payload.extend_from_slice(&bytes);
                    ends.push(payload.len() as u32);
                }
                let (first, term) = (last.index + 1, last.term + step);
                let chunk = EntryChunk::from_parts(first, term, kind, ends, payload.into()).unwrap();
                last = chunk.last_id();
                entries.push(Arc::new(chunk));
            }
            let kind = match (entries.is_empty(), probe) {
                (false, _) => AppendKind::Entries,
                (true, true) => AppendKind::Probe,
                (true, false) => AppendKind::Heartbeat,
            };
            AppendEntriesRequest {
                kind,
                term: last.term + 1,
                prev_log,
                committed_index,
                entries,
                extensions: Extensions(extensions),
                rejoined: extensions.rotate_left(17),
                promise_wanted: extensions.rotate_left(31),
            }
        },
    )
}

fn same_outcome(content: Bytes) {
    let by_hand = decode_content(&content);
    let expected = reference(&content);
    match (by_hand, expected) {
        (Ok(incoming), Some(expected)) => assert_eq!(incoming.request, expected),
        (Err(_), None) => {}
        // Groups are the one construct that only the generated parser passes over.
        (Err(DecodeError::Malformed { reason: Malformed::Group, .. }), Some(_)) => {}
        (by_hand, expected) => panic!("by hand {by_hand:?}, by the generated code {expected:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_by_hand_is_what_the_generated_code_means(request in requests()) {
        let frame = encode(&request);
        let parsed = rpc::AppendEntriesRequest::parse_from_tokio_bytes(&frame.content).unwrap();
        prop_assert_eq!(&parsed, &generated(&request));
        let header = AppendEntriesRequestHeader::parse_from_tokio_bytes(&frame.header).unwrap();
        prop_assert_eq!((header.group_id(), header.server_id(), header.peer_id()), (GROUP, SERVER, PEER));
        if request.extensions == Extensions::NONE && request.rejoined == 0 && request.promise_wanted == 0 {
            prop_assert_eq!(&frame.content[..], &parsed.write_to_bytes().unwrap()[..], "byte for byte");
        }
    }

    #[test]
    fn both_encodings_decode_by_hand_to_the_request(request in requests()) {
        let frame = encode(&request);
        let incoming = decode_append_entries(&frame).unwrap();
        let IncomingAppendEntries { group, server_id, peer_id, cluster_id, creation, .. } = incoming;
        prop_assert_eq!(Envelope { group, server_id, peer_id, cluster_id, creation }, envelope(&request));
        prop_assert_eq!(&incoming.request, &request);
        let content = Bytes::from(generated(&request).write_to_bytes().unwrap());
        prop_assert_eq!(&decode_content(&content).unwrap().request, &request);
    }

    #[test]
    fn damaged_messages_fare_alike(
        request in requests(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut content = encode(&request).content.to_vec();
        // Damage is of interest in front of the payload.
        let front = content.len().min(600);
        for (at, byte, how) in changes {
            let at = at.index(front.min(content.len()).max(1));
            match how {
                0 => content[at] = byte,
                1 => content[at] ^= 1 << (byte & 7),
                2 => content.insert(at, byte),
                _ => { content.remove(at); }
            }
            if content.is_empty() { break; }
        }
        same_outcome(content.into());
    }

    #[test]
    fn cut_messages_fare_alike(request in requests(), at in any::<prop::sample::Index>()) {
        let content = encode(&request).content;
        same_outcome(content.slice(..at.index(content.len() + 1)));
    }

    #[test]
    fn odd_messages_fare_alike(
        metas in proptest::collection::vec(
            (any::<bool>(), 0_i64..5, -1..4_i32, prop_oneof![-1_i64..3, Just(i64::MAX), Just(300)], any::<bool>(), 0..3_usize),
            0..12,
        ),
        data in prop_oneof![Just(None), proptest::collection::vec(any::<u8>(), 0..20).prop_map(Some)],
        numbers in (0_i64..6, -1_i64..3, prop_oneof![-1_i64..9, Just(i64::MAX - 3)], -1_i64..3),
        lengths in any::<bool>(),
    ) {
        let mut message = rpc::AppendEntriesRequest::new();
        message.set_group_id(GROUP.into());
        message.set_server_id(SERVER.into());
        message.set_peer_id(PEER.into());
        message.set_term(numbers.0);
        message.set_prev_log_term(numbers.1);
        message.set_prev_log_index(numbers.2);
        message.set_committed_index(numbers.3);
        let mut total = 0;
        for (checksum, term, kind, len, with_len, peers) in metas {
            let mut meta = EntryMeta::new();
            meta.set_term(term);
            meta.type_ = Some(EnumOrUnknown::from_i32(kind));
            if with_len {
                meta.set_data_len(len);
                total += len.clamp(0, 400);
            }
            if checksum { meta.set_checksum(-len); }
            meta.peers = (0..peers).map(|p| format!("h:{p}")).collect();
            message.entries.push(meta);
        }
        // Half of the time the payload is as long as the entries say.
        match data {
            Some(_) if lengths => message.set_data(vec![9; total as usize].into()),
            Some(data) => message.set_data(data.into()),
            None => {}
        }
        same_outcome(message.write_to_bytes().unwrap().into());
    }

    #[test]
    fn fields_come_in_any_order(request in requests(), turn in any::<prop::sample::Index>()) {
        let message = generated(&request);
        let mut fields = split(&message.write_to_bytes().unwrap());
        let turn = turn.index(fields.len());
        // Entries keep their order among themselves; everything else goes around them.
        let (entries, mut others): (Vec<_>, Vec<_>) = fields.drain(..).partition(|f| f[0] == tag::ENTRIES as u8);
        let count = others.len();
        others.rotate_left(turn % count);
        others.insert(turn % count, vec![0xfa, 0x7f, 2, 1, 1]); // an unknown field
        let middle = others.split_off(turn % count);
        let content = [others, entries, middle].concat().concat();
        prop_assert_eq!(&decode_content(&content.into()).unwrap().request, &request);
    }

    #[test]
    fn noise_is_no_message(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        same_outcome(content.into());
    }
}

/// The top-level fields of a message, each with its tag.
fn split(content: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = crate::wire::Reader::new(content);
    let mut fields = Vec::new();
    let mut start = 0;
    while let Some(tag) = reader.tag().unwrap() {
        reader.skip(tag).unwrap();
        fields.push(content[start..reader.position()].to_vec());
        start = reader.position();
    }
    fields
}

fn chunk(first: u64, payloads: &[&[u8]]) -> Arc<EntryChunk> {
    let mut builder = ringraft_core::ChunkBuilder::new();
    payloads.iter().for_each(|p| builder.push(p));
    Arc::new(builder.take(first, 1).unwrap())
}

fn request(entries: Vec<Arc<EntryChunk>>) -> AppendEntriesRequest {
    AppendEntriesRequest {
        kind: AppendKind::Entries,
        term: 1,
        prev_log: LogId::new(1, 1),
        committed_index: 1,
        entries,
        extensions: Extensions::NONE,
        rejoined: 0,
        promise_wanted: 0,
    }
}
