use std::sync::Arc;

use super::*;
use crate::chunk::EntryChunk;
use crate::effects::{Reply, ReplyToken, Send, Ticket};
use crate::message::{
    AppendEntriesResponse, Extensions, RequestVoteRequest, RequestVoteResponse, TimeoutNowRequest,
};
use crate::status::{RaftError, Status};

fn peer(text: &str) -> PeerId {
    text.parse().unwrap()
}

/// A follower in term 3 that has voted for somebody, holds five entries and has committed four.
fn follower() -> Moment {
    Moment {
        own: peer("a:1"),
        state: NodeState::Follower,
        term: 3,
        vote: Vote::For(peer("b:1")),
        rejoining: false,
        removed: LogId::default(),
        hard_state_is_durable: true,
        promise_is_durable: true,
        last: LogId::new(5, 3),
        stable: 5,
        committed: 4,
        committed_term: Some(3),
        delivered: 4,
        applied: 3,
        term_start: None,
        stage: Stage::None,
        open_configurations: 0,
    }
}

fn candidate() -> Moment {
    Moment { state: NodeState::Candidate, term: 4, vote: Vote::For(peer("a:1")), ..follower() }
}

fn leader() -> Moment {
    Moment { state: NodeState::Leader, term_start: Some(5), ..candidate() }
}

fn removed() -> Moment {
    Moment { removed: LogId::new(4, 3), ..follower() }
}

fn no_effects() -> Effects {
    Effects::new()
}

fn sends(request: RaftRequest, after_durable: bool) -> Effects {
    let send = Send { to: peer("b:1"), ticket: Ticket(1), request, after_durable, timeout_ms: 1000 };
    Effects { sends: vec![send], ..Effects::new() }
}

fn replies(response: RaftResponse) -> Effects {
    Effects {
        replies: vec![Reply { token: ReplyToken(1), response, after_durable: false }],
        ..Effects::new()
    }
}

fn vote_request(term: Term, pre_vote: bool) -> RaftRequest {
    let last_log = LogId::new(5, 3);
    RaftRequest::RequestVote(RequestVoteRequest {
        term,
        last_log,
        pre_vote,
        transfer: false,
        extensions: Extensions::NONE,
        conf_index: 0,
    })
}

fn broken_by(before: Moment, fx: &Effects, after: Moment) -> Option<&'static str> {
    broken(Step { before: &before, fx, after: &after })
}

#[test]
fn steps_that_keep_every_invariant() {
    let none = no_effects();
    assert_eq!(broken_by(follower(), &none, follower()), None);
    assert_eq!(broken_by(follower(), &sends(vote_request(4, true), false), follower()), None, "pre-votes");
    assert_eq!(broken_by(follower(), &sends(vote_request(4, false), true), candidate()), None);
    assert_eq!(broken_by(candidate(), &none, leader()), None);
    let order = RaftRequest::TimeoutNow(TimeoutNowRequest { term: 4 });
    let deposed = Moment { term: 5, vote: Vote::None, ..follower() };
    assert_eq!(broken_by(leader(), &sends(order, false), deposed), None, "its last word as leader");
    let lost = Moment { rejoining: true, vote: Vote::Withheld, ..follower() };
    assert_eq!(broken_by(lost, &none, follower()), None, "a lost disk that has caught up");
    let writes = |at| Effects { log: vec![LogOp::MemberRemoved { at }], ..no_effects() };
    assert_eq!(broken_by(follower(), &writes(LogId::new(4, 3)), removed()), None, "it was removed");
    assert_eq!(broken_by(removed(), &writes(LogId::default()), follower()), None, "it is a member again");
}

