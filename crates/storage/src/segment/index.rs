//! What the store knows of a group in memory: its hard state, its configurations, where its runs are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use ringraft_core::{
    Configuration, ConfigurationEntry, DamagedRange, GroupId, HardState, LogId, LogIndex, Mutant,
    RecoveredState, Term,
};

use super::format::RunKind;
use super::runs::{RunAt, Runs};
use super::segments::{Segment, Segments};
use crate::traits::{GroupKey, StorageError};

/// Where a run stands.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) offset: u64,
    /// Bytes of the record with its padding.
    pub(crate) len: u32,
}

/// Stored entries `first..=last` that still belong to the log; the record may hold more on both sides.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) term: Term,
    /// Identity within the group's life, kept when the run is rewritten.
    pub(crate) sequence: u64,
    pub(crate) kind: RunKind,
    pub(crate) place: Place,
}

impl Run {
    /// As the index keeps it.
    pub(crate) fn at(&self) -> RunAt {
        RunAt {
            first: self.first,
            last: self.last,
            term: self.term,
            sequence: self.sequence,
            kind: self.kind,
            file: self.place.segment.number(),
            offset: self.place.offset,
            len: self.place.len,
        }
    }

    /// A run of the index with its file, which is there as long as the run is.
    pub(crate) fn of(at: &RunAt, segment: Arc<Segment>) -> Run {
        Run {
            first: at.first,
            last: at.last,
            term: at.term,
            sequence: at.sequence,
            kind: at.kind,
            place: Place { segment, offset: at.offset, len: at.len },
        }
    }
}

/// Log and hard state of one group.
#[derive(Default)]
pub(crate) struct GroupIndex {
    pub(crate) runs: Runs,
    pub(crate) before_first: LogId,
    pub(crate) hard_state: HardState,
    /// The hard state of the last completed batch.
    pub(crate) durable_hard_state: HardState,
    /// Last index that readers may see.
    pub(crate) durable_last: LogIndex,
    pub(crate) configurations: VecDeque<ConfigurationEntry>,
    /// The configuration in force at `before_first`; `None` for the initial one.
    pub(crate) conf_at_start: Option<ConfigurationEntry>,
    /// The largest promise that the group gave, in milliseconds.
    pub(crate) promised_ms: u64,
    /// The committed configuration that no longer names the member; 0/0 for none.
    pub(crate) member_removed: LogId,
    /// What cannot be read back.
    pub(crate) damaged: Vec<DamagedRange>,
    /// Sequence of the next operation.
    pub(crate) next_sequence: u64,
}

/// Whether any group of a store may have damage, so that the question costs nothing where none has. Shared by all of them; a store that was
/// just opened does not know.
#[derive(Clone)]
pub(crate) struct Suspicion(Arc<AtomicBool>);

impl Default for Suspicion {
    fn default() -> Suspicion {
        Suspicion(Arc::new(AtomicBool::new(true)))
    }
}

impl Suspicion {
    /// Some group has damage.
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether somebody must look; who looks and finds damage raises it again. What is noted meanwhile does so by itself.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

/// A group with its index, shared with readers.
pub(crate) struct Group {
    pub(crate) key: GroupKey,
    pub(crate) name: GroupId,
    /// Which creation of this name it is, as its creator counts; 0 for none.
    pub(crate) creation: u64,
    pub(crate) index: Mutex<GroupIndex>,
    /// A run that could not be read back, and why.
    damage: Mutex<Option<(Run, StorageError)>>,
    suspicion: Suspicion,
}

impl Group {
    pub(crate) fn new(
        key: GroupKey,
        name: GroupId,
        creation: u64,
        index: GroupIndex,
        suspicion: Suspicion,
    ) -> Group {
        Group { key, name, creation, index: Mutex::new(index), damage: Mutex::new(None), suspicion }
    }

