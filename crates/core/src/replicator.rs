//! What a leader knows of one peer (SOFAJRaft's `Replicator`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chunk::EntryChunk;
use crate::effects::Ticket;
use crate::message::{AppendKind, ConflictHint};
use crate::options::CoreOptions;
use crate::peer::PeerId;
use crate::rules;
use crate::timer::RepeatedTimer;
use crate::transitions::{self, transitions};
use crate::types::{LogIndex, Time};

/// How entries go to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplicatorState {
    /// It is not known where the logs match: one probe at a time.
    Probe,
    /// The logs match up to `next_index`: requests are pipelined.
    Replicate,
    /// What the peer needs is compacted away: only a snapshot helps.
    Snapshot,
}

/// A request that was sent and is not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inflight {
    pub(crate) ticket: Ticket,
    pub(crate) kind: AppendKind,
    /// Index before the first entry.
    pub(crate) prev: LogIndex,
    /// Last index that a success proves to match.
    pub(crate) last: LogIndex,
    pub(crate) bytes: usize,
    pub(crate) sent_at: Time,
    /// When the next heartbeat was due before this request put it off.
    pub(crate) heartbeat_before: RepeatedTimer,
}

/// A peer that has lost its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rejoining {
    /// How it names this life of its process.
    pub(crate) number: u64,
    /// The last entry when the leader learned of it: what comes behind was made since.
    pub(crate) behind: LogIndex,
    /// The request that told the peer that it has caught up, once there is one.
    pub(crate) told: Option<Ticket>,
}

/// One peer of a leader. Lives for one term of leadership.
#[derive(Debug)]
pub(crate) struct Replicator {
    pub(crate) peer: PeerId,
    state: ReplicatorState,
    /// First index that was not sent yet.
    pub(crate) next_index: LogIndex,
    /// Last index that the peer holds durably; only answers to entries move it, and never back.
    pub(crate) match_index: LogIndex,
    inflights: VecDeque<Inflight>,
    inflight_bytes: usize,
    /// Requests that may be unanswered now: fewer than the options allow after the peer was too busy for what was sent.
    window: usize,
    /// Requests with entries that were taken since the window last changed.
    taken: usize,
    /// Until then nothing but heartbeats goes out, after an error.
    pub(crate) block_timer: RepeatedTimer,
    pub(crate) consecutive_errors: u32,
    /// Send time of the newest request that was answered: the peer was alive then. At first when replication began.
    pub(crate) last_rpc_send_timestamp: Time,
    /// Newest request that was answered in this term, whatever the answer said of the log.
    pub(crate) acknowledged: Option<Ticket>,
    /// Until when the leader may rely on the peer's promises; `None` when it never gave one.
    pub(crate) promised_until: Option<Time>,
    /// The peer has lost its disk. It counts for nothing until an entry behind this one, which was the last when that became known,
    /// is committed by the others and held by the peer.
    pub(crate) rejoining: Option<Rejoining>,
    /// The last answer to a question for the promise brought none.
    pub(crate) refuses_promise: bool,
    pub(crate) heartbeat_timer: RepeatedTimer,
    heartbeat: Option<(Ticket, Time)>,
    /// The last heartbeat could not be delivered: the next goes out when it is due, however many reads wait.
    pub(crate) heartbeat_failed: bool,
    /// A log read that is under way for this peer.
    pub(crate) reading: Option<Ticket>,
    /// Entries that were read from the store and not sent yet.
    pub(crate) read_entries: Vec<Arc<EntryChunk>>,
}

transitions! {
    /// What moves a replicator.
    pub(crate) enum ReplicatorEvent moves ReplicatorState [Probe, Replicate, Snapshot] {
        /// The peer holds the entry that was asked for.
        Match: Probe => Replicate;
        /// Where the logs match is open, or open again: a rejection, an error, an entry that the peer must have.
        Doubt: Probe | Replicate | Snapshot => Probe;
        /// The entry before those that the peer needs is compacted away.
        Lag: Probe | Replicate => Snapshot;
    }
}

impl Replicator {
    /// A replicator that probes at the end of the leader's log.
    pub(crate) fn new(peer: PeerId, last_index: LogIndex, now: Time) -> Replicator {
        Replicator {
            peer,
            state: ReplicatorState::Probe,
            next_index: last_index + 1,
            match_index: 0,
            inflights: VecDeque::new(),
            inflight_bytes: 0,
            window: usize::MAX,
            taken: 0,
            block_timer: RepeatedTimer::default(),
            consecutive_errors: 0,
            last_rpc_send_timestamp: now,
            acknowledged: None,
            promised_until: None,
            rejoining: None,
            refuses_promise: false,
            heartbeat_timer: RepeatedTimer::default(),
            heartbeat: None,
            heartbeat_failed: false,
            reading: None,
            read_entries: Vec::new(),
        }
    }

