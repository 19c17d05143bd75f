//! Generated messages to frames and back: CLI, and what users ask an AtomicServer.

use protobuf::Message;
use ringraft_core::{RaftError, Status};

use crate::bolt::{encode_request_shared, encode_response_shared};
use crate::class;
use crate::error::DecodeError;
use crate::frame::{OutFrame, RequestFrame, ResponseFrame, ResponseStatus};
use crate::generated::{atomic, cli, group_state, rpc};
use crate::messages::{decode_error_response, unexpected};

/// A generated message that travels as the content of a Bolt frame.
pub trait BoltMessage: Message {
    /// The class that frames name for it.
    const CLASS: &'static str;

    /// Its `errorResponse`, field 99 of SOFAJRaft's responses, if it has one and that is set.
    fn error_response(&self) -> Option<&rpc::ErrorResponse> {
        None
    }
}

/// A generated message that lacks a required field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} cannot be encoded: {reason}")]
pub struct EncodeError {
    /// Class of the message.
    pub message: &'static str,
    /// What is missing.
    pub reason: String,
}

macro_rules! bolt_messages {
    ($($message:path = $class:ident $(, $error:ident)?;)*) => {
        $(impl BoltMessage for $message {
            const CLASS: &'static str = class::$class;
            $(fn error_response(&self) -> Option<&rpc::ErrorResponse> {
                self.$error.as_ref()
            })?
        })*
    };
}

bolt_messages! {
    group_state::GroupStateRequest = GROUP_STATE_REQUEST;
    group_state::GroupStateResponse = GROUP_STATE_RESPONSE;
    rpc::PingRequest = PING_REQUEST;
    rpc::ErrorResponse = ERROR_RESPONSE;
    rpc::InstallSnapshotRequest = INSTALL_SNAPSHOT_REQUEST;
    rpc::InstallSnapshotResponse = INSTALL_SNAPSHOT_RESPONSE, errorResponse;
    rpc::GetFileRequest = GET_FILE_REQUEST;
    rpc::GetFileResponse = GET_FILE_RESPONSE, errorResponse;
    rpc::ReadIndexRequest = READ_INDEX_REQUEST;
    rpc::ReadIndexResponse = READ_INDEX_RESPONSE, errorResponse;
    cli::AddPeerRequest = ADD_PEER_REQUEST;
    cli::AddPeerResponse = ADD_PEER_RESPONSE, errorResponse;
    cli::RemovePeerRequest = REMOVE_PEER_REQUEST;
    cli::RemovePeerResponse = REMOVE_PEER_RESPONSE, errorResponse;
    cli::ChangePeersRequest = CHANGE_PEERS_REQUEST;
    cli::ChangePeersResponse = CHANGE_PEERS_RESPONSE, errorResponse;
    cli::SnapshotRequest = SNAPSHOT_REQUEST;
    cli::ResetPeerRequest = RESET_PEER_REQUEST;
    cli::TransferLeaderRequest = TRANSFER_LEADER_REQUEST;
    cli::GetLeaderRequest = GET_LEADER_REQUEST;
    cli::GetLeaderResponse = GET_LEADER_RESPONSE, errorResponse;
    cli::GetPeersRequest = GET_PEERS_REQUEST;
    cli::GetPeersResponse = GET_PEERS_RESPONSE, errorResponse;
    cli::AddLearnersRequest = ADD_LEARNERS_REQUEST;
    cli::RemoveLearnersRequest = REMOVE_LEARNERS_REQUEST;
    cli::ResetLearnersRequest = RESET_LEARNERS_REQUEST;
    cli::LearnersOpResponse = LEARNERS_OP_RESPONSE, errorResponse;
    atomic::SetRequest = ATOMIC_SET_REQUEST;
    atomic::CompareAndSetRequest = ATOMIC_COMPARE_AND_SET_REQUEST;
    atomic::IncrementAndGetRequest = ATOMIC_INCREMENT_AND_GET_REQUEST;
    atomic::GetRequest = ATOMIC_GET_REQUEST;
    atomic::GetSlotsRequest = ATOMIC_GET_SLOTS_REQUEST;
    atomic::BooleanResponse = ATOMIC_BOOLEAN_RESPONSE;
    atomic::ValueResponse = ATOMIC_VALUE_RESPONSE;
    atomic::SlotsResponse = ATOMIC_SLOTS_RESPONSE;
}