    /// Notes that a run cannot be read back. The first one is kept as long as the log holds it; but an error that may pass gives way to
    /// damage, which does not: whoever is told of the former only goes on.
    pub(crate) fn note_damage(&self, run: &Run, error: &StorageError) {
        let mut damage = self.damage.lock();
        damage.take_if(|(run, _)| !self.still_holds(run));
        if damage.as_ref().is_none_or(|(_, known)| is_damage(error) && !is_damage(known)) {
            tracing::error!(group = %self.name, first = run.first, last = run.last, %error, "entries cannot be read back");
            *damage = Some((run.clone(), error.clone()));
        }
        drop(damage);
        self.suspicion.raise();
    }

    /// What whoever opens the group is told: what was recovered at the start of the store, and what was found to be damaged since. Rule P7: a
    /// replica that was stopped by damage, and is started again on the same log, has lost what it may have acknowledged all the same.
    pub(crate) fn recovered(&self) -> RecoveredState {
        let found =
            self.damage.lock().clone().filter(|(run, error)| is_damage(error) && self.still_holds(run));
        let mut recovered = self.index.lock().recovered();
        if let Some((run, error)) = found {
            let what = error.to_string();
            recovered.damaged.push(DamagedRange { first: run.first, last: run.last, what });
        }
        recovered
    }

    /// What is damaged, as long as the log still holds it there: an error that passed does not keep a run from being
    /// copied to another place.
    pub(crate) fn known_damage(&self) -> Option<StorageError> {
        let mut damage = self.damage.lock();
        damage.take_if(|(run, _)| !self.still_holds(run));
        let found_at_start = || {
            let index = self.index.lock();
            let range = index.damaged.first()?;
            let what = format!("group {}, entries from {} on: {}", self.name, range.first, range.what);
            Some(StorageError::Damaged { path: "the log".to_owned(), offset: 0, what })
        };
        damage.as_ref().map(|(_, error)| error.clone()).or_else(found_at_start)
    }

    /// Whether the run stands where it was found.
    pub(crate) fn still_holds(&self, run: &Run) -> bool {
        let index = self.index.lock();
        let found = index.runs.find(run.sequence);
        found.is_some_and(|r| (r.file, r.offset) == (run.place.segment.number(), run.place.offset))
    }
}

/// Whether what cannot be read now never can be.
fn is_damage(error: &StorageError) -> bool {
    matches!(error, StorageError::Damaged { .. })
}

impl GroupIndex {
    pub(crate) fn last_index(&self) -> LogIndex {
        self.runs.last().map_or(self.before_first.index, |r| r.last)
    }

    pub(crate) fn last_term(&self) -> Term {
        self.runs.last().map_or(self.before_first.term, |r| r.term)
    }

    /// Takes the sequence for one more operation.
    pub(crate) fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    /// Whether entries `first..` of `term` may be appended.
    pub(crate) fn check_append(&self, first: LogIndex, term: Term) -> Result<(), String> {
        let last = self.last_index();
        if first != last + 1 {
            return Err(format!("append at {first} after last index {last} leaves a gap or overlaps"));
        }
        if term < self.last_term() {
            return Err(format!("append of term {term} after an entry of term {}", self.last_term()));
        }
        Ok(())
    }

    /// Adds a run that [`check_append`](GroupIndex::check_append) accepted.
    pub(crate) fn append(&mut self, run: &Run, configuration: Option<(Configuration, Configuration)>) {
        if let Some((conf, old_conf)) = configuration {
            let id = LogId::new(run.first, run.term);
            self.configurations.push_back(ConfigurationEntry { id, conf, old_conf });
        }
        run.place.segment.retain(run.place.len);
        self.runs.push(run.at());
    }

    /// Whether the suffix from `from` on may be dropped.
    pub(crate) fn check_truncate_suffix(&self, from: LogIndex) -> Result<(), String> {
        if from <= self.before_first.index {
            return Err(format!(
                "suffix truncation at {from} reaches below first index {}",
                self.first_index()
            ));
        }
        Ok(())
    }

    /// First index of the log, or where it would start.
    pub(crate) fn first_index(&self) -> LogIndex {
        self.before_first.index + 1
    }

