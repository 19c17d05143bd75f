//! Core's requests and responses to frames and back.

use bytes::BufMut;
use ringraft_core::{
    AppendEntriesResponse, ConflictHint, Extensions, LogId, RaftError, RaftRequest, RaftResponse,
    ReadIndexRequest, ReadIndexResponse, ReadOnlyOption, RequestVoteRequest, RequestVoteResponse, Status,
    TimeoutNowRequest, TimeoutNowResponse,
};

use crate::append_entries::{decode_append_entries, encode_append_entries};
use crate::bolt::{encode_error_response, encode_request, encode_response};
use crate::class;
use crate::envelope::{CLUSTER_ID, CREATION, Envelope, put_creation};
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::frame::{OutFrame, RequestFrame, ResponseFrame, ResponseStatus};
use crate::kind::RequestKind;
use crate::wire::{put_delimited, put_varint};

/// Tag of `errorResponse`, field 99 of every typed response.
const ERROR_RESPONSE: u32 = 99 << 3 | 2;
/// Tags of ringraft's own fields of AppendEntriesResponse.
const CONFLICT_TERM: u32 = 1000 << 3;
const CONFLICT_FIRST_INDEX: u32 = 1001 << 3;
const REJOINING: u32 = 1003 << 3;
const EXTENSIONS: u32 = 1004 << 3;
const PROMISED: u32 = 1006 << 3;
/// Tag of ringraft's own field of RequestVoteRequest.
const TRANSFER: u32 = 1000 << 3;
// Of RequestVoteRequest.
const VOTE_EXTENSIONS: u32 = 1001 << 3;
const CONF_INDEX: u32 = 1002 << 3;
// Of RequestVoteResponse. The numbers are those of a conflict hint, which is another message's.
const REMOVED_INDEX: u32 = CONFLICT_TERM;
const REMOVED_TERM: u32 = CONFLICT_FIRST_INDEX;

/// A received request of the core with its envelope, which borrows from the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingRequest<'a> {
    /// The group's id.
    pub group: &'a str,
    /// Peer id of the sender, as it writes it.
    pub server_id: &'a str,
    /// Peer id of the receiver, as the sender writes it.
    pub peer_id: &'a str,
    /// The sender's cluster; empty when it names none.
    pub cluster_id: &'a str,
    /// Creation number of the group as the sender knows it; 0 for none.
    pub creation: u64,
    /// What is asked.
    pub request: RaftRequest,
}

/// A received answer to a request of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingResponse {
    /// Creation number of the responder's group; 0 for none, and from who does not know such numbers. An error carries none.
    pub creation: u64,
    /// The answer.
    pub response: RaftResponse,
}

impl From<RaftResponse> for IncomingResponse {
    /// An answer in a group without a creation number.
    fn from(response: RaftResponse) -> IncomingResponse {
        IncomingResponse { creation: 0, response }
    }
}

