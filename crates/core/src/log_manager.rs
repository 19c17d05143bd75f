//! What a node knows of its log: terms, configurations, the recent entries, and how much of it is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chunk::{ChunkKind, EntryChunk};
use crate::mutants::Mutant;
use crate::options::RecoveredState;
use crate::peer::{Configuration, ConfigurationEntry, PeerId};
use crate::rules;
use crate::types::{LogId, LogIndex, Term, Time};

/// One write that is on its way to the disk.
#[derive(Clone, Copy, Debug)]
struct PendingWrite {
    sequence: u64,
    /// Last index of the log that is durable when this write is. Lowered by truncation before anything else
    /// happens, so that a late completion never vouches for entries that took the truncated ones' place.
    last_index: LogIndex,
    bytes: usize,
    since: Time,
}

/// What is remembered of configurations that were dropped.
#[derive(Debug, Default)]
struct Forgotten {
    /// One of them named this node.
    named_own: bool,
    /// One of them had another voter.
    had_others: bool,
}

/// The log as the owner thread sees it (SOFAJRaft's `LogManager` and `ConfigurationManager`).
///
/// Entries live in the store; the *tail* holds the recent ones as shared chunks, so that replication and
/// apply rarely read the disk.
#[derive(Debug)]
pub(crate) struct LogManager {
    before_first: LogId,
    last: LogId,
    /// First index of each stretch of one term.
    terms: Vec<(LogIndex, Term)>,
    /// Those that can still be asked for, ascending: see [`forget_configurations`](LogManager::forget_configurations).
    configurations: Vec<ConfigurationEntry>,
    forgotten: Forgotten,
    initial: ConfigurationEntry,
    /// Forced upon this node; in force until the log brings another.
    forced: Option<ConfigurationEntry>,
    /// Counts the changes of the configuration in force.
    configuration_version: u64,
    tail: VecDeque<Arc<EntryChunk>>,
    tail_bytes: usize,
    stable: LogIndex,
    writes: VecDeque<PendingWrite>,
    unstable_bytes: usize,
    step_bytes: usize,
    last_sequence: u64,
    persisted_sequence: u64,
}

impl LogManager {
    /// The log that a store recovered. Everything in it counts as durable.
    ///
    /// # Errors
    /// The parts contradict each other.
    pub(crate) fn new(recovered: RecoveredState, initial_conf: Configuration) -> Result<LogManager, String> {
        let RecoveredState { before_first, last_index, terms, configurations, conf_at_start, .. } = recovered;
        if last_index < before_first.index {
            return Err(format!("the log ends at {last_index}, before its start {before_first}"));
        }
        let empty = last_index == before_first.index;
        let ascending = terms.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
        let covered = match (terms.first(), terms.last()) {
            (None, None) => empty,
            (Some(first), Some(last)) => {
                first.0 == before_first.index + 1 && last.0 <= last_index && first.1 >= before_first.term
            }
            _ => false,
        };
        if !ascending || !covered {
            return Err(format!(
                "the terms {terms:?} do not cover the log {}..={last_index}",
                before_first.index + 1
            ));
        }
        let within = configurations.iter().all(|c| c.id.index <= last_index);
        if !within || configurations.windows(2).any(|w| w[0].id.index >= w[1].id.index) {
            return Err("configuration entries are out of order".to_owned());
        }
        let last = terms.last().map_or(before_first, |t| LogId::new(last_index, t.1));
        // What the front of the log said stays in force when the front is gone.
        let initial = conf_at_start
            .unwrap_or_else(|| ConfigurationEntry { conf: initial_conf, ..ConfigurationEntry::default() });
        Ok(LogManager {
            before_first,
            last,
            terms,
            configurations,
            forgotten: Forgotten::default(),
            initial,
            forced: None,
            configuration_version: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            stable: last_index,
            writes: VecDeque::new(),
            unstable_bytes: 0,
            step_bytes: 0,
            last_sequence: 0,
            persisted_sequence: 0,
        })
    }

    /// Last accepted entry, durable or not: what a voter compares with.
    pub(crate) fn last_id(&self) -> LogId {
        self.last
    }

    /// First index of the log.
    pub(crate) fn first_index(&self) -> LogIndex {
        self.before_first.index + 1
    }

    /// Last durable index.
    pub(crate) fn stable_index(&self) -> LogIndex {
        self.stable
    }

    /// Entries that wait for the disk.
    pub(crate) fn unstable_entries(&self) -> u64 {
        self.last.index - self.stable
    }

