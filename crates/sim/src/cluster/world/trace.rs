//! The trace of a world, in the words of the golden scripts (`docs/scripts.md`): a time, a group, and what happened there.
//! Hosts are numbered from 0; a message has one line when it leaves and one when it arrives.

use std::sync::Arc;

use ringraft::handler::{DiskWrite, FsmTask, LaneEvent, OutReply, OutSend};
use ringraft_core::{
    AppendEntriesRequest, ChunkBuilder, ChunkKind, EntryChunk, FsmEvent, LogIndex, LogOp, NodeImpl,
    NodeState, PeerId, RaftRequest, Term,
};
use ringraft_net::RequestContext;
use rustc_hash::FxHashMap;

use super::World;
use crate::cluster::checks::OpenRequest;
use crate::cluster::machine::Command;
use crate::cluster::transport::ConnectionId;
use crate::script::{Kind, What, format};

/// Lines that are kept: those of a short seed, all of them.
const LINES: usize = 400_000;

/// Bits of a context's ticket that are the node's own.
const TICKET: u64 = (1 << 48) - 1;

/// The chunk with its commands as text, for the eye.
fn readable(chunk: &EntryChunk) -> Arc<EntryChunk> {
    let mut texts = ChunkBuilder::new();
    for position in 0..chunk.len() {
        match Command::decode(chunk.entry(position)) {
            Some(command) => texts.push(command.to_string().as_bytes()),
            None => texts.push(chunk.entry(position)),
        }
    }
    match chunk.kind() {
        ChunkKind::Data => {
            texts.take(chunk.first_index(), chunk.term()).map_or_else(|| Arc::new(chunk.clone()), Arc::new)
        }
        _ => Arc::new(chunk.clone()),
    }
}

/// What a node was when a line last told of it.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    state: NodeState,
    term: Term,
    leader: Option<PeerId>,
    commit: LogIndex,
}

/// Lines of the end of a run.
#[derive(Default)]
pub(super) struct Trace {
    pub(super) on: bool,
    pub(super) lines: Vec<String>,
    seen: FxHashMap<(usize, usize), Seen>,
    /// What was asked, by host, group and ticket.
    asked: FxHashMap<(usize, usize, u64), What>,
}

impl Trace {
    pub(super) fn new(on: bool) -> Trace {
        Trace { on, ..Trace::default() }
    }

    fn say(&mut self, now: u64, line: &str) {
        if self.lines.len() >= LINES {
            self.lines.drain(..LINES / 4);
        }
        self.lines.push(format!("{now:>12} {line}"));
    }
}

