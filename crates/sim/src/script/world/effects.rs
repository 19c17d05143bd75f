//! Doing what a node asks for, in the order of its contract.

use ringraft_core::{
    CallToken, Effects, EntryChunk, FsmEvent, Input, LogIndex, LogOp, RaftRequest, RaftResponse, Reply,
};

use super::{AllDisks, NodeName, ReadAnswer, Role, World, WorldError};
use crate::checkers::{Event, Violation};
use crate::script::format;
use crate::script::host::Waiting;
use crate::script::network::{Body, Kind, Link, Message, What};

impl World {
    pub(super) fn step(&mut self, name: NodeName, input: Input) -> Result<(), WorldError> {
        self.step_once(name, input)?;
        self.settle(name)
    }

    pub(super) fn step_once(&mut self, name: NodeName, input: Input) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        let node = host.node.as_mut().ok_or(WorldError::Down(name))?;
        let (before, committed) = (Role::of(node), node.committed_index());
        let mut fx = Effects::new();
        node.step(host.now, input, &mut fx);
        self.absorb(name, &before, committed, fx);
        Ok(())
    }

    /// Does what a step asks for, in the order of `NodeImpl`'s contract.
    pub(super) fn absorb(&mut self, name: NodeName, before: &Role, committed: LogIndex, fx: Effects) {
        self.note_role(name, before, committed);
        let Effects { log, write_sequence, sends, replies, reads, fsm, abandoned, calls, marks: _ } = fx;
        if !log.is_empty() {
            self.write(name, write_sequence, log);
        }
        for send in sends {
            if matches!(send.request, RaftRequest::RequestVote(_)) {
                self.votes_asked += 1;
            }
            let kind = Kind { what: What::of(&send.request), reply: false };
            let Some(to) = format::name_of(&send.to) else { continue };
            let run = self.hosts.get(&name).map_or(0, |h| h.run);
            let message = Message { kind, ticket: send.ticket, run, body: Body::Request(send.request) };
            self.emit(name, Link { from: name, to }, message, send.after_durable, true);
        }
        for reply in replies {
            self.reply(name, reply);
        }
        for outcome in calls {
            self.note(|| format!("{name} call {}", format::outcome(&outcome)));
            self.end_call(name, outcome.call);
        }
        for event in fsm {
            self.note(|| format!("{name} fsm {}", format::fsm_event(&event)));
            if let FsmEvent::Committed(chunk) = &event {
                self.deliver_to_fsm(name, chunk);
            }
            if let FsmEvent::ReadIndex { calls, index } = &event {
                self.may_read(name, calls, *index);
            }
        }
        if let Some(status) = abandoned {
            self.note(|| format!("{name} abandons its proposals: {}", format::status(&status)));
        }
        for read in reads {
            self.note(|| format!("{name} reads #{} {}..={}", read.ticket.0, read.from, read.to));
            if let Some(host) = self.hosts.get_mut(&name) {
                host.reads.push(read);
            }
        }
        let World { hosts, checkers, .. } = self;
        if let Some((node, log)) = hosts.get(&name).and_then(|h| Some((h.node.as_ref()?, h.disk.accepted())))
        {
            let event = Event::Stepped { node, log, disks: &AllDisks(hosts) };
            let result = checkers.observe(&event);
            self.remember(result);
        }
    }

    fn end_call(&mut self, name: NodeName, call: CallToken) {
        self.calls.remove(&call);
        self.observe(&Event::CallEnded { node: &format::peer_of(name), call });
    }

    /// Reads may be answered from the state machine as it is.
    fn may_read(&mut self, name: NodeName, calls: &[CallToken], index: LogIndex) {
        let Some(host) = self.hosts.get(&name) else { return };
        let (node, delivered) = (host.peer.clone(), host.fsm.delivered);
        let term = host.node.as_ref().map(|n| n.term());
        let by_lease_of = term.filter(|_| self.reads_by_lease);
        for call in calls.iter().copied() {
            self.observe(&Event::MayRead { node: &node, call, index, delivered, by_lease_of });
            self.end_call(name, call);
        }
    }

    pub(super) fn note_role(&mut self, name: NodeName, before: &Role, committed: LogIndex) {
        let Some(node) = self.hosts.get(&name).and_then(|h| h.node.as_ref()) else { return };
        let (now, commit) = (Role::of(node), node.committed_index());
        if now != *before {
            let leader = format::optional_peer(now.leader.as_ref());
            self.note(|| format!("{name} {} term={} leader={leader}", now.state, now.term));
        }
        if commit != committed {
            self.note(|| format!("{name} commit {commit}"));
        }
    }

    pub(super) fn write(&mut self, name: NodeName, sequence: u64, ops: Vec<LogOp>) {
        for op in &ops {
            self.note(|| format!("{name} write {sequence}: {}", format::log_op(op)));
        }
        let World { hosts, checkers, .. } = self;
        let Some(host) = hosts.get_mut(&name) else { return };
        let first = ops.iter().find_map(|op| match op {
            LogOp::Append(chunk) => Some(chunk.first_index()),
            _ => None,
        });
        host.disk.write(sequence, ops);
        host.written = sequence;
        if host.automatic.persist {
            host.disk.sync(usize::MAX);
        }
        if let Some(first) = first {
            let event = Event::Appended { node: &host.peer, log: host.disk.accepted(), first };
            let result = checkers.observe(&event);
            self.remember(result);
        }
    }

    pub(super) fn reply(&mut self, name: NodeName, reply: Reply) {
        let Some(asked) = self.asked.remove(&reply.token.0) else {
            self.remember(Err(Violation {
                checker: "one answer a request",
                message: format!("{name} answers {:?} twice", reply.token),
            }));
            return;
        };
        let message = Message {
            kind: Kind { what: asked.what, reply: true },
            ticket: asked.ticket,
            run: asked.run,
            body: Body::Response(Ok(reply.response)),
        };
        let queued = !asked.injected;
        self.emit(name, Link { from: name, to: asked.asker }, message, reply.after_durable, queued);
    }

    pub(super) fn emit(
        &mut self,
        name: NodeName,
        link: Link,
        message: Message,
        after_durable: bool,
        queued: bool,
    ) {
        let Some(host) = self.hosts.get_mut(&name) else { return };
        let sequence = host.written;
        let waits = after_durable && sequence > host.disk.synced_sequence();
        self.note(|| {
            let wait = if waits { format!(" (waits for write {sequence})") } else { String::new() };
            format!("{link} {}{wait}", format::message(&message))
        });
        match self.hosts.get_mut(&name) {
            Some(host) if waits => host.waiting.push(Waiting { sequence, link, message, queued }),
            _ => self.leave(link, message, queued),
        }
    }

    /// A message leaves its node: now it binds.
    pub(super) fn leave(&mut self, link: Link, message: Message, queued: bool) {
        let (voter, asker) = (format::peer_of(link.from), format::peer_of(link.to));
        match &message.body {
            Body::Request(RaftRequest::RequestVote(r)) if !r.pre_vote => {
                self.observe(&Event::VoteSent { voter: &voter, term: r.term, candidate: &voter });
            }
            Body::Request(RaftRequest::RequestVote(_)) => self.observe(&Event::PreVoteSent { node: &voter }),
            Body::Response(Ok(RaftResponse::RequestVote(r)))
                if r.granted && message.kind.what == What::Vote =>
            {
                self.observe(&Event::VoteSent { voter: &voter, term: r.term, candidate: &asker });
            }
            _ => {}
        }
        let (kind, ticket) = (message.kind, message.ticket);
        if queued && !self.network.push(link, message) {
            self.note(|| format!("{link} #{} {kind} is lost: the link is cut", ticket.0));
        }
    }

    pub(super) fn release_waiting(&mut self, name: NodeName) -> Result<(), WorldError> {
        let host = self.host_mut(name)?;
        let synced = host.disk.synced_sequence();
        let (ready, rest) =
            std::mem::take(&mut host.waiting).into_iter().partition(|w: &Waiting| w.sequence <= synced);
        host.waiting = rest;
        let ready: Vec<Waiting> = ready;
        for Waiting { link, message, queued, .. } in ready {
            self.note(|| format!("{link} #{} {} leaves", message.ticket.0, message.kind));
            self.leave(link, message, queued);
        }
        Ok(())
    }

    pub(super) fn deliver_to_fsm(&mut self, name: NodeName, chunk: &EntryChunk) {
        let World { hosts, checkers, .. } = self;
        let Some(host) = hosts.get_mut(&name) else { return };
        host.fsm.take(chunk);
        let event = Event::Delivered { node: &host.peer, chunk, stable: host.disk.stable() };
        let result = checkers.observe(&event);
        self.remember(result);
    }

    /// Lets happen what happens by itself at a node.
    pub(super) fn settle(&mut self, name: NodeName) -> Result<(), WorldError> {
        for _ in 0..100_000 {
            let host = self.host_mut(name)?;
            let Some(node) = host.node.as_ref().filter(|n| n.state().is_active()) else { return Ok(()) };
            let synced = host.disk.synced_sequence();
            if host.automatic.persist && host.disk.sync(usize::MAX).is_some() {
                // Switched to automatic with writes in flight.
                self.release_waiting(name)?;
            } else if host.automatic.persist && synced > host.reported {
                host.reported = synced;
                self.step_once(name, Input::Persisted { sequence: synced })?;
            } else if host.automatic.read && !host.reads.is_empty() {
                self.answer_read_once(name, ReadAnswer::Good)?;
            } else if host.automatic.apply && host.fsm.delivered > node.applied_index() {
                let index = host.fsm.delivered;
                host.fsm.applied = index;
                self.step_once(name, Input::Applied { index })?;
            } else {
                return Ok(());
            }
        }
        Err(WorldError::Endless(format!("node {name}")))
    }

    pub(super) fn observe(&mut self, event: &Event<'_>) {
        let result = self.checkers.observe(event);
        self.remember(result);
    }

    pub(super) fn remember(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.note(|| format!("VIOLATION {}", format::short(&violation.to_string())));
            self.violation.get_or_insert(violation);
        }
    }
}
