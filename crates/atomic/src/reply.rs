//! Answers to user requests, as messages and as values.

use bytes::Bytes;
use protobuf::Message;
use ringraft::{Applied, ApplyError, RaftError, Status};
use ringraft_proto::class;
use ringraft_proto::generated::atomic as proto;

use crate::command::{Answer, Command, InvalidCommand};

/// Which message answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    Boolean,
    Value,
}

impl ReplyKind {
    pub(crate) fn of(command: &Command) -> ReplyKind {
        match command {
            Command::Set { .. } | Command::CompareAndSet { .. } => ReplyKind::Boolean,
            Command::IncrementAndGet { .. } | Command::Get { .. } => ReplyKind::Value,
        }
    }

    pub(crate) fn class(self) -> &'static str {
        match self {
            ReplyKind::Boolean => class::ATOMIC_BOOLEAN_RESPONSE,
            ReplyKind::Value => class::ATOMIC_VALUE_RESPONSE,
        }
    }
}

/// A request that was not carried out, or of which nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind, and what happened.
    pub(crate) status: Status,
    /// Peer id of the leader to ask instead; empty when unknown.
    pub(crate) redirect: String,
    /// It may have been or may yet be carried out.
    pub(crate) unknown: bool,
}

impl Failure {
    /// Certainly not carried out.
    pub(crate) fn definite(error: RaftError, message: impl Into<String>) -> Failure {
        Failure { status: Status::new(error, message), redirect: String::new(), unknown: false }
    }

    /// A read through a quorum that was not answered. It changes nothing, so that it is never in doubt.
    pub(crate) fn of_read(error: ApplyError) -> Failure {
        Failure { unknown: false, ..Failure::from(error) }
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Failure {
        let redirect = match &error {
            ApplyError::NotLeader { leader: Some(leader) } => leader.to_string(),
            _ => String::new(),
        };
        Failure { status: error.status(), redirect, unknown: !error.is_definite() }
    }
}

impl From<InvalidCommand> for Failure {
    fn from(error: InvalidCommand) -> Failure {
        Failure::definite(RaftError::Invalid, error.to_string())
    }
}

/// What came of a request.
pub(crate) type ReplyResult = Result<Reply, Failure>;

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) answer: Answer,
    pub(crate) group: String,
    pub(crate) index: u64,
}

/// The outcome of a task as the outcome of its request.
pub(crate) fn from_applied(group: &str, outcome: Result<Applied, ApplyError>) -> ReplyResult {
    let applied = outcome?;
    let answer = Answer::decode(&applied.response).ok_or_else(|| Failure {
        status: Status::new(RaftError::Internal, "the state machine gave no readable answer"),
        redirect: String::new(),
        unknown: true,
    })?;
    Ok(Reply { answer, group: group.to_owned(), index: applied.index })
}

/// The message that answers a request.
pub(crate) fn encode(kind: ReplyKind, group: &str, outcome: &ReplyResult) -> Bytes {
    let written = match kind {
        ReplyKind::Boolean => boolean_response(group, outcome).write_to_bytes(),
        ReplyKind::Value => value_response(group, outcome).write_to_bytes(),
    };
    // Only messages beyond 2 GiB cannot be written; an empty one reads as a failure without a reason.
    written.unwrap_or_default().into()
}

fn boolean_response(group: &str, outcome: &ReplyResult) -> proto::BooleanResponse {
    let mut message = proto::BooleanResponse { group: group.to_owned(), ..Default::default() };
    match outcome {
        Ok(reply) => {
            message.success = true;
            message.index = reply.index;
            message.result = reply.answer == Answer::Changed(true);
        }
        Err(failure) => {
            message.error_code = failure.status.error.code();
            message.error = failure.status.message.clone();
            message.redirect = failure.redirect.clone();
            message.unknown = failure.unknown;
        }
    }
    message
}