/// Each step breaks exactly the invariant that it is there for, as far as those before it in the list go.
#[test]
fn every_invariant_is_broken_by_a_step() {
    let error = Status::new(RaftError::Io, "broken");
    let lost = Moment { rejoining: true, vote: Vote::Withheld, ..follower() };
    let failed = Moment { state: NodeState::Error, ..follower() };
    let truncated = Effects { log: vec![LogOp::TruncateSuffix { from: 4 }], ..no_effects() };
    let success = AppendEntriesResponse {
        term: 3,
        success: true,
        last_log_index: None,
        conflict: None,
        promised: 0,
        rejoining: 0,
        extensions: Extensions::NONE,
    };
    let promise = AppendEntriesResponse { promised: 1000, ..success };
    let forgettable = Moment { promise_is_durable: false, ..follower() };
    let entry = Arc::new(EntryChunk::no_op(LogId::new(6, 3)));
    let acknowledged =
        Effects { log: vec![LogOp::Append(entry)], ..replies(RaftResponse::AppendEntries(success)) };
    let granted = RaftResponse::RequestVote(RequestVoteResponse { term: 3, granted: true, removed: None });
    let unstable = Moment { hard_state_is_durable: false, ..follower() };
    let order = || sends(RaftRequest::TimeoutNow(TimeoutNowRequest { term: 3 }), false);
    let cases: Vec<(&str, Moment, Effects, Moment)> = vec![
        ("the term never falls", follower(), no_effects(), Moment { term: 2, ..follower() }),
        (
            "a vote is given once a term",
            follower(),
            no_effects(),
            Moment { vote: Vote::For(peer("c:1")), ..follower() },
        ),
        (
            "a lost disk withholds the vote",
            lost.clone(),
            no_effects(),
            Moment { term: 4, vote: Vote::None, ..lost },
        ),
        (
            "a candidate has its own vote",
            follower(),
            no_effects(),
            Moment { vote: Vote::For(peer("b:1")), ..candidate() },
        ),
        (
            "a candidacy has a term of its own",
            Moment { vote: Vote::None, ..follower() },
            no_effects(),
            Moment { term: 3, ..candidate() },
        ),
        ("only a candidate wins", Moment { vote: Vote::None, ..follower() }, no_effects(), leader()),
        (
            "no entry is of a later term",
            follower(),
            no_effects(),
            Moment { last: LogId::new(5, 4), ..follower() },
        ),
        ("the commit index never falls", follower(), no_effects(), Moment { committed: 3, ..follower() }),
        (
            "only what the log holds is committed",
            follower(),
            no_effects(),
            Moment { committed: 6, ..follower() },
        ),
        ("a leader commits by its own term", leader(), no_effects(), Moment { committed: 5, ..leader() }),
        ("committed entries are never truncated", follower(), truncated, follower()),
        (
            "applied, delivered, durable and committed are in order",
            follower(),
            no_effects(),
            Moment { committed: 5, delivered: 5, stable: 4, ..follower() },
        ),
        ("only a leader sends entries", follower(), order(), follower()),
        (
            "a vote is asked for when it is durable",
            follower(),
            sends(vote_request(4, false), false),
            Moment { hard_state_is_durable: false, ..candidate() },
        ),
        ("no answer speaks for a term that can be forgotten", follower(), replies(granted), unstable),
        (
            "no promise is given that can be forgotten",
            follower(),
            replies(RaftResponse::AppendEntries(promise)),
            forgettable,
        ),
        ("entries are acknowledged when they are durable", follower(), acknowledged, follower()),
        (
            "one change of the members at a time",
            Moment { stage: Stage::Joint, ..leader() },
            no_effects(),
            Moment { stage: Stage::CatchingUp, ..leader() },
        ),
        ("a removal is known when it is written", follower(), no_effects(), removed()),
        (
            "who knows of its removal does not campaign",
            removed(),
            sends(vote_request(4, true), false),
            removed(),
        ),
        (
            "who takes no part does nothing",
            failed.clone(),
            Effects { log: vec![LogOp::HardState(Default::default())], ..no_effects() },
            failed,
        ),
    ];
    let names: Vec<&str> = INVARIANTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(cases.iter().map(|case| case.0).collect::<Vec<_>>(), names, "one case each, in order");
    for (name, before, fx, after) in cases {
        assert_eq!(broken_by(before, &fx, after), Some(name));
    }
    // What it answers with an error speaks for no term.
    let unstable = Moment { hard_state_is_durable: false, ..follower() };
    assert_eq!(broken_by(follower(), &replies(RaftResponse::Error(error)), unstable), None);
}