    /// How entries go to the peer.
    pub(crate) fn state(&self) -> ReplicatorState {
        self.state
    }

    fn enter(&mut self, event: ReplicatorEvent, state: ReplicatorState) {
        transitions::check(event, self.state, state);
        self.state = state;
    }

    /// The logs match up to `last`: requests are pipelined from there on.
    pub(crate) fn matched(&mut self, last: LogIndex) {
        self.enter(ReplicatorEvent::Match, ReplicatorState::Replicate);
        self.next_index = last + 1;
    }

    /// What the peer needs is compacted away.
    pub(crate) fn needs_snapshot(&mut self) {
        self.enter(ReplicatorEvent::Lag, ReplicatorState::Snapshot);
    }

    /// Whether it waits before it asks the peer again.
    pub(crate) fn is_blocked(&self) -> bool {
        self.block_timer != RepeatedTimer::default()
    }

    /// Requests without answer.
    pub(crate) fn inflight_count(&self) -> usize {
        self.inflights.len()
    }

    /// Whether the window has room, in requests and in bytes.
    pub(crate) fn window_open(&self, options: &CoreOptions) -> bool {
        self.inflights.len() < options.max_replicator_inflight_msgs.min(self.window)
            && self.inflight_bytes < options.max_replicator_inflight_bytes
    }

    /// The peer had no room for a request: half as many as were on their way are sent at once from now on. After eight windows that it
    /// takes one more is tried, for a refusal costs a pause.
    pub(crate) fn too_busy(&mut self) {
        self.window = (self.inflights.len() / 2).max(1);
        self.taken = 0;
    }

    /// The peer has taken entries.
    pub(crate) fn took_entries(&mut self) {
        self.taken = self.taken.saturating_add(1);
        if self.taken >= self.window.saturating_mul(8) {
            self.window = self.window.saturating_add(1);
            self.taken = 0;
        }
    }

    /// Remembers a request that goes out.
    pub(crate) fn sent(&mut self, inflight: Inflight) {
        debug_assert!(self.inflights.back().is_none_or(|last| last.ticket < inflight.ticket));
        self.inflight_bytes += inflight.bytes;
        self.inflights.push_back(inflight);
    }

    /// Takes the request of this ticket and every earlier one, whose answers add nothing any more; `None` for a
    /// ticket of before a reset.
    pub(crate) fn answered(&mut self, ticket: Ticket) -> Option<Inflight> {
        let position = self.inflight_of(ticket)?;
        let mut newest = None;
        for inflight in self.inflights.drain(..=position) {
            self.inflight_bytes -= rules::replication::window_bytes_given_back(inflight.bytes);
            newest = Some(inflight);
        }
        newest
    }

    /// Whether the request of this ticket is unanswered and not forgotten.
    pub(crate) fn awaits(&self, ticket: Ticket) -> bool {
        self.inflight_of(ticket).is_some()
    }

    /// Where the request of this ticket stands among those in flight: they were sent, and so numbered, one after the other.
    fn inflight_of(&self, ticket: Ticket) -> Option<usize> {
        self.inflights.binary_search_by_key(&ticket, |i| i.ticket).ok()
    }

    /// When the oldest unanswered request was sent.
    pub(crate) fn oldest_sent_at(&self) -> Option<Time> {
        self.inflights.front().map(|i| i.sent_at)
    }

    /// Forgets every request in flight: answers that still come are of no meaning for progress.
    pub(crate) fn reset_inflights(&mut self) {
        self.inflights = VecDeque::new();
        self.inflight_bytes -= rules::replication::window_bytes_given_back(self.inflight_bytes);
        self.reading = None;
        self.read_entries = Vec::new();
    }

    /// Falls back to probing at `next_index`, which is never 0.
    pub(crate) fn probe_at(&mut self, next_index: LogIndex) {
        self.reset_inflights();
        self.enter(ReplicatorEvent::Doubt, ReplicatorState::Probe);
        self.next_index = next_index.max(1);
    }

    /// After an error: probes again when the block is over, at what is known to match or was to be probed.
    /// The block doubles from one heartbeat period to eight.
    pub(crate) fn block(&mut self, now: Time, heartbeat_ms: u64) {
        let next = match self.state {
            ReplicatorState::Replicate => self.inflights.front().map_or(self.next_index, |i| i.prev + 1),
            ReplicatorState::Probe | ReplicatorState::Snapshot => self.next_index,
        };
        self.probe_at(next);
        let factor = 1 << self.consecutive_errors.min(3);
        self.consecutive_errors = self.consecutive_errors.saturating_add(1);
        self.block_timer.start(now.after_millis(heartbeat_ms * factor));
    }

    /// Whether the peer counts in quorums.
    pub(crate) fn counts(&self) -> bool {
        rules::quorum::counts(self.rejoining.is_some())
    }