    /// Bytes that wait for the disk.
    pub(crate) fn unstable_bytes(&self) -> usize {
        self.unstable_bytes + self.step_bytes
    }

    /// Bytes of the entries kept in memory.
    pub(crate) fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Entries kept in memory.
    pub(crate) fn tail_entries(&self) -> u64 {
        self.tail.front().map_or(0, |c| self.last.index + 1 - c.first_index())
    }

    /// Sequence of the newest write that was emitted.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Sequence up to which every write is durable.
    pub(crate) fn persisted_sequence(&self) -> u64 {
        self.persisted_sequence
    }

    /// Term of the entry at `index`: 0 for index 0, `None` when it is compacted away or not there yet.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.before_first.index {
            return Some(self.before_first.term);
        }
        if index < self.before_first.index || index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|t| t.0 <= index);
        debug_assert!(after > 0, "the terms cover the log");
        self.terms.get(after.wrapping_sub(1)).map(|t| t.1)
    }

    /// First index of the stretch of one term that `index` stands in.
    pub(crate) fn first_index_of_term_at(&self, index: LogIndex) -> LogIndex {
        let after = self.terms.partition_point(|t| t.0 <= index);
        after.checked_sub(1).and_then(|i| self.terms.get(i)).map_or(self.first_index(), |t| t.0)
    }

    /// Last index of `term`, when the log has entries of it.
    pub(crate) fn last_index_of_term(&self, term: Term) -> Option<LogIndex> {
        let at = self.terms.binary_search_by_key(&term, |t| t.1).ok()?;
        Some(self.terms.get(at + 1).map_or(self.last.index, |next| next.0 - 1))
    }

    /// The configuration in force: one that was forced, else the last in the log, committed or not, else the initial one.
    pub(crate) fn configuration(&self) -> &ConfigurationEntry {
        self.forced.as_ref().unwrap_or_else(|| self.configurations.last().unwrap_or(&self.initial))
    }

    /// Another number whenever the configuration in force may be another one: what was made of it before must be made anew. Its entry
    /// is no such number, for forced members have none of their own.
    pub(crate) fn configuration_version(&self) -> u64 {
        self.configuration_version
    }

    /// Whether `peer` votes by the configuration in force, or by one that may still count because no later one is known to be
    /// committed (thesis §4.2.2).
    pub(crate) fn may_decide(&self, peer: &PeerId, committed: LogIndex) -> bool {
        if let Some(forced) = &self.forced {
            return forced.is_voter(peer);
        }
        for entry in self.configurations.iter().rev() {
            if entry.is_voter(peer) {
                return true;
            }
            if entry.id.index <= committed {
                return false;
            }
        }
        self.initial.is_voter(peer)
    }

    /// The newest configuration up to `committed`, when neither it nor one behind it names `peer`. The initial one, which no entry
    /// carries, says nothing; nor does the log while members are forced.
    pub(crate) fn removal_of(&self, peer: &PeerId, committed: LogIndex) -> Option<LogId> {
        if self.forced.is_some() {
            return None;
        }
        let at_start = Some(&self.initial).filter(|entry| entry.id.index > 0);
        for entry in self.configurations.iter().rev().chain(at_start) {
            if entry.names(peer) {
                return None;
            }
            if entry.id.index <= committed {
                return Some(entry.id);
            }
        }
        None
    }

    /// Whether a configuration that is, or ever was, known here names this node, `own`.
    pub(crate) fn ever_named(&self, own: &PeerId) -> bool {
        self.forgotten.named_own
            || std::iter::once(&self.initial).chain(&self.configurations).any(|entry| entry.names(own))
    }

    /// Whether members are forced upon this node, and the log has not brought others since.
    pub(crate) fn is_forced(&self) -> bool {
        self.forced.is_some()
    }

    /// Whether no configuration that is, or ever was, known here has another voter than this node, `own`.
    pub(crate) fn was_always_alone(&self, own: &PeerId) -> bool {
        let known = std::iter::once(&self.initial).chain(&self.configurations);
        !self.forgotten.had_others && known.flat_map(ConfigurationEntry::voters).all(|voter| voter == own)
    }

    /// Drops the configurations for which nobody can ask any more, where this node, `own`, has applied everything up to `applied`. Each
    /// election logs one, so that they would grow for ever.
    ///
    /// Kept are the newest one that is applied, and all behind it:
    /// - what is in force, and what would be after a truncation: that stops at the commit index, which applied is never ahead of;
    /// - all that may still count because no later one is known to be committed, with the newest that is: there
    ///   [`may_decide`](Self::may_decide) and [`removal_of`](Self::removal_of) stop;
    /// - those that are still to be handed to the state machine ([`configuration_at`](Self::configuration_at));
    /// - what was in force at the last applied entry: a snapshot is made there, and the log is cut off there at most.
    ///
    /// Of the others it is remembered whether they named this node and whether it was alone in them: otherwise a removed member would
    /// take itself for one that was never added.
    pub(crate) fn forget_configurations(&mut self, applied: LogIndex, own: &PeerId) {
        // Most groups have one for good, and this is asked after every batch that was applied.
        if self.configurations.len() <= 1 {
            return;
        }
        let applied = self.configurations.partition_point(|entry| entry.id.index <= applied);
        for entry in self.configurations.drain(..applied.saturating_sub(1)) {
            self.forgotten.named_own |= entry.names(own);
            self.forgotten.had_others |= entry.voters().any(|voter| voter != own);
        }
    }

    /// Forces a configuration, until the log brings another.
    pub(crate) fn force_configuration(&mut self, conf: Configuration) {
        self.forced = Some(ConfigurationEntry { id: self.last, conf, old_conf: Configuration::default() });
        self.configuration_version += 1;
    }

    /// Since when the oldest write is under way.
    pub(crate) fn oldest_write(&self) -> Option<Time> {
        self.writes.front().map(|write| write.since)
    }

    /// The configuration entry at exactly this index.
    pub(crate) fn configuration_at(&self, index: LogIndex) -> Option<&ConfigurationEntry> {
        let at = self.configurations.binary_search_by_key(&index, |c| c.id.index).ok()?;
        self.configurations.get(at)
    }

    /// How many configuration entries stand behind `index`.
    pub(crate) fn configurations_behind(&self, index: LogIndex) -> usize {
        self.configurations.iter().rev().take_while(|c| c.id.index > index).count()
    }

    /// Adds a chunk that stands right after the last entry.
    pub(crate) fn append(&mut self, chunk: &Arc<EntryChunk>) {
        debug_assert_eq!(chunk.first_index(), self.last.index + 1, "the log has no gaps");
        debug_assert!(chunk.term() >= self.last.term, "terms never decrease");
        if chunk.term() > self.last.term || self.terms.is_empty() {
            self.terms.push((chunk.first_index(), chunk.term()));
        }
        if let ChunkKind::Configuration { conf, old_conf } = chunk.kind() {
            let (conf, old_conf) = (conf.clone(), old_conf.clone());
            self.configurations.push(ConfigurationEntry { id: chunk.last_id(), conf, old_conf });
            self.forced = None;
            self.configuration_version += 1;
        }
        self.last = chunk.last_id();
        self.tail_bytes += chunk.memory_bytes();
        self.step_bytes += chunk.memory_bytes();
        self.tail.push_back(Arc::clone(chunk));
    }

    /// Drops every entry from `from` on. The durable mark and the marks of pending writes go down first.
    pub(crate) fn truncate_suffix(&mut self, from: LogIndex) {
        debug_assert!(from > self.before_first.index && from <= self.last.index);
        let keep = from - 1;
        self.stable = rules::durability::stable_after_truncation(self.stable, keep);
        for write in &mut self.writes {
            write.last_index = rules::durability::write_mark_after_truncation(write.last_index, keep);
        }
        while let Some(chunk) = self.tail.back().filter(|c| c.last_index() >= from) {
            self.tail_bytes -= chunk.memory_bytes();
            let kept = chunk.slice(chunk.first_index(), keep);
            self.tail.pop_back();
            if let Some(kept) = kept {
                self.tail_bytes += kept.memory_bytes();
                self.tail.push_back(Arc::new(kept));
            }
        }
        self.terms.retain(|t| t.0 < from);
        forget_truncated(&mut self.configurations, from);
        self.configuration_version += 1;
        self.last = self.terms.last().map_or(self.before_first, |t| LogId::new(keep, t.1));
    }

    /// Numbers the write of everything that was changed since the last one.
    pub(crate) fn begin_write(&mut self, now: Time) -> u64 {
        self.last_sequence += 1;
        let bytes = std::mem::take(&mut self.step_bytes);
        self.unstable_bytes += bytes;
        let (sequence, last_index) = (self.last_sequence, self.last.index);
        self.writes.push_back(PendingWrite { sequence, last_index, bytes, since: now });
        sequence
    }

    /// Every write up to `sequence` is durable.
    pub(crate) fn persisted(&mut self, sequence: u64) {
        debug_assert!(sequence <= self.last_sequence, "nothing is durable that was not emitted");
        let covered = |w: &&PendingWrite| rules::durability::completion_covers(sequence, w.sequence);
        while let Some(write) = self.writes.front().filter(covered) {
            self.stable = self.stable.max(write.last_index);
            self.unstable_bytes -= rules::durability::bytes_given_back(write.bytes);
            self.persisted_sequence = write.sequence;
            self.writes.pop_front();
        }
    }

    /// Entries from `from` to at most `to` out of memory, about `max_bytes` of payload and `max_entries` at
    /// most, at least one; `None` when `from` is no longer (or not yet) in memory.
    pub(crate) fn entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        max_entries: usize,
        max_bytes: usize,
    ) -> Option<Vec<Arc<EntryChunk>>> {
        let front = self.tail.front()?.first_index();
        if from < front || from > self.last.index {
            return None;
        }
        let start = self.tail.partition_point(|c| c.last_index() < from);
        let (mut next, mut entries, mut bytes) = (from, 0, 0);
        let mut taken = Vec::new();
        for chunk in self.tail.iter().skip(start) {
            if next > to || entries >= max_entries || bytes >= max_bytes {
                break;
            }
            let room = (max_entries - entries) as u64;
            let part = fit(chunk, next, to.min(next.saturating_add(room - 1)), max_bytes - bytes)?;
            next = part.last_index() + 1;
            entries += part.len();
            bytes += part.payload().len();
            taken.push(part);
        }
        Some(taken)
    }

    /// Whether entries that the store returned begin at `from`, follow each other and have the terms of this log.
    pub(crate) fn confirms(&self, from: LogIndex, entries: &[Arc<EntryChunk>]) -> bool {
        let mut next = from;
        entries.iter().all(|chunk| {
            let (first, last, term) = (chunk.first_index(), chunk.last_index(), Some(chunk.term()));
            let fits = first == next && self.term_at(first) == term && self.term_at(last) == term;
            next = last + 1;
            fits
        })
    }

    /// Drops entries up to `index` from memory; they stay in the store.
    pub(crate) fn release(&mut self, index: LogIndex) {
        debug_assert!(index <= self.stable, "memory holds what the disk does not");
        while let Some(chunk) = self.tail.front().filter(|c| c.last_index() <= index) {
            self.tail_bytes -= chunk.memory_bytes();
            self.tail.pop_front();
        }
        if self.tail.is_empty() && self.tail.capacity() > 16 {
            self.tail = VecDeque::new();
        }
    }

    /// Drops the oldest entries, none above `index`, until at most `max_bytes` are in memory.
    pub(crate) fn shrink(&mut self, index: LogIndex, max_bytes: usize) {
        while self.tail_bytes > max_bytes {
            match self.tail.front().map(|c| c.last_index()) {
                Some(last) if last <= index => self.release(last),
                _ => break,
            }
        }
    }
}

/// The part of `chunk` from `from` on that fits: the first entry always, further ones while below `max_bytes`.
fn fit(chunk: &Arc<EntryChunk>, from: LogIndex, to: LogIndex, max_bytes: usize) -> Option<Arc<EntryChunk>> {
    let skip = (from - chunk.first_index()) as usize;
    let start = if skip == 0 { 0 } else { *chunk.ends().get(skip - 1)? as usize };
    // The entry that crosses the limit still goes, as in SOFAJRaft: an entry larger than the limit must pass.
    let below = chunk.ends().get(skip..)?.partition_point(|end| (*end as usize - start) < max_bytes);
    chunk.share(from, to.min(from + below as u64))
}

/// The configurations that are left when the log is truncated from `from` on: those of the entries that stay.
///
/// A configuration is in force as soon as it is in the log, and no longer than that (Raft §6).
fn forget_truncated(configurations: &mut Vec<ConfigurationEntry>, from: LogIndex) {
    if Mutant::C15TruncationKeepsConfigurations.is_active() {
        let gone = configurations.iter_mut().filter(|c| c.id.index >= from);
        gone.for_each(|c| c.id.index = from - 1);
    }
    configurations.retain(|c| c.id.index < from);
}

#[cfg(test)]
mod tests;