fn value_response(group: &str, outcome: &ReplyResult) -> proto::ValueResponse {
    let mut message = proto::ValueResponse { group: group.to_owned(), ..Default::default() };
    match outcome {
        Ok(reply) => {
            message.success = true;
            message.index = reply.index;
            if let Answer::Value(value) = reply.answer {
                message.value = value;
            }
        }
        Err(failure) => {
            message.error_code = failure.status.error.code();
            message.error = failure.status.message.clone();
            message.redirect = failure.redirect.clone();
            message.unknown = failure.unknown;
        }
    }
    message
}

/// Reads an answer. `None` when it is none of `kind`: it says nothing about what became of the request.
pub(crate) fn decode(kind: ReplyKind, class: &[u8], content: &[u8]) -> Option<ReplyResult> {
    if class != kind.class().as_bytes() {
        return None;
    }
    let (head, answer) = match kind {
        ReplyKind::Boolean => {
            let m = proto::BooleanResponse::parse_from_bytes(content).ok()?;
            let head = (m.success, m.error_code, m.error, m.redirect, m.group, m.index, m.unknown);
            (head, Answer::Changed(m.result))
        }
        ReplyKind::Value => {
            let m = proto::ValueResponse::parse_from_bytes(content).ok()?;
            let head = (m.success, m.error_code, m.error, m.redirect, m.group, m.index, m.unknown);
            (head, Answer::Value(m.value))
        }
    };
    let (success, code, error, redirect, group, index, unknown) = head;
    if success {
        return Some(Ok(Reply { answer, group, index }));
    }
    if code == 0 {
        return None;
    }
    Some(Err(Failure { status: Status::new(RaftError::from_code(code), error), redirect, unknown }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(kind: ReplyKind, outcome: &ReplyResult) -> Option<ReplyResult> {
        decode(kind, kind.class().as_bytes(), &encode(kind, "g_1", outcome))
    }

    #[test]
    fn replies_round_trip() {
        for (kind, answer) in [
            (ReplyKind::Boolean, Answer::Changed(true)),
            (ReplyKind::Boolean, Answer::Changed(false)),
            (ReplyKind::Value, Answer::Value(None)),
            (ReplyKind::Value, Answer::Value(Some(-1))),
            (ReplyKind::Value, Answer::Value(Some(0))),
        ] {
            let reply = Ok(Reply { answer, group: "g_1".into(), index: 9 });
            assert_eq!(round_trip(kind, &reply), Some(reply));
        }
    }

    #[test]
    fn failures_round_trip_with_what_is_known() {
        let not_leader = ApplyError::NotLeader { leader: Some("127.0.0.1:8081".parse().unwrap()) };
        let unknown = ApplyError::Unknown(Status::new(RaftError::NodeShutdown, "stopping"));
        for (error, redirect, is_unknown, code) in [
            (not_leader, "127.0.0.1:8081", false, RaftError::NotPermitted),
            (ApplyError::Busy, "", false, RaftError::Busy),
            (unknown, "", true, RaftError::NodeShutdown),
        ] {
            let failure: Failure = error.into();
            assert_eq!(
                (&*failure.redirect, failure.unknown, failure.status.error),
                (redirect, is_unknown, code)
            );
            for kind in [ReplyKind::Boolean, ReplyKind::Value] {
                assert_eq!(round_trip(kind, &Err(failure.clone())), Some(Err(failure.clone())));
            }
        }
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        let kind = ReplyKind::Boolean;
        assert_eq!(decode(kind, b"x", &[]), None, "another class");
        assert_eq!(decode(kind, kind.class().as_bytes(), &[0xff]), None, "garbage");
        assert_eq!(decode(kind, kind.class().as_bytes(), &[]), None, "neither success nor a reason");
    }

    #[test]
    fn an_unreadable_answer_of_the_state_machine_is_unknown() {
        let applied = Applied { index: 1, term: 1, response: Bytes::from_static(&[7]) };
        assert!(from_applied("g", Ok(applied)).unwrap_err().unknown);
    }
}