/// Serializes a message; what [`encode_typed_request`] and [`encode_typed_response`] put on a frame.
///
/// # Errors
/// [`EncodeError`] when a required field is not set.
pub fn serialize<M: BoltMessage>(message: &M) -> Result<Vec<u8>, EncodeError> {
    message.write_to_bytes().map_err(|error| EncodeError { message: M::CLASS, reason: error.to_string() })
}

/// A request whose content is a generated message.
///
/// # Errors
/// [`EncodeError`] when a required field is not set.
///
/// # Panics
/// As [`encode_request_shared`].
pub fn encode_typed_request<M: BoltMessage>(
    id: u32,
    timeout_ms: i32,
    message: &M,
) -> Result<OutFrame, EncodeError> {
    Ok(encode_request_shared(id, M::CLASS, timeout_ms, b"", serialize(message)?.into()))
}

/// A successful answer whose content is a generated message.
///
/// # Errors
/// [`EncodeError`] when a required field is not set.
///
/// # Panics
/// As [`encode_response_shared`].
pub fn encode_typed_response<M: BoltMessage>(
    id: u32,
    codec: u8,
    message: &M,
) -> Result<OutFrame, EncodeError> {
    let content = serialize(message)?.into();
    Ok(encode_response_shared(id, codec, ResponseStatus::Success, M::CLASS, content))
}

fn parse<M: BoltMessage>(content: &bytes::Bytes) -> Result<M, DecodeError> {
    M::parse_from_tokio_bytes(content)
        .map_err(|error| DecodeError::Protobuf { message: M::CLASS, reason: error.to_string() })
}

/// The message of a request. Its `bytes` fields share the receive buffer.
///
/// # Errors
/// [`DecodeError::Class`] when the frame carries another message, [`DecodeError::Protobuf`] when it is damaged.
pub fn decode_typed_request<M: BoltMessage>(frame: &RequestFrame) -> Result<M, DecodeError> {
    if frame.class != M::CLASS {
        return Err(unexpected(&frame.class));
    }
    parse(&frame.content)
}