/// Encodes a request of the core.
///
/// # Panics
/// As [`encode_append_entries`].
pub fn encode_raft_request(
    id: u32,
    envelope: &Envelope<'_>,
    timeout_ms: i32,
    request: &RaftRequest,
) -> OutFrame {
    let Envelope { group, server_id, peer_id, .. } = *envelope;
    let mut content = Vec::new();
    let mut put_envelope = || {
        content.reserve(192);
        put_delimited(&mut content, 10, group.as_bytes());
        put_delimited(&mut content, 18, server_id.as_bytes());
        put_delimited(&mut content, 26, peer_id.as_bytes());
    };
    match request {
        RaftRequest::AppendEntries(request) => encode_append_entries(id, envelope, timeout_ms, request),
        RaftRequest::RequestVote(request) => {
            put_envelope();
            put_number(&mut content, 32, request.term);
            put_number(&mut content, 40, request.last_log.term);
            put_number(&mut content, 48, request.last_log.index);
            put_number(&mut content, 56, u64::from(request.pre_vote));
            if request.transfer {
                put_varint(&mut content, u64::from(TRANSFER));
                put_varint(&mut content, 1);
            }
            if request.extensions != Extensions::NONE {
                put_varint(&mut content, u64::from(VOTE_EXTENSIONS));
                put_varint(&mut content, request.extensions.0);
            }
            if request.extensions.contains(Extensions::REMOVAL) {
                put_varint(&mut content, u64::from(CONF_INDEX));
                put_varint(&mut content, request.conf_index);
            }
            envelope.put_own(&mut content);
            encode_request(id, class::REQUEST_VOTE_REQUEST, timeout_ms, b"", &content)
        }
        RaftRequest::TimeoutNow(request) => {
            put_envelope();
            put_number(&mut content, 32, request.term);
            envelope.put_own(&mut content);
            encode_request(id, class::TIMEOUT_NOW_REQUEST, timeout_ms, b"", &content)
        }
        RaftRequest::ReadIndex(request) => {
            put_delimited(&mut content, 10, group.as_bytes());
            put_delimited(&mut content, 18, server_id.as_bytes());
            put_delimited(&mut content, 34, peer_id.as_bytes());
            if request.mode == ReadOnlyOption::LeaseBased {
                put_number(&mut content, 40, 1);
            }
            envelope.put_own(&mut content);
            encode_request(id, class::READ_INDEX_REQUEST, timeout_ms, b"", &content)
        }
    }
}

/// Encodes the answer to request `id`, whose codec byte it repeats. `creation` is the creation number of the group that answers; errors
/// do not carry it.
pub fn encode_raft_response(id: u32, codec: u8, creation: u64, response: &RaftResponse) -> OutFrame {
    // Largest: nine numbers, of which six have two-byte tags.
    let mut room = [0; 108];
    let mut rest = &mut room[..];
    let class = match response {
        RaftResponse::AppendEntries(response) => {
            put_number(&mut rest, 8, response.term);
            put_number(&mut rest, 16, u64::from(response.success));
            if let Some(index) = response.last_log_index {
                put_number(&mut rest, 24, index);
            }
            if let Some(hint) = response.conflict {
                put_varint(&mut rest, u64::from(CONFLICT_TERM));
                put_varint(&mut rest, hint.term);
                put_varint(&mut rest, u64::from(CONFLICT_FIRST_INDEX));
                put_varint(&mut rest, hint.first_index);
            }
            if response.rejoining != 0 {
                put_varint(&mut rest, u64::from(REJOINING));
                put_varint(&mut rest, response.rejoining);
            }
            if response.extensions != Extensions::NONE {
                put_varint(&mut rest, u64::from(EXTENSIONS));
                put_varint(&mut rest, response.extensions.0);
            }
            if response.promised != 0 {
                put_varint(&mut rest, u64::from(PROMISED));
                put_varint(&mut rest, response.promised);
            }
            class::APPEND_ENTRIES_RESPONSE
        }
        RaftResponse::RequestVote(response) => {
            put_number(&mut rest, 8, response.term);
            put_number(&mut rest, 16, u64::from(response.granted));
            if let Some(at) = response.removed {
                put_varint(&mut rest, u64::from(REMOVED_INDEX));
                put_varint(&mut rest, at.index);
                put_varint(&mut rest, u64::from(REMOVED_TERM));
                put_varint(&mut rest, at.term);
            }
            class::REQUEST_VOTE_RESPONSE
        }
        RaftResponse::TimeoutNow(response) => {
            put_number(&mut rest, 8, response.term);
            put_number(&mut rest, 16, u64::from(response.success));
            class::TIMEOUT_NOW_RESPONSE
        }
        RaftResponse::ReadIndex(response) => {
            put_number(&mut rest, 8, response.index);
            put_number(&mut rest, 16, 1);
            class::READ_INDEX_RESPONSE
        }
        RaftResponse::Error(status) => return encode_error_response(id, codec, Some(status)),
    };
    put_creation(&mut rest, creation);
    let left = rest.len();
    encode_response(id, codec, ResponseStatus::Success, class, &room[..room.len() - left])
}

