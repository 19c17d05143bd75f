//! Members whose program knows no creation numbers: one of Java, or an earlier one of ringraft.
//!
//! Such a member takes the requests of a later life for some of the life that it has, and may say whatever that has made of them. Here it says
//! the worst: it votes for everybody and acknowledges everything, of which it keeps nothing, and names no number. Who counts that elects
//! leaders that nobody has voted for and commits what nobody holds.

use ringraft_core::{
    AppendEntriesResponse, AppendKind, Extensions, RaftError, RaftRequest, RaftResponse, RequestVoteResponse,
    Status, TimeoutNowResponse,
};
use ringraft_net::{ReplyHandle, Transport};
use ringraft_proto::{RequestFrame, decode_raft_request, encode_raft_response};

use super::lives::Lives;
use crate::cluster::transport::SimTransport;

/// Answers a request, if the host is such a member of the group that it names. Says whether it did.
pub(super) fn answers(
    lives: &Lives,
    host: usize,
    transport: &SimTransport,
    handle: ReplyHandle,
    frame: &RequestFrame,
) -> bool {
    let Ok(incoming) = decode_raft_request(frame) else { return false };
    if incoming.creation == 0 || !lives.is_stranger(host, incoming.group, incoming.creation) {
        return false;
    }
    let answer = encode_raft_response(handle.request, frame.codec, 0, &consent(&incoming.request));
    if transport.reply(handle, answer).is_ok() {
        transport.flush_reply(handle);
    }
    true
}

fn consent(request: &RaftRequest) -> RaftResponse {
    match request {
        RaftRequest::RequestVote(vote) => {
            // A vote before the vote is given in the term in which it is asked for.
            let term = vote.term - u64::from(vote.pre_vote);
            RaftResponse::RequestVote(RequestVoteResponse { term, granted: true, removed: None })
        }
        RaftRequest::AppendEntries(append) => RaftResponse::AppendEntries(AppendEntriesResponse {
            term: append.term,
            success: true,
            last_log_index: (append.kind != AppendKind::Entries).then_some(append.last_verified()),
            conflict: None,
            promised: append.promise_wanted,
            rejoining: 0,
            extensions: Extensions::NONE,
        }),
        RaftRequest::TimeoutNow(order) => {
            RaftResponse::TimeoutNow(TimeoutNowResponse { term: order.term, success: true })
        }
        RaftRequest::ReadIndex(_) => {
            RaftResponse::Error(Status::new(RaftError::NotPermitted, "it leads nothing"))
        }
    }
}
