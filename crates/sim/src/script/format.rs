//! How things look in a trace.

use std::fmt::Write;

use ringraft_core::{
    AppendEntriesRequest, AppendEntriesResponse, CallDone, CallFailure, CallOutcome, CallToken, ChunkKind,
    Configuration, ConfigurationEntry, EntryChunk, FsmEvent, HardState, LogOp, PeerId, RaftRequest,
    RaftResponse, ReadOnlyOption, Status,
};

use super::network::{Body, Kind, Message, What};

const HOST: &str = "127.0.0.1:";
const BASE_PORT: u32 = 8080;

/// The peer of the node with this number.
pub(crate) fn peer_of(name: u32) -> PeerId {
    PeerId::new("127.0.0.1", (BASE_PORT + name) as u16)
}

/// The peer of a number with an election priority behind a colon, such as `2:40`.
pub(super) fn member(text: &str) -> Option<PeerId> {
    let (name, priority) = text.split_once(':').unwrap_or((text, "-1"));
    let peer = peer_of(name.parse().ok()?);
    match priority.parse::<i32>().ok()? {
        -1 => Some(peer),
        priority => format!("{}:{}::{priority}", peer.ip(), peer.port()).parse().ok(),
    }
}

/// The number of a peer.
pub(super) fn name_of(peer: &PeerId) -> Option<u32> {
    u32::from(peer.port()).checked_sub(BASE_PORT)
}

/// A text with peers as bare numbers.
pub(crate) fn short(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(HOST) {
        let (before, after) = rest.split_at(at);
        let digits: String = after[HOST.len()..].chars().take_while(char::is_ascii_digit).collect();
        out.push_str(before);
        match digits.parse::<u32>().ok().and_then(|port| port.checked_sub(BASE_PORT)) {
            Some(name) => drop(write!(out, "{name}")),
            None => out.push_str(&after[..HOST.len() + digits.len()]),
        }
        rest = &after[HOST.len() + digits.len()..];
    }
    out + rest
}

pub(super) fn peer(peer: &PeerId) -> String {
    short(&peer.to_string())
}

pub(crate) fn optional_peer(peer: Option<&PeerId>) -> String {
    peer.map_or("-".to_owned(), |p| short(&p.to_string()))
}

pub(super) fn status(status: &Status) -> String {
    format!("{} {}", status.error.name(), short(&status.message))
}

pub(super) fn configuration(conf: &Configuration, old_conf: &Configuration) -> String {
    let old =
        if old_conf.is_empty() { String::new() } else { format!(" | {}", short(&old_conf.to_string())) };
    format!("{}{old}", short(&conf.to_string()))
}

