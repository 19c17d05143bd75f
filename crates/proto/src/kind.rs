//! Kinds of requests: what an answer is decoded by.

use ringraft_core::RaftRequest;

use crate::class;

/// What was asked, so that the answer can be understood; travels with a request as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RequestKind {
    /// RequestVoteRequest, pre-vote or vote.
    RequestVote = 0,
    /// AppendEntriesRequest.
    AppendEntries = 1,
    /// TimeoutNowRequest.
    TimeoutNow = 2,
    /// PingRequest.
    Ping = 3,
    /// A CLI request or a user's own; its sender knows the message.
    Typed = 4,
    /// ReadIndexRequest.
    ReadIndex = 5,
}

/// A byte that is no [`RequestKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a kind of request")]
pub struct UnknownRequestKind(pub u8);

impl RequestKind {
    /// The kind of a request of the core.
    pub fn of(request: &RaftRequest) -> RequestKind {
        match request {
            RaftRequest::RequestVote(_) => RequestKind::RequestVote,
            RaftRequest::AppendEntries(_) => RequestKind::AppendEntries,
            RaftRequest::TimeoutNow(_) => RequestKind::TimeoutNow,
            RaftRequest::ReadIndex(_) => RequestKind::ReadIndex,
        }
    }

    /// The kind of request that frames of this class carry; `None` for classes that are not handled here.
    pub fn of_class(class: &[u8]) -> Option<RequestKind> {
        match class::known(class)?.0 {
            class::REQUEST_VOTE_REQUEST => Some(RequestKind::RequestVote),
            class::APPEND_ENTRIES_REQUEST => Some(RequestKind::AppendEntries),
            class::TIMEOUT_NOW_REQUEST => Some(RequestKind::TimeoutNow),
            class::PING_REQUEST => Some(RequestKind::Ping),
            class::READ_INDEX_REQUEST => Some(RequestKind::ReadIndex),
            _ => None,
        }
    }
}

impl From<RequestKind> for u8 {
    fn from(kind: RequestKind) -> u8 {
        kind as u8
    }
}

impl TryFrom<u8> for RequestKind {
    type Error = UnknownRequestKind;

    fn try_from(byte: u8) -> Result<RequestKind, UnknownRequestKind> {
        Ok(match byte {
            0 => RequestKind::RequestVote,
            1 => RequestKind::AppendEntries,
            2 => RequestKind::TimeoutNow,
            3 => RequestKind::Ping,
            4 => RequestKind::Typed,
            5 => RequestKind::ReadIndex,
            other => return Err(UnknownRequestKind(other)),
        })
    }
}