impl World {
    /// Keeps a line of trace, when a trace is wanted.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.on {
            self.trace.say(self.now, &line());
        }
    }

    pub(super) fn group_at(&self, host: usize, slot: u32) -> Option<usize> {
        self.hosts[host].process.as_ref()?.by_slot.get(slot as usize).copied().flatten()
    }

    /// The ticket of a request that travels on a connection.
    fn ticket(&self, connection: ConnectionId, request: u32) -> u64 {
        let (client, link) = self.network.client_of(connection);
        let context = self.transport(client).and_then(|transport| transport.context(link, request));
        context.map_or(0, |context| context.ticket & TICKET)
    }

    /// Tells how a node has changed.
    pub(super) fn note_role(&mut self, group: usize, host: usize, node: &NodeImpl) {
        let now = Seen {
            state: node.state(),
            term: node.term(),
            leader: node.leader_id().cloned(),
            commit: node.committed_index(),
        };
        let before = self.trace.seen.insert((group, host), now.clone());
        let commit = before.as_ref().map_or(0, |before| before.commit);
        let same_role =
            before.is_some_and(|b| (b.state, b.term, &b.leader) == (now.state, now.term, &now.leader));
        if !same_role {
            let leader = format::optional_peer(now.leader.as_ref());
            self.note(|| format!("g{group} {host} {} term={} leader={leader}", now.state, now.term));
        }
        if now.commit != commit {
            self.note(|| format!("g{group} {host} commit {}", now.commit));
        }
    }

    pub(super) fn note_write(&mut self, group: usize, host: usize, write: &DiskWrite, ops: &[LogOp]) {
        for op in ops {
            self.note(|| {
                let text = match op {
                    LogOp::Append(chunk) => format::log_op(&LogOp::Append(readable(chunk))),
                    op => format::log_op(op),
                };
                format!("g{group} {host} write {}: {text}", write.sequence)
            });
        }
    }

    pub(super) fn note_fsm(&mut self, group: usize, host: usize, task: &FsmTask) {
        match task {
            FsmTask::Committed { chunk, .. } => {
                self.note(|| {
                    let event = FsmEvent::Committed(readable(chunk));
                    format!("g{group} {host} fsm {}", format::fsm_event(&event))
                });
            }
            FsmTask::Event { event, .. } => {
                self.note(|| format!("g{group} {host} fsm {}", format::fsm_event(event)));
            }
            FsmTask::Fail { completions, error, .. } => {
                let count = completions.len();
                self.note(|| format!("g{group} {host} answers {count} proposals: {error}"));
            }
            FsmTask::ReadIndex { index, completions, .. } => {
                let count = completions.len();
                self.note(|| format!("g{group} {host} fsm {count} reads at {index}"));
            }
            FsmTask::Open { .. } | FsmTask::Close { .. } => {}
        }
    }

    pub(super) fn note_send(&mut self, group: usize, host: usize, send: &OutSend) {
        if self.trace.on {
            let (ticket, what) = (send.context.ticket & TICKET, What::of(&send.request));
            self.trace.asked.insert((host, group, ticket), what);
            let text = match &send.request {
                RaftRequest::AppendEntries(request) => {
                    let entries = request.entries.iter().map(|chunk| readable(chunk)).collect();
                    format::request(&RaftRequest::AppendEntries(AppendEntriesRequest {
                        entries,
                        ..request.clone()
                    }))
                }
                request => format::request(request),
            };
            let to = format::short(&send.to);
            self.note(|| format!("g{group} {host}->{to} #{ticket} {text}"));
        }
    }

    pub(super) fn note_reply(&mut self, host: usize, request: &OpenRequest, reply: &OutReply) {
        if self.trace.on {
            let (group, to) = (request.group, format::short(&request.from.to_string()));
            let ticket = self.ticket(reply.handle.connection, reply.handle.request);
            let text =
                format::response(Kind { what: request.what, reply: true }, &Ok(reply.response.clone()));
            self.note(|| format!("g{group} {host}->{to} #{ticket} {text}"));
        }
    }

    pub(super) fn note_request(&mut self, group: usize, host: usize, event: &LaneEvent) {
        if self.trace.on
            && let LaneEvent::Request(event) = event
        {
            let kind = Kind { what: What::of(&event.request), reply: false };
            let ticket = self.ticket(event.reply.connection, event.reply.request);
            let from = format::short(&event.from.to_string());
            self.note(|| format!("g{group} {host} gets #{ticket} {kind} from {from}"));
        }
    }

    /// An answer has arrived, or the news that none will.
    pub(super) fn note_answer(
        &mut self,
        group: Option<usize>,
        host: usize,
        context: &RequestContext,
        from: Option<usize>,
    ) {
        if self.trace.on {
            let (Some(group), ticket) = (group, context.ticket & TICKET) else { return };
            let Some(what) = self.trace.asked.remove(&(host, group, ticket)) else { return };
            let kind = Kind { what, reply: true };
            self.note(|| match from {
                Some(from) => format!("g{group} {host} gets #{ticket} {kind} from {from}"),
                None => format!("g{group} {host} gets #{ticket} {kind} error: none will come"),
            });
        }
    }

    pub(super) fn note_durable(&mut self, group: usize, host: usize, sequence: u64) {
        if sequence > 0 {
            self.note(|| format!("g{group} {host} write {sequence} is durable"));
        }
    }
}