    /// The link to the peer has no room: the request of this ticket, and what was to follow it, was not sent. It goes out again, with
    /// nothing forgotten of what is in flight, when the link has room, or after a pause.
    pub(crate) fn not_sent(&mut self, ticket: Ticket, now: Time, pause_ms: u64) {
        let Some(position) = self.inflight_of(ticket) else { return };
        for inflight in self.inflights.drain(position..).rev() {
            self.inflight_bytes -= inflight.bytes;
            self.next_index = inflight.prev + 1;
            // It told the peer nothing: on a link that others keep full the peer would hear of its leader no more, and depose it.
            self.heartbeat_timer = inflight.heartbeat_before;
        }
        // What is read from the store goes on where the window ended: it is not what has to go out next.
        self.reading = None;
        self.read_entries = Vec::new();
        self.block_timer.start(now.after_millis(pause_ms));
    }

    /// A probe has told that the peer's log is that of the leader up to `last`, and nothing is behind it that could be sent. Whether all of it is
    /// durable there an answer to entries tells alone: the last one goes out again, or nobody would ever know in a group at rest.
    pub(crate) fn ask_for_durability(&mut self, last: LogIndex) {
        if self.match_index < last && self.next_index == last + 1 {
            self.next_index = last;
        }
    }

    /// What the peer holds durably and counts for.
    pub(crate) fn counts_for(&self) -> LogIndex {
        if self.counts() { self.match_index } else { 0 }
    }

    /// Takes note of whether the peer has lost its disk: what it held before is gone. That it has caught up only answers say that were
    /// asked for after it was told so: others may be of the process that still had the disk.
    pub(crate) fn note_rejoining(&mut self, number: u64, ticket: Ticket, last_index: LogIndex) {
        if number == 0 {
            self.rejoining.take_if(|known| known.told.is_some_and(|told| ticket >= told));
        } else if self.rejoining.is_none_or(|known| known.number != number) {
            self.rejoining = Some(Rejoining { number, behind: last_index, told: None });
            self.match_index = 0;
            self.acknowledged = None;
            self.promised_until = None;
        }
    }

    /// The peer answered, in this term, a request that was sent at `sent_at`, with a promise that is good for a lease of `lease`
    /// microseconds from then on; 0 for none. A promise of a peer that does not count was given by a process whose disk is lost: it holds nobody,
    /// also when the peer counts again.
    pub(crate) fn alive(&mut self, ticket: Ticket, sent_at: Time, lease: u64) {
        self.consecutive_errors = 0;
        self.heartbeat_failed = false;
        self.last_rpc_send_timestamp = self.last_rpc_send_timestamp.max(sent_at);
        self.acknowledged = self.acknowledged.max(Some(ticket));
        self.refuses_promise = lease == 0;
        if lease > 0 && self.counts() {
            self.promised_until = self.promised_until.max(Some(Time(sent_at.0.saturating_add(lease))));
        }
    }

    /// A heartbeat goes out.
    pub(crate) fn heartbeat_sent(&mut self, ticket: Ticket, now: Time) {
        self.heartbeat = Some((ticket, now));
    }

    /// Whether a heartbeat is unanswered, and since when.
    pub(crate) fn heartbeat_in_flight(&self) -> Option<Time> {
        self.heartbeat.map(|h| h.1)
    }

    /// Takes the heartbeat of this ticket; gives its send time.
    pub(crate) fn heartbeat_answered(&mut self, ticket: Ticket) -> Option<Time> {
        self.heartbeat.take_if(|h| h.0 == ticket).map(|h| h.1)
    }

    /// Whether this is the heartbeat that is unanswered.
    pub(crate) fn heartbeat_awaits(&self, ticket: Ticket) -> bool {
        self.heartbeat.is_some_and(|h| h.0 == ticket)
    }

    /// Gives up waiting for the heartbeat.
    pub(crate) fn heartbeat_lost(&mut self) {
        self.heartbeat = None;
    }
}

/// Where to probe next after a rejection at `prev`, skipping a whole term a round trip when the follower gave a
/// hint (Raft §5.3). `last_of_term` tells the leader's last index of a term. Always at least 1 and at most `prev`.
pub(crate) fn next_after_rejection(
    prev: LogIndex,
    last_log_index: Option<LogIndex>,
    hint: Option<ConflictHint>,
    last_of_term: impl Fn(u64) -> Option<LogIndex>,
) -> LogIndex {
    let wanted = match hint {
        // The follower's log is too short: go on at its end.
        Some(ConflictHint { term: 0, first_index }) => first_index,
        // The leader knows the follower's term too: the logs may match up to the leader's last entry of it.
        Some(ConflictHint { term, first_index }) => last_of_term(term).map_or(first_index, |last| last + 1),
        None => last_log_index.unwrap_or(0).saturating_add(1),
    };
    rules::replication::next_probe(prev, wanted)
}

#[cfg(test)]
mod tests;