fn put_number(buf: &mut impl BufMut, tag: u8, value: u64) {
    buf.put_u8(tag);
    put_varint(buf, value);
}

/// The group that a raft request is for, without decoding the rest: field 1 of every raft request.
///
/// # Errors
/// [`DecodeError`] when the content does not begin with a group id. (Senders write fields in ascending order.)
pub fn group_of(frame: &RequestFrame) -> Result<&str, DecodeError> {
    const MESSAGE: &str = "raft request";
    let malformed = |reason| DecodeError::Malformed { message: MESSAGE, reason };
    let mut reader = crate::wire::Reader::new(&frame.content);
    match reader.tag().map_err(malformed)? {
        Some(10) => reader.text().map_err(malformed),
        _ => Err(DecodeError::Missing { message: MESSAGE, field: "group_id" }),
    }
}

/// Decodes a request for the core.
///
/// # Errors
/// [`DecodeError`]; of kind [`DecodeError::Class`] when the frame carries something else. The sender should get an
/// error answer; the connection can go on.
pub fn decode_raft_request(frame: &RequestFrame) -> Result<IncomingRequest<'_>, DecodeError> {
    match RequestKind::of_class(&frame.class) {
        Some(RequestKind::AppendEntries) => {
            let incoming = decode_append_entries(frame)?;
            Ok(IncomingRequest {
                group: incoming.group,
                server_id: incoming.server_id,
                peer_id: incoming.peer_id,
                cluster_id: incoming.cluster_id,
                creation: incoming.creation,
                request: RaftRequest::AppendEntries(incoming.request),
            })
        }
        Some(RequestKind::RequestVote) => {
            let tags =
                [10, 18, 26, 32, 40, 48, 56, TRANSFER, VOTE_EXTENSIONS, CONF_INDEX, CLUSTER_ID, CREATION];
            let fields = Fields::read("RequestVoteRequest", &frame.content, tags)?;
            let last_log =
                LogId::new(fields.count(48, "last_log_index")?, fields.count(40, "last_log_term")?);
            let pre_vote = fields.flag(56, "pre_vote")?;
            let term = fields.count(32, "term")?;
            let transfer = fields.optional_count(TRANSFER, "transfer")?.is_some_and(|mark| mark != 0);
            let extensions = Extensions(fields.number(VOTE_EXTENSIONS).unwrap_or(0));
            let conf_index = match extensions.contains(Extensions::REMOVAL) {
                true => fields.optional_count(CONF_INDEX, "conf_index")?.unwrap_or(0),
                false => 0,
            };
            let request = RequestVoteRequest { term, last_log, pre_vote, transfer, extensions, conf_index };
            envelope(&fields, RaftRequest::RequestVote(request))
        }
        Some(RequestKind::TimeoutNow) => {
            let fields =
                Fields::read("TimeoutNowRequest", &frame.content, [10, 18, 26, 32, CLUSTER_ID, CREATION])?;
            let term = fields.count(32, "term")?;
            envelope(&fields, RaftRequest::TimeoutNow(TimeoutNowRequest { term }))
        }
        Some(RequestKind::ReadIndex) => {
            // Contexts of users (field 3) stay with who asks; the receiver (field 4) is optional.
            let tags = [10, 18, 34, 40, CLUSTER_ID, CREATION];
            let fields = Fields::read("ReadIndexRequest", &frame.content, tags)?;
            let mode = match fields.optional_count(40, "readOnlyOptions")? {
                Some(1) => ReadOnlyOption::LeaseBased,
                _ => ReadOnlyOption::Safe,
            };
            Ok(IncomingRequest {
                group: fields.text(10, "group_id")?,
                server_id: fields.text(18, "server_id")?,
                peer_id: fields.optional_text(34)?.unwrap_or(""),
                cluster_id: fields.cluster_id()?,
                creation: fields.number(CREATION).unwrap_or(0),
                request: RaftRequest::ReadIndex(ReadIndexRequest { mode }),
            })
        }
        _ => Err(unexpected(&frame.class)),
    }
}

