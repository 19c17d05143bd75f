//! Messages of any content, from a member or a stranger.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::{
    AppendEntriesRequest, AppendEntriesResponse, AppendKind, ChunkKind, Configuration, ConflictHint,
    EntryChunk, Extensions, LogId, PeerId, RaftError, RaftRequest, RaftResponse, ReadIndexRequest,
    ReadIndexResponse, ReadOnlyOption, RequestVoteRequest, RequestVoteResponse, Status, Ticket,
    TimeoutNowRequest, TimeoutNowResponse,
};

use super::{Args, Result, key, no_more_keys, parsed, syntax};
use crate::script::network::{Kind, What};
use crate::script::world::{NodeName, World};
use crate::script::{format, parse};

pub(super) type Pairs<'a> = BTreeMap<&'a str, &'a str>;

/// `inject KIND from=A to=B key=value…`.
pub(super) fn inject(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let kind: Kind = args.take("a kind of message")?;
    let mut pairs = args.pairs()?;
    let from: NodeName = required(&mut pairs, "from")?;
    let to: NodeName = required(&mut pairs, "to")?;
    if kind.reply {
        let ticket = Ticket(required(&mut pairs, "ticket")?);
        let result = response(kind.what, &mut pairs)?;
        no_more_keys(&pairs)?;
        return Ok(world.inject_response(from, to, ticket, result)?);
    }
    let request = request(kind.what, &mut pairs)?;
    no_more_keys(&pairs)?;
    Ok(world.inject_request(from, to, request)?)
}

fn required<T: std::str::FromStr>(pairs: &mut Pairs<'_>, name: &str) -> Result<T> {
    key(pairs, name)?.map_or_else(|| syntax(format!("{name}= is missing")), Ok)
}

fn log_id(pairs: &mut Pairs<'_>, name: &str) -> Result<LogId> {
    let Some(text) = pairs.remove(name) else { return Ok(LogId::default()) };
    let (index, term) = text.split_once('/').unwrap_or((text, ""));
    match (index.parse(), term.parse()) {
        (Ok(index), Ok(term)) => Ok(LogId::new(index, term)),
        _ => syntax(format!("{name}={text} is not index/term")),
    }
}

fn read_index() -> RaftRequest {
    RaftRequest::ReadIndex(ReadIndexRequest { mode: ReadOnlyOption::Safe })
}