/// A payload: as text when it is one, and a long run of one character as `"x"*100`.
pub(super) fn data(bytes: &[u8]) -> String {
    match bytes {
        [first, rest @ ..] if rest.len() >= 8 && rest.iter().all(|b| b == first) => {
            format!("\"{}\"*{}", first.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Entries one by one: `2/1 "a" 3/1 "b"`; only the first and the last of many.
pub(super) fn chunk(chunk: &EntryChunk) -> String {
    let term = chunk.term();
    let entry = |position: usize| {
        let index = chunk.first_index() + position as u64;
        match chunk.kind() {
            ChunkKind::Data => format!("{index}/{term} {}", data(chunk.entry(position))),
            ChunkKind::NoOp => format!("{index}/{term} no-op"),
            ChunkKind::Configuration { conf, old_conf } => {
                format!("{index}/{term} conf {}", configuration(conf, old_conf))
            }
        }
    };
    if chunk.len() > 8 {
        return format!("{} … {}", entry(0), entry(chunk.len() - 1));
    }
    (0..chunk.len()).map(entry).collect::<Vec<_>>().join(" ")
}

pub(super) fn hard_state(hard_state: &HardState) -> String {
    format!("term={} vote={}", hard_state.term, short(&hard_state.vote.to_string()))
}

pub(crate) fn log_op(op: &LogOp) -> String {
    match op {
        LogOp::HardState(state) => hard_state(state),
        LogOp::TruncateSuffix { from } => format!("truncate from {from}"),
        LogOp::Append(entries) => format!("append {}", chunk(entries)),
        LogOp::TruncatePrefix { first_kept } => format!("truncate before {first_kept}"),
        LogOp::Reset { before, .. } => format!("reset behind {before}"),
        LogOp::Promise { ms } => format!("promised {ms} ms at most"),
        LogOp::MemberRemoved { at } => format!("member removed at {at}"),
    }
}

pub(crate) fn fsm_event(event: &FsmEvent) -> String {
    match event {
        FsmEvent::Committed(entries) => format!("apply {}", chunk(entries)),
        FsmEvent::LeaderStart { term } => format!("leader-start term={term}"),
        FsmEvent::LeaderStop { status: s } => format!("leader-stop: {}", status(s)),
        FsmEvent::StartFollowing { leader, term } => format!("start-following {} term={term}", peer(leader)),
        FsmEvent::StopFollowing { leader, term, status: s } => {
            format!("stop-following {} term={term}: {}", peer(leader), status(s))
        }
        FsmEvent::ConfigurationCommitted(ConfigurationEntry { id, conf, old_conf }) => {
            format!("configuration-committed {id} {}", configuration(conf, old_conf))
        }
        FsmEvent::ReadIndex { calls, index } => format!("may read {} at {index}", numbers(calls)),
        FsmEvent::Error(s) => format!("error: {}", status(s)),
    }
}

/// Calls by their numbers: `@1 @2`.
fn numbers(calls: &[CallToken]) -> String {
    calls.iter().map(|call| format!("@{}", call.0)).collect::<Vec<_>>().join(" ")
}

pub(crate) fn outcome(outcome: &CallOutcome) -> String {
    let what = match &outcome.result {
        Ok(CallDone::Changed { old, new }) => {
            format!("members changed: {}, before {}", short(&new.to_string()), short(&old.to_string()))
        }
        Ok(CallDone::Transferred { term }) => format!("leadership handed over in term {term}"),
        Ok(CallDone::PeersReset) => "members forced".to_owned(),
        Err(CallFailure::Failed(s)) => format!("failed: {}", status(s)),
        Err(CallFailure::Unknown(s)) => format!("unknown: {}", status(s)),
    };
    format!("@{} {what}", outcome.call.0)
}

pub(crate) fn request(request: &RaftRequest) -> String {
    let kind = Kind { what: What::of(request), reply: false };
    match request {
        RaftRequest::RequestVote(r) => {
            let transfer = if r.transfer { " transfer" } else { "" };
            format!("{kind} term={} last={}{transfer}", r.term, r.last_log)
        }
        RaftRequest::AppendEntries(r) => format!("{kind} {}", append(r)),
        RaftRequest::TimeoutNow(r) => format!("{kind} term={}", r.term),
        RaftRequest::ReadIndex(r) => match r.mode {
            ReadOnlyOption::Safe => kind.to_string(),
            ReadOnlyOption::LeaseBased => format!("{kind} lease"),
        },
    }
}

fn append(request: &AppendEntriesRequest) -> String {
    let AppendEntriesRequest { term, prev_log, committed_index, entries, rejoined, .. } = request;
    let mut text = format!("term={term} prev={prev_log} commit={committed_index}");
    if *rejoined != 0 {
        text += " rejoined";
    }
    for entry in entries {
        let _ = write!(text, " [{}]", chunk(entry));
    }
    text
}

pub(crate) fn response(kind: Kind, result: &Result<RaftResponse, Status>) -> String {
    let yes = |yes: bool, good: &'static str, bad: &'static str| if yes { good } else { bad };
    match result {
        Ok(RaftResponse::RequestVote(r)) => {
            let mut text = format!("{kind} term={} {}", r.term, yes(r.granted, "granted", "refused"));
            if let Some(at) = r.removed {
                let _ = write!(text, " removed={at}");
            }
            text
        }
        Ok(RaftResponse::AppendEntries(r)) => {
            let AppendEntriesResponse {
                term,
                success,
                last_log_index,
                conflict,
                rejoining,
                extensions: _,
                promised,
            } = r;
            let mut text = format!("{kind} term={term} {}", yes(*success, "success", "rejected"));
            if let Some(last) = last_log_index {
                let _ = write!(text, " last={last}");
            }
            if let Some(hint) = conflict {
                let _ = write!(text, " conflict={}@{}", hint.first_index, hint.term);
            }
            if *rejoining != 0 {
                text += " rejoining";
            }
            if *promised > 0 {
                let _ = write!(text, " promise={promised}");
            }
            text
        }
        Ok(RaftResponse::TimeoutNow(r)) => {
            format!("{kind} term={} {}", r.term, yes(r.success, "success", "rejected"))
        }
        Ok(RaftResponse::ReadIndex(r)) => format!("{kind} index={}", r.index),
        Ok(RaftResponse::Error(s)) | Err(s) => format!("{kind} error {}", status(s)),
    }
}

pub(super) fn message(message: &Message) -> String {
    let text = match &message.body {
        Body::Request(r) => request(r),
        Body::Response(r) => response(message.kind, r),
    };
    format!("#{} {text}", message.ticket.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_bare_numbers() {
        assert_eq!(short("a 127.0.0.1:8081,127.0.0.1:8092/learner b"), "a 1,12/learner b");
        assert_eq!(short("127.0.0.1:99"), "127.0.0.1:99");
    }

    #[test]
    fn a_priority_stands_behind_a_colon() {
        let preferred = member("2:40").unwrap();
        assert_eq!((name_of(&preferred), preferred.priority()), (Some(2), 40));
        assert_eq!(member("2").unwrap().to_string(), peer_of(2).to_string());
        assert_eq!((member("x"), member("2:x"), member("2:")), (None, None, None));
    }

    #[test]
    fn long_runs_are_short() {
        assert_eq!(data(b"ab"), "\"ab\"");
        assert_eq!(data(&[b'x'; 100]), "\"x\"*100");
    }
}