fn envelope<'a, const N: usize>(
    fields: &Fields<'a, N>,
    request: RaftRequest,
) -> Result<IncomingRequest<'a>, DecodeError> {
    Ok(IncomingRequest {
        group: fields.text(10, "group_id")?,
        server_id: fields.text(18, "server_id")?,
        peer_id: fields.text(26, "peer_id")?,
        cluster_id: fields.cluster_id()?,
        creation: fields.number(CREATION).unwrap_or(0),
        request,
    })
}

pub(crate) fn unexpected(class: &[u8]) -> DecodeError {
    DecodeError::Class(String::from_utf8_lossy(class).into_owned())
}

/// Decodes the answer to a request of the core.
///
/// An `ErrorResponse` in place of the typed response, and one in its field 99, is
/// [`RaftResponse::Error`]. Numbers that have no meaning here are kept as [`RaftError::Other`].
///
/// # Errors
/// [`DecodeError::Status`] when the frame has no success, [`DecodeError::Class`] when it answers another kind of
/// request (so does [`RequestKind::Ping`] and [`RequestKind::Typed`], which the core does not send) or says OK
/// without the answer, and others for damaged content. All mean the same: there is no answer.
pub fn decode_raft_response(
    kind: RequestKind,
    frame: &ResponseFrame,
) -> Result<IncomingResponse, DecodeError> {
    if frame.status != ResponseStatus::Success {
        return Err(DecodeError::Status(frame.status));
    }
    if frame.class == class::ERROR_RESPONSE {
        return match decode_error_response(&frame.content)? {
            Some(status) => Ok(RaftResponse::Error(status).into()),
            None => Err(unexpected(&frame.class)),
        };
    }
    let (expected, message) = match kind {
        RequestKind::RequestVote => (class::REQUEST_VOTE_RESPONSE, "RequestVoteResponse"),
        RequestKind::AppendEntries => (class::APPEND_ENTRIES_RESPONSE, "AppendEntriesResponse"),
        RequestKind::TimeoutNow => (class::TIMEOUT_NOW_RESPONSE, "TimeoutNowResponse"),
        RequestKind::ReadIndex => (class::READ_INDEX_RESPONSE, "ReadIndexResponse"),
        RequestKind::Ping | RequestKind::Typed => return Err(unexpected(&frame.class)),
    };
    if frame.class != expected {
        return Err(unexpected(&frame.class));
    }
    let tags = [
        8,
        16,
        24,
        ERROR_RESPONSE,
        CONFLICT_TERM,
        CONFLICT_FIRST_INDEX,
        REJOINING,
        EXTENSIONS,
        PROMISED,
        CREATION,
    ];
    let fields = Fields::read(message, &frame.content, tags)?;
    if let Some(error) = fields.bytes(ERROR_RESPONSE)
        && let Some(status) = decode_error_response(error)?
    {
        return Ok(RaftResponse::Error(status).into());
    }
    let creation = fields.number(CREATION).unwrap_or(0);
    Ok(IncomingResponse { creation, response: typed_response(kind, message, &fields)? })
}