    /// Drops entries `from..`; a run that is cut keeps its lower part.
    pub(crate) fn truncate_suffix(&mut self, from: LogIndex, files: &Segments) {
        self.runs.cut_back(from, |run| files.release(run.file, run.len));
        self.forget_configurations(from);
        self.durable_last = self.durable_last.min(self.last_index());
    }

    /// A configuration goes with its entry.
    fn forget_configurations(&mut self, from: LogIndex) {
        if Mutant::D28TruncationLeavesConfigurations.is_active() {
            return;
        }
        while self.configurations.back().is_some_and(|c| c.id.index >= from) {
            self.configurations.pop_back();
        }
    }

    /// Term of the entry at `index`, when the store knows it.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.before_first.index {
            return Some(self.before_first.term);
        }
        // Nearly always it is asked for the end of the log.
        let last = self.runs.last().filter(|run| run.first <= index && index <= run.last);
        last.copied().or_else(|| self.runs.holding(index)).map(|run| run.term)
    }

    /// The configuration in force at `index`, which is in the log or right before it.
    pub(crate) fn configuration_at(&self, index: LogIndex) -> Option<&ConfigurationEntry> {
        let in_log = self.configurations.iter().rev().find(|c| c.id.index <= index);
        in_log.or(self.conf_at_start.as_ref())
    }

    /// Drops entries below `before.index + 1`, which then stand for `before`.
    pub(crate) fn truncate_prefix(&mut self, before: LogId, files: &Segments) {
        if before.index <= self.before_first.index {
            return;
        }
        self.conf_at_start = self.configuration_at(before.index).cloned();
        self.runs.cut_front(before.index, |run| files.release(run.file, run.len));
        while self.configurations.front().is_some_and(|c| c.id.index <= before.index) {
            self.configurations.pop_front();
        }
        self.before_first = before;
        self.durable_last = self.durable_last.max(before.index);
    }

    /// Drops the whole log; it goes on behind `before`. What was damaged goes with it.
    pub(crate) fn reset(&mut self, before: LogId, conf: Option<ConfigurationEntry>, files: &Segments) {
        self.runs.clear(|run| files.release(run.file, run.len));
        self.configurations.clear();
        self.damaged.clear();
        self.before_first = before;
        self.conf_at_start = conf;
        self.durable_last = before.index;
    }

    /// Everything up to here is durable.
    pub(crate) fn mark_durable(&mut self) {
        self.durable_last = self.last_index();
        if self.durable_hard_state != self.hard_state {
            self.durable_hard_state = self.hard_state.clone();
        }
    }

    /// Gives up every run, as when the group is removed.
    pub(crate) fn release_all(&mut self, files: &Segments) {
        self.runs.clear(|run| files.release(run.file, run.len));
        self.configurations.clear();
        // Whoever found the group before it went must not take this for a log without entries to return.
        self.durable_last = self.before_first.index;
    }

    /// Points the run of this identity at its new place; `false` when there is no such run with that range.
    pub(crate) fn relocate(
        &mut self,
        sequence: u64,
        first: LogIndex,
        last: LogIndex,
        place: &Place,
        files: &Segments,
    ) -> bool {
        let Some(known) = self.runs.find(sequence) else { return false };
        let (file, offset, len) = (place.segment.number(), place.offset, place.len);
        match self.runs.replace(RunAt { first, last, file, offset, len, ..known }) {
            Some(old) => {
                files.release(old.file, old.len);
                place.segment.retain(len);
                true
            }
            None => false,
        }
    }

    /// What a node is told at start.
    pub(crate) fn recovered(&self) -> RecoveredState {
        let mut terms: Vec<(LogIndex, Term)> = Vec::new();
        for run in self.runs.iter() {
            if terms.last().is_none_or(|(_, term)| *term != run.term) {
                terms.push((run.first, run.term));
            }
        }
        RecoveredState {
            hard_state: self.hard_state.clone(),
            before_first: self.before_first,
            last_index: self.last_index(),
            terms,
            configurations: self.configurations.iter().cloned().collect(),
            conf_at_start: self.conf_at_start.clone(),
            promised_ms: self.promised_ms,
            member_removed: self.member_removed,
            damaged: self.damaged.clone(),
        }
    }
}
