//! Votes, answers and errors: captured bytes, and the generated code as the other side.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use protobuf::Message;

use super::*;
use crate::bolt::{FrameDecoder, FrameLimits};
use crate::frame::Frame;
use crate::generated::rpc;
use crate::kind::UnknownRequestKind;

const GROUP: &str = "grp";
const SERVER: &str = "127.0.0.1:28083";
const PEER: &str = "127.0.0.1:28082";
const JAVA: Envelope<'_> =
    Envelope { group: GROUP, server_id: SERVER, peer_id: PEER, cluster_id: "", creation: 0 };
const OURS: Envelope<'_> =
    Envelope { group: GROUP, server_id: SERVER, peer_id: PEER, cluster_id: "c0ffee", creation: 300 };

fn receive(frame: &OutFrame) -> Frame {
    let mut buf = BytesMut::from(&frame.parts.concat()[..]);
    FrameDecoder::new(FrameLimits::default()).decode(&mut buf).unwrap().unwrap()
}

fn as_request(request: &RaftRequest) -> RequestFrame {
    in_envelope(&OURS, request)
}

fn as_java(request: &RaftRequest) -> RequestFrame {
    in_envelope(&JAVA, request)
}

fn in_envelope(envelope: &Envelope<'_>, request: &RaftRequest) -> RequestFrame {
    match receive(&encode_raft_request(4, envelope, 1000, request)) {
        Frame::Request(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn as_response(response: &RaftResponse) -> ResponseFrame {
    of_life(0, response)
}

fn of_life(creation: u64, response: &RaftResponse) -> ResponseFrame {
    match receive(&encode_raft_response(4, 1, creation, response)) {
        Frame::Response(frame) => frame,
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn with(class: &'static str, content: Vec<u8>) -> ResponseFrame {
    ResponseFrame {
        id: 4,
        status: ResponseStatus::Success,
        class: Bytes::from_static(class.as_bytes()),
        content: content.into(),
    }
}

fn vote(term: u64, pre_vote: bool) -> RaftRequest {
    RaftRequest::RequestVote(RequestVoteRequest {
        term,
        last_log: LogId::default(),
        pre_vote,
        transfer: false,
        extensions: Extensions::NONE,
        conf_index: 0,
    })
}

fn append(success: bool, last_log_index: Option<u64>) -> RaftResponse {
    RaftResponse::AppendEntries(AppendEntriesResponse {
        term: 1,
        success,
        last_log_index,
        conflict: None,
        rejoining: 0,
        extensions: Extensions::NONE,
        promised: 0,
    })
}

#[test]
fn captured_messages_are_written_as_java_does() {
    let ids = "0a03677270120f3132372e302e302e313a32383038331a0f3132372e302e302e313a3238303832";
    let pre_vote = encode_raft_request(4, &JAVA, 1000, &vote(1, true));
    let head = hex(&pre_vote.parts[0][..22]);
    assert_eq!(head, "01010001010000000401000003e8003800000000002f");
    assert_eq!(hex(&as_java(&vote(1, true)).content), format!("{ids}2001280030003801"));
    assert_eq!(hex(&as_java(&vote(1, false)).content), format!("{ids}2001280030003800"));
    let now = RaftRequest::TimeoutNow(TimeoutNowRequest { term: 1 });
    assert_eq!(hex(&as_java(&now).content), format!("{ids}2001"));
    assert_eq!(as_java(&now).class.len(), 0x37);
    let read = RaftRequest::ReadIndex(ReadIndexRequest { mode: ReadOnlyOption::Safe });
    let ids = "0a03677270120f3132372e302e302e313a3238303833220f3132372e302e302e313a3238303832";
    assert_eq!(hex(&as_java(&read).content), ids, "a Java peer adds users' contexts and its option");

    let granted = RaftResponse::RequestVote(RequestVoteResponse { term: 0, granted: true, removed: None });
    let head = hex(&encode_raft_response(4, 1, 0, &granted).parts[0][..20]);
    assert_eq!(head, "0100000201000000040100000039000000000004");
    for (response, content) in [
        (granted, "08001001"),
        (append(true, Some(0)), "080110011800"),
        (append(true, None), "08011001"),
        (append(false, Some(5)), "080110001805"),
        (RaftResponse::TimeoutNow(TimeoutNowResponse { term: 2, success: true }), "08021001"),
        (RaftResponse::ReadIndex(ReadIndexResponse { index: 3 }), "08031001"),
    ] {
        assert_eq!(hex(&as_response(&response).content), content);
    }
    assert_eq!(hex(&receive_ping()), "08eea3d285a034");
}

fn receive_ping() -> Bytes {
    match receive(&encode_ping(1, 1000, 1_795_308_163_566)) {
        Frame::Request(frame) => frame.content,
        other => panic!("{other:?}"),
    }
}

fn any_request() -> impl Strategy<Value = RaftRequest> {
    let number = 0..=i64::MAX as u64;
    let lease = |lease| if lease { ReadOnlyOption::LeaseBased } else { ReadOnlyOption::Safe };
    let vote = (number.clone(), number.clone(), number.clone(), any::<(bool, bool)>());
    prop_oneof![
        vote.prop_map(|(term, index, last, (pre_vote, transfer))| {
            let last_log = LogId::new(index, last);
            let (extensions, conf_index) = match transfer {
                true => (Extensions(term.rotate_left(7)).with(Extensions::REMOVAL), index),
                false => (Extensions(term.rotate_left(7) & !Extensions::REMOVAL.0), 0),
            };
            let request = RequestVoteRequest { term, last_log, pre_vote, transfer, extensions, conf_index };
            RaftRequest::RequestVote(request)
        }),
        number.prop_map(|term| RaftRequest::TimeoutNow(TimeoutNowRequest { term })),
        any::<bool>().prop_map(move |mode| RaftRequest::ReadIndex(ReadIndexRequest { mode: lease(mode) })),
    ]
}

fn any_response() -> impl Strategy<Value = (RequestKind, RaftResponse)> {
    let number = || 0..=i64::MAX as u64;
    let hint = (number(), number()).prop_map(|(term, first_index)| ConflictHint { term, first_index });
    let appended =
        (number(), any::<(bool, u64)>(), proptest::option::of(number()), proptest::option::of(hint));
    prop_oneof![
        (number(), any::<bool>(), proptest::option::of((number(), number()))).prop_map(
            |(term, granted, removed)| {
                let removed = removed.map(|(index, term)| LogId::new(index, term));
                (
                    RequestKind::RequestVote,
                    RaftResponse::RequestVote(RequestVoteResponse { term, granted, removed }),
                )
            }
        ),
        (number(), any::<bool>()).prop_map(|(term, success)| (
            RequestKind::TimeoutNow,
            RaftResponse::TimeoutNow(TimeoutNowResponse { term, success })
        )),
        appended.prop_map(|(term, (success, promised), last_log_index, conflict)| {
            let rejoining = last_log_index.unwrap_or(0);
            let extensions = Extensions(term.rotate_left(21));
            let response = AppendEntriesResponse {
                term,
                success,
                last_log_index,
                conflict,
                rejoining,
                extensions,
                promised,
            };
            (RequestKind::AppendEntries, RaftResponse::AppendEntries(response))
        }),
        number()
            .prop_map(|index| (RequestKind::ReadIndex, RaftResponse::ReadIndex(ReadIndexResponse { index }))),
        (any::<i32>(), ".{0,20}").prop_filter("0 is no error", |(code, _)| *code != 0).prop_map(
            |(code, text)| (
                RequestKind::AppendEntries,
                RaftResponse::Error(Status::new(RaftError::from_code(code), text))
            )
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_round_trip_and_mean_the_same_to_the_generated_code(request in any_request()) {
        let frame = as_request(&request);
        let incoming = decode_raft_request(&frame).unwrap();
        let IncomingRequest { group, server_id, peer_id, cluster_id, creation, .. } = incoming;
        prop_assert_eq!(Envelope { group, server_id, peer_id, cluster_id, creation }, OURS);
        prop_assert_eq!(&incoming.request, &request);
        prop_assert_eq!(group_of(&frame).unwrap(), GROUP);
        let again = match request {
            RaftRequest::RequestVote(vote) => {
                let message = rpc::RequestVoteRequest::parse_from_tokio_bytes(&frame.content).unwrap();
                prop_assert_eq!(message.term() as u64, vote.term);
                prop_assert_eq!(message.last_log_term() as u64, vote.last_log.term);
                prop_assert_eq!(message.last_log_index() as u64, vote.last_log.index);
                prop_assert_eq!((message.pre_vote(), message.transfer()), (vote.pre_vote, vote.transfer));
                prop_assert_eq!((message.extensions(), message.conf_index()), (vote.extensions.0, vote.conf_index));
                prop_assert_eq!((message.cluster_id(), message.creation()), (OURS.cluster_id, OURS.creation));
                message.write_to_bytes().unwrap()
            }
            RaftRequest::ReadIndex(read) => {
                let message = rpc::ReadIndexRequest::parse_from_tokio_bytes(&frame.content).unwrap();
                prop_assert_eq!((message.server_id(), message.peer_id()), (SERVER, PEER));
                prop_assert_eq!(message.readOnlyOptions.is_some(), read.mode == ReadOnlyOption::LeaseBased);
                message.write_to_bytes().unwrap()
            }
            _ => rpc::TimeoutNowRequest::parse_from_tokio_bytes(&frame.content).unwrap().write_to_bytes().unwrap(),
        };
        prop_assert_eq!(&frame.content[..], &again[..]);
    }

    #[test]
    fn responses_round_trip_and_mean_the_same_to_the_generated_code((kind, response) in any_response(), ours in any::<u64>()) {
        let frame = of_life(ours, &response);
        let creation = if matches!(response, RaftResponse::Error(_)) { 0 } else { ours };
        let incoming = IncomingResponse { creation, response: response.clone() };
        prop_assert_eq!(decode_raft_response(kind, &frame), Ok(incoming));
        let content = &frame.content;
        let again = match &response {
            RaftResponse::RequestVote(response) => {
                let message = rpc::RequestVoteResponse::parse_from_tokio_bytes(content).unwrap();
                prop_assert_eq!(message.removed_index, response.removed.map(|at| at.index));
                prop_assert_eq!(message.removed_term, response.removed.map(|at| at.term));
                prop_assert_eq!(message.creation(), creation);
                message.write_to_bytes().unwrap()
            }
            RaftResponse::TimeoutNow(_) => {
                let message = rpc::TimeoutNowResponse::parse_from_tokio_bytes(content).unwrap();
                prop_assert_eq!(message.creation(), creation);
                message.write_to_bytes().unwrap()
            }
            RaftResponse::AppendEntries(response) => {
                let message = rpc::AppendEntriesResponse::parse_from_tokio_bytes(content).unwrap();
                prop_assert_eq!(message.last_log_index.map(|i| i as u64), response.last_log_index);
                prop_assert_eq!(message.conflict_term, response.conflict.map(|hint| hint.term));
                prop_assert_eq!(message.conflict_first_index, response.conflict.map(|hint| hint.first_index));
                prop_assert_eq!((message.promised(), message.creation()), (response.promised, creation));
                prop_assert!(message.lease_promise.is_none(), "the promise of earlier programs is never given");
                message.write_to_bytes().unwrap()
            }
            RaftResponse::ReadIndex(_) => {
                let message = rpc::ReadIndexResponse::parse_from_tokio_bytes(content).unwrap();
                prop_assert_eq!(message.creation(), creation);
                message.write_to_bytes().unwrap()
            }
            RaftResponse::Error(status) => {
                let message = rpc::ErrorResponse::parse_from_tokio_bytes(content).unwrap();
                prop_assert_eq!((message.errorCode(), message.errorMsg()), (status.error.code(), &status.message[..]));
                message.write_to_bytes().unwrap()
            }
        };
        prop_assert_eq!(&content[..], &again[..]);
    }

    #[test]
    fn noise_never_panics(content in proptest::collection::vec(any::<u8>(), 0..60)) {
        for class in [
            class::APPEND_ENTRIES_RESPONSE,
            class::REQUEST_VOTE_RESPONSE,
            class::READ_INDEX_RESPONSE,
            class::ERROR_RESPONSE,
        ] {
            let frame = with(class, content.clone());
            let _ = decode_raft_response(RequestKind::AppendEntries, &frame);
            let _ = decode_raft_response(RequestKind::RequestVote, &frame);
            let _ = decode_raft_response(RequestKind::ReadIndex, &frame);
            let _ = decode_ping_response(&frame);
        }
        for class in [
            class::REQUEST_VOTE_REQUEST,
            class::TIMEOUT_NOW_REQUEST,
            class::READ_INDEX_REQUEST,
            class::APPEND_ENTRIES_REQUEST,
        ] {
            let frame = RequestFrame { class: Bytes::from_static(class.as_bytes()), content: content.clone().into(), ..as_request(&vote(1, true)) };
            let _ = decode_raft_request(&frame);
            let _ = group_of(&frame);
        }
    }
}

#[test]
fn field_99_is_an_error_unless_it_says_ok() {
    let mut error = rpc::ErrorResponse::new();
    error.set_errorCode(1012);
    error.set_errorMsg("no such group".into());
    let mut message = rpc::AppendEntriesResponse::new();
    message.set_term(3);
    message.set_success(true);
    message.errorResponse = Some(error).into();
    let decode = |message: &rpc::AppendEntriesResponse| {
        let frame = with(class::APPEND_ENTRIES_RESPONSE, message.write_to_bytes().unwrap());
        decode_raft_response(RequestKind::AppendEntries, &frame).unwrap().response
    };
    let status = Status::new(RaftError::NotFound, "no such group");
    assert_eq!(decode(&message), RaftResponse::Error(status));
    message.errorResponse.mut_or_insert_default().set_errorCode(0);
    assert!(matches!(decode(&message), RaftResponse::AppendEntries(r) if r.term == 3 && r.success));
}

#[test]
fn what_is_no_answer_is_refused() {
    let decode = |frame: &ResponseFrame| decode_raft_response(RequestKind::AppendEntries, frame);
    let good = as_response(&append(true, None));
    let failed = ResponseFrame { status: ResponseStatus::ServerSerialException, ..good.clone() };
    assert_eq!(decode(&failed), Err(DecodeError::Status(ResponseStatus::ServerSerialException)));
    let other = as_response(&RaftResponse::RequestVote(RequestVoteResponse {
        term: 1,
        granted: true,
        removed: None,
    }));
    assert!(matches!(decode(&other), Err(DecodeError::Class(_))));
    let ok = with(class::ERROR_RESPONSE, vec![8, 0]);
    assert!(matches!(decode(&ok), Err(DecodeError::Class(_))), "OK is no answer to an append");
    assert_eq!(decode_ping_response(&ok), Ok(None));
    assert!(matches!(decode_raft_response(RequestKind::Typed, &good), Err(DecodeError::Class(_))));

    let content = |bytes: &[u8]| decode(&with(class::APPEND_ENTRIES_RESPONSE, bytes.to_vec()));
    assert!(matches!(content(&[8, 1]), Err(DecodeError::Missing { field: "success", .. })));
    let mut negative = vec![16, 1, 8];
    negative.extend_from_slice(&[0xff; 9]);
    negative.push(1);
    assert!(matches!(content(&negative), Err(DecodeError::Negative { field: "term", value: -1, .. })));
    let alone = content(&[8, 1, 16, 0, 0xc0, 0x3e, 5]);
    assert!(matches!(alone, Err(DecodeError::Alone { field: "conflict_term", .. })));
}

#[test]
fn kinds_travel_as_a_byte() {
    for byte in 0..6 {
        assert_eq!(u8::from(RequestKind::try_from(byte).unwrap()), byte);
    }
    assert_eq!(RequestKind::try_from(6), Err(UnknownRequestKind(6)));
    assert_eq!(RequestKind::of(&vote(1, true)), RequestKind::RequestVote);
    assert_eq!(RequestKind::of_class(class::PING_REQUEST.as_bytes()), Some(RequestKind::Ping));
    assert_eq!(RequestKind::of_class(b"x"), None);
}