fn request(what: What, pairs: &mut Pairs<'_>) -> Result<RaftRequest> {
    if what == What::ReadIndex {
        return Ok(read_index());
    }
    let term = required(pairs, "term")?;
    Ok(match what {
        What::ReadIndex => read_index(),
        What::PreVote | What::Vote => {
            let last_log = log_id(pairs, "last")?;
            let (pre_vote, transfer) = (what == What::PreVote, key(pairs, "transfer")?.unwrap_or(false));
            let conf_index = key(pairs, "conf-index")?;
            let extensions = conf_index.map_or(Extensions::NONE, |_| Extensions::REMOVAL);
            let conf_index = conf_index.unwrap_or(0);
            RaftRequest::RequestVote(RequestVoteRequest {
                term,
                last_log,
                pre_vote,
                transfer,
                extensions,
                conf_index,
            })
        }
        What::TimeoutNow => RaftRequest::TimeoutNow(TimeoutNowRequest { term }),
        What::Heartbeat | What::Probe | What::Append => {
            let prev_log = log_id(pairs, "prev")?;
            let committed_index = key(pairs, "commit")?.unwrap_or(0);
            let first = key(pairs, "first")?.unwrap_or(prev_log.index.saturating_add(1));
            let entries = entries(first, pairs.remove("entries").unwrap_or_default())?;
            let kind = match what {
                What::Heartbeat => AppendKind::Heartbeat,
                What::Probe => AppendKind::Probe,
                _ => AppendKind::Entries,
            };
            let mut extensions = match key(pairs, "hints")? {
                Some(false) => Extensions::NONE,
                _ => Extensions::CONFLICT_HINT,
            };
            let promise_wanted = key(pairs, "promise-wanted")?.unwrap_or(0);
            if promise_wanted > 0 {
                extensions = extensions.with(Extensions::PROMISE);
            }
            let rejoined = key(pairs, "rejoined")?.unwrap_or(0);
            RaftRequest::AppendEntries(AppendEntriesRequest {
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
    })
}

/// `TERM:DATA,TERM:DATA,TERM:conf=1+2+3|1+2+4`; entries of one term stand in one chunk, `;` begins another.
fn entries(first: u64, text: &str) -> Result<Vec<Arc<EntryChunk>>> {
    let mut chunks = Vec::new();
    let mut next = first;
    for group in text.split(';').filter(|g| !g.is_empty()) {
        let mut run: Option<(u64, u64, Vec<u32>, Vec<u8>)> = None;
        for entry in group.split(',') {
            let Some((term, data)) = entry.split_once(':') else {
                return syntax(format!("entry {entry:?} is not TERM:DATA"));
            };
            let term: u64 = parsed("a term", term)?;
            let conf = data.strip_prefix("conf=");
            if let Some((start, term, ends, bytes)) = run.take_if(|r| r.1 != term || conf.is_some()) {
                chunks.push(chunk(start, term, ChunkKind::Data, ends, bytes)?);
            }
            match conf {
                Some(conf) => chunks.push(chunk(next, term, configuration(conf)?, vec![0], Vec::new())?),
                None => {
                    let (_, _, ends, bytes) = run.get_or_insert((next, term, Vec::new(), Vec::new()));
                    bytes.extend(parse::payload(data));
                    ends.push(bytes.len() as u32);
                }
            }
            next = next.saturating_add(1);
        }
        if let Some((start, term, ends, bytes)) = run {
            chunks.push(chunk(start, term, ChunkKind::Data, ends, bytes)?);
        }
    }
    Ok(chunks)
}

fn chunk(first: u64, term: u64, kind: ChunkKind, ends: Vec<u32>, data: Vec<u8>) -> Result<Arc<EntryChunk>> {
    EntryChunk::from_parts(first, term, kind, ends, Bytes::from(data))
        .map_or_else(|e| syntax(e.to_string()), |chunk| Ok(Arc::new(chunk)))
}

/// `1+2+3` or `1+2+4|1+2+3` while joint; a learner is written `4l`.
fn configuration(text: &str) -> Result<ChunkKind> {
    let (conf, old_conf) = text.split_once('|').unwrap_or((text, ""));
    Ok(ChunkKind::Configuration { conf: half(conf)?, old_conf: half(old_conf)? })
}

/// Members as `1+2+4l`; a learner has an `l`, a priority stands behind a colon.
pub(super) fn half(text: &str) -> Result<Configuration> {
    let mut conf = Configuration::default();
    for name in text.split('+').filter(|n| !n.is_empty()) {
        match name.strip_suffix('l') {
            Some(learner) => conf.learners.push(format::peer_of(parsed("a node number", learner)?)),
            None => conf.peers.push(member(name)?),
        }
    }
    Ok(conf)
}

/// A node's peer, with its priority behind a colon.
pub(super) fn member(text: &str) -> Result<PeerId> {
    format::member(text).map_or_else(|| syntax(format!("{text:?} is no node, such as 2, or 2:40")), Ok)
}

fn response(what: What, pairs: &mut Pairs<'_>) -> Result<std::result::Result<RaftResponse, Status>> {
    if let Some(code) = key::<i32>(pairs, "error")? {
        return Ok(Ok(RaftResponse::Error(Status::new(RaftError::from_code(code), "injected"))));
    }
    if what == What::ReadIndex {
        return Ok(Ok(RaftResponse::ReadIndex(ReadIndexResponse { index: required(pairs, "index")? })));
    }
    let term = required(pairs, "term")?;
    Ok(Ok(match what {
        What::ReadIndex => RaftResponse::ReadIndex(ReadIndexResponse { index: 0 }),
        What::PreVote | What::Vote => {
            let removed = Some(log_id(pairs, "removed")?).filter(|at| *at != LogId::default());
            let granted = required(pairs, "granted")?;
            RaftResponse::RequestVote(RequestVoteResponse { term, granted, removed })
        }
        What::TimeoutNow => {
            RaftResponse::TimeoutNow(TimeoutNowResponse { term, success: required(pairs, "success")? })
        }
        What::Heartbeat | What::Probe | What::Append => {
            let conflict = match pairs.remove("conflict").map(|c| c.split_once('@').unwrap_or((c, "0"))) {
                Some((first, term)) => Some(ConflictHint {
                    first_index: parsed("an index", first)?,
                    term: parsed("a term", term)?,
                }),
                None => None,
            };
            RaftResponse::AppendEntries(AppendEntriesResponse {
                term,
                success: required(pairs, "success")?,
                last_log_index: key(pairs, "last")?,
                conflict,
                rejoining: key(pairs, "rejoining")?.unwrap_or(0),
                extensions: Extensions::NONE,
                promised: key(pairs, "promise")?.unwrap_or(0),
            })
        }
    }))
}