/// The answer in a typed response that holds no error.
fn typed_response<const N: usize>(
    kind: RequestKind,
    message: &'static str,
    fields: &Fields<'_, N>,
) -> Result<RaftResponse, DecodeError> {
    if kind == RequestKind::ReadIndex {
        let index = fields.count(8, "index")?;
        return Ok(match fields.flag(16, "success")? {
            true => RaftResponse::ReadIndex(ReadIndexResponse { index }),
            false => {
                RaftResponse::Error(Status::new(RaftError::Again, "the leader could not confirm the read"))
            }
        });
    }
    let term = fields.count(8, "term")?;
    Ok(match kind {
        RequestKind::RequestVote => {
            let index = fields.optional_count(REMOVED_INDEX, "removed_index")?;
            let entry_term = fields.optional_count(REMOVED_TERM, "removed_term")?;
            let removed = match (index, entry_term) {
                (Some(index), Some(term)) => Some(LogId::new(index, term)),
                (None, None) => None,
                (Some(_), None) => return Err(DecodeError::Alone { message, field: "removed_index" }),
                (None, Some(_)) => return Err(DecodeError::Alone { message, field: "removed_term" }),
            };
            let granted = fields.flag(16, "granted")?;
            RaftResponse::RequestVote(RequestVoteResponse { term, granted, removed })
        }
        RequestKind::TimeoutNow => {
            RaftResponse::TimeoutNow(TimeoutNowResponse { term, success: fields.flag(16, "success")? })
        }
        _ => {
            let hint_term = fields.optional_count(CONFLICT_TERM, "conflict_term")?;
            let hint_index = fields.optional_count(CONFLICT_FIRST_INDEX, "conflict_first_index")?;
            let conflict = match (hint_term, hint_index) {
                (Some(term), Some(first_index)) => Some(ConflictHint { term, first_index }),
                (None, None) => None,
                (Some(_), None) => return Err(DecodeError::Alone { message, field: "conflict_term" }),
                (None, Some(_)) => {
                    return Err(DecodeError::Alone { message, field: "conflict_first_index" });
                }
            };
            RaftResponse::AppendEntries(AppendEntriesResponse {
                term,
                success: fields.flag(16, "success")?,
                last_log_index: fields.optional_count(24, "last_log_index")?,
                conflict,
                rejoining: fields.optional_count(REJOINING, "rejoining")?.unwrap_or(0),
                extensions: Extensions(fields.number(EXTENSIONS).unwrap_or(0)),
                promised: fields.number(PROMISED).unwrap_or(0),
            })
        }
    })
}

/// Decodes the content of an `ErrorResponse`; `None` is OK.
///
/// # Errors
/// [`DecodeError`] when it is damaged or its code is no 32-bit number.
pub fn decode_error_response(content: &[u8]) -> Result<Option<Status>, DecodeError> {
    const MESSAGE: &str = "ErrorResponse";
    let fields = Fields::read(MESSAGE, content, [8, 18])?;
    let code = fields.number(8).ok_or(DecodeError::Missing { message: MESSAGE, field: "errorCode" })?;
    let code = i32::try_from(code as i64)
        .map_err(|_| DecodeError::Malformed { message: MESSAGE, reason: crate::error::Malformed::Number })?;
    let text = fields.optional_text(18)?.unwrap_or("");
    Ok((code != 0).then(|| Status::new(RaftError::from_code(code), text)))
}

/// A Ping, which a client sends first on a new connection. Answer it with [`encode_error_response`] and no error.
///
/// `now_ms` is the wall clock in milliseconds since the epoch; receivers do not look at it.
pub fn encode_ping(id: u32, timeout_ms: i32, now_ms: u64) -> OutFrame {
    let mut content = Vec::with_capacity(11);
    put_number(&mut content, 8, now_ms);
    encode_request(id, class::PING_REQUEST, timeout_ms, b"", &content)
}

/// The answer to a Ping: `None` when the peer is there and well, else what it complains of.
///
/// # Errors
/// [`DecodeError`] when the frame is no answer to a Ping.
pub fn decode_ping_response(frame: &ResponseFrame) -> Result<Option<Status>, DecodeError> {
    match frame.status {
        ResponseStatus::Success if frame.class == class::ERROR_RESPONSE => {
            decode_error_response(&frame.content)
        }
        ResponseStatus::Success => Err(unexpected(&frame.class)),
        status => Err(DecodeError::Status(status)),
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