/// The message of a response, or the failure that the peer reports instead: an `ErrorResponse` in its place or in
/// its field 99. Its `bytes` fields share the receive buffer.
///
/// To read an answer that *is* an `ErrorResponse` (Ping, some of CLI), use
/// [`decode_ping_response`](crate::decode_ping_response).
///
/// # Errors
/// [`DecodeError`] when there is no answer: no success, another message, damaged.
pub fn decode_typed_response<M: BoltMessage>(
    frame: &ResponseFrame,
) -> Result<Result<M, Status>, DecodeError> {
    if frame.status != ResponseStatus::Success {
        return Err(DecodeError::Status(frame.status));
    }
    if frame.class == class::ERROR_RESPONSE {
        return match decode_error_response(&frame.content)? {
            Some(status) => Ok(Err(status)),
            None => Err(unexpected(&frame.class)),
        };
    }
    if frame.class != M::CLASS {
        return Err(unexpected(&frame.class));
    }
    let message: M = parse(&frame.content)?;
    match message.error_response() {
        Some(error) if error.errorCode() != 0 => {
            Ok(Err(Status::new(RaftError::from_code(error.errorCode()), error.errorMsg())))
        }
        _ => Ok(Ok(message)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bolt::{FrameDecoder, FrameLimits, encode_error_response, encode_response};
    use crate::frame::Frame;

    fn receive(frame: OutFrame) -> Frame {
        let mut buf = bytes::BytesMut::from(&frame.parts.concat()[..]);
        FrameDecoder::new(FrameLimits::default()).decode(&mut buf).unwrap().unwrap()
    }

    fn response(frame: OutFrame) -> ResponseFrame {
        match receive(frame) {
            Frame::Response(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn ids(prefix: u8, ports: &[u32]) -> Vec<u8> {
        let field = |port: &u32| [&[prefix, 15][..], format!("127.0.0.1:{port}").as_bytes()].concat();
        ports.iter().flat_map(field).collect()
    }

    #[test]
    fn captured_cli_messages_are_read_and_written() {
        let mut ask = cli::GetLeaderRequest::new();
        ask.set_group_id("grp".into());
        ask.set_peer_id("127.0.0.1:28081".into());
        let Frame::Request(frame) = receive(encode_typed_request(1, 5000, &ask).unwrap()) else { panic!() };
        assert_eq!(frame.class.len(), 0x36);
        assert_eq!(frame.content, [&b"\x0a\x03grp"[..], &ids(0x12, &[28081])].concat());
        assert_eq!(decode_typed_request::<cli::GetLeaderRequest>(&frame).unwrap(), ask);
        assert!(matches!(decode_typed_request::<cli::GetPeersRequest>(&frame), Err(DecodeError::Class(_))));

        let content = [ids(0x0a, &[28081, 28082, 28083, 28084]), ids(0x12, &[28085])].concat();
        let frame =
            response(encode_response(2, 1, ResponseStatus::Success, class::GET_PEERS_RESPONSE, &content));
        assert_eq!(frame.class.len(), 0x36);
        let peers: cli::GetPeersResponse = decode_typed_response(&frame).unwrap().unwrap();
        assert_eq!((peers.peers.len(), &peers.learners[..]), (4, &["127.0.0.1:28085".to_owned()][..]));
        assert_eq!(response(encode_typed_response(2, 1, &peers).unwrap()), frame);
    }

    #[test]
    fn a_failure_comes_in_either_form() {
        let busy = Status::new(RaftError::Busy, "full");
        let frame = response(encode_error_response(1, 1, Some(&busy)));
        assert_eq!(decode_typed_response::<cli::GetLeaderResponse>(&frame), Ok(Err(busy.clone())));

        let mut answer = cli::GetLeaderResponse::new();
        answer.set_leader_id("a:1".into());
        let mut error = rpc::ErrorResponse::new();
        error.set_errorCode(1009);
        error.set_errorMsg("full".into());
        answer.errorResponse = Some(error).into();
        let frame = response(encode_typed_response(1, 1, &answer).unwrap());
        assert_eq!(decode_typed_response::<cli::GetLeaderResponse>(&frame), Ok(Err(busy)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let ok = response(encode_error_response(1, 1, None));
        assert!(matches!(decode_typed_response::<cli::GetLeaderResponse>(&ok), Err(DecodeError::Class(_))));
        let damaged = ResponseFrame {
            class: Bytes::from_static(class::GET_LEADER_RESPONSE.as_bytes()),
            content: Bytes::from_static(&[0x0a, 9]),
            ..ok.clone()
        };
        assert!(matches!(
            decode_typed_response::<cli::GetLeaderResponse>(&damaged),
            Err(DecodeError::Protobuf { .. })
        ));
        let failed = ResponseFrame { status: ResponseStatus::ServerException, ..ok };
        assert_eq!(
            decode_typed_response::<cli::GetLeaderResponse>(&failed),
            Err(DecodeError::Status(ResponseStatus::ServerException))
        );
        assert!(encode_typed_request(1, 1, &cli::GetLeaderRequest::new()).is_err(), "group_id is required");
    }

    #[test]
    fn a_user_request_round_trips() {
        let mut ask = atomic::CompareAndSetRequest::new();
        ask.key = "k".into();
        (ask.expect, ask.new_value) = (-1, 7);
        let Frame::Request(frame) = receive(encode_typed_request(1, 5000, &ask).unwrap()) else { panic!() };
        assert_eq!(frame.class, "ringraft.atomic.CompareAndSetRequest");
        assert_eq!(decode_typed_request::<atomic::CompareAndSetRequest>(&frame).unwrap(), ask);
    }
}
