//! Replays runs of the stream, in order, onto the groups of a checkpoint.

use std::sync::Arc;

use ringraft_core::{DamagedRange, GroupId, HardState, LogId, LogIndex, Mutant, Vote};
use rustc_hash::FxHashMap;

use super::checkpoint::{Checkpoint, StoredGroup, in_force};
use super::format::{Cursor, RunHeader, RunKind, RunView, decode_configuration, take_configuration_entry};
use super::index::{Group, GroupIndex, Place, Run, Suspicion};
use super::segments::Segments;
use crate::lives::{self, Tombstones};

/// Groups while they are rebuilt.
pub(crate) struct Replay {
    pub(crate) groups: FxHashMap<u32, Arc<Group>>,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
    pub(crate) tombstones: Tombstones,
    /// Operations that groups miss, as the gaps in their sequences tell.
    pub(crate) missed: u64,
    /// Of the store that comes of it.
    pub(crate) suspicion: Suspicion,
    files: Arc<Segments>,
}

/// What a group that misses an operation, or one that cannot be read, has lost.
fn everything_from(first: LogIndex, what: String) -> DamagedRange {
    DamagedRange { first, last: LogIndex::MAX, what }
}

/// Whether nothing but a reset can mend the group's log.
fn is_broken(index: &GroupIndex) -> bool {
    index.damaged.iter().any(|range| range.last == LogIndex::MAX)
}

/// The group may have voted, and nobody knows for whom: from now on it votes for nobody (decision 0008).
fn withhold_vote(index: &mut GroupIndex) {
    index.hard_state.vote = Vote::Withheld;
}

impl Replay {
    /// Starts from a checkpoint whose runs stand in `files`.
    ///
    /// The error names what does not fit and the file number it concerns.
    pub(crate) fn new(checkpoint: Checkpoint, files: &Arc<Segments>) -> Result<Replay, (u64, String)> {
        let (mut groups, suspicion) = (FxHashMap::default(), Suspicion::default());
        for StoredGroup { key, name, creation, index } in checkpoint.groups {
            let mut end = index.before_first;
            for run in index.runs.iter() {
                let wrong = |what: &str| (run.file, format!("checkpoint of group {name}: {what}"));
                let segment = files.get(run.file);
                let segment = segment.ok_or_else(|| (run.file, format!("missing; group {name} needs it")))?;
                let follows = run.first == end.index + 1 && run.term >= end.term;
                let there = run.offset + u64::from(run.len) <= segment.header.bytes;
                if !follows || !there || run.sequence >= index.next_sequence {
                    return Err(wrong("a run that cannot be"));
                }
                end = LogId::new(run.last, run.term);
                segment.retain(run.len);
            }
            let group = Group::new(key, name, creation, index, suspicion.clone());
            groups.insert(key.number.0, Arc::new(group));
        }
        Ok(Replay {
            groups,
            next_number: checkpoint.next_number,
            next_incarnation: checkpoint.next_incarnation,
            tombstones: checkpoint.tombstones,
            missed: 0,
            suspicion,
            files: Arc::clone(files),
        })
    }

    fn group(&self, header: &RunHeader) -> Result<Arc<Group>, String> {
        let group = self.groups.get(&header.group.number.0).filter(|g| g.key == header.group);
        group.cloned().ok_or_else(|| format!("a run of unknown group {}", header.group))
    }

    /// Takes the sequence of a run. A group that misses operations has lost what they did: its log and its vote are not to be trusted.
    fn take_sequence(&mut self, index: &mut GroupIndex, header: &RunHeader) -> Result<(), String> {
        let expected = index.next_sequence;
        let Some(gap) = header.sequence.checked_sub(expected) else {
            return Err(format!(
                "group {}: operation {} where {expected} belongs",
                header.group, header.sequence
            ));
        };
        if gap > 0 {
            self.missed += gap;
            let what = format!("operations {expected}..{} cannot be read", header.sequence);
            index.damaged.push(everything_from(index.last_index() + 1, what));
            withhold_vote(index);
        }
        index.next_sequence = header.sequence + 1;
        Ok(())
    }

    /// Applies a run of which only the header can be read.
    pub(crate) fn apply_damaged(&mut self, view: &RunView, place: Place, what: &str) -> Result<(), String> {
        let header = &view.header;
        match header.kind {
            RunKind::Skipped => return Ok(()),
            RunKind::GroupCreated => return Err(format!("{what}; the name of a new group is lost")),
            _ => {}
        }
        let group = self.group(header)?;
        let index = &mut *group.index.lock();
        let text = format!("{} at byte {}: {what}", place.segment.path(), place.offset);
        if header.rewritten {
            // The copy is damaged; the original may be gone. Its place is that of the copy.
            index.relocate(header.sequence, header.index, header.last(), &place, &self.files);
            index.damaged.push(DamagedRange { first: header.index, last: header.last(), what: text });
            return Ok(());
        }
        self.take_sequence(index, header)?;
        match header.kind {
            kind if kind.is_entries() && !is_broken(index) => {
                index.check_append(header.index, header.term)?;
                index.append(&run_of(header, place), None);
                index.damaged.push(DamagedRange { first: header.index, last: header.last(), what: text });
            }
            RunKind::HardState => {
                index.hard_state.term = index.hard_state.term.max(header.term);
                withhold_vote(index);
            }
            // The rest of it is known without the payload.
            RunKind::TruncatePrefix if !is_broken(index) => {
                let before = header.index.checked_sub(1).ok_or("a prefix truncation at 0")?;
                index.truncate_prefix(LogId::new(before, header.term), &self.files);
            }
            RunKind::GroupRemoved => self.remove(&group, index, header),
            RunKind::Promise => index.promised_ms = index.promised_ms.max(header.index),
            RunKind::MemberRemoved => index.member_removed = LogId::new(header.index, header.term),
            _ => index.damaged.push(everything_from(index.last_index() + 1, text)),
        }
        Ok(())
    }

    fn remove(&mut self, group: &Group, index: &mut GroupIndex, header: &RunHeader) {
        index.release_all(&self.files);
        let creation = header.index.max(group.creation);
        lives::bury(&mut self.tombstones, &group.name, creation);
        self.groups.remove(&header.group.number.0);
    }

    /// Applies one run; `bytes` starts with it.
    pub(crate) fn apply(&mut self, view: &RunView, bytes: &[u8], place: Place) -> Result<(), String> {
        let header = &view.header;
        let payload = &bytes[view.payload.clone()];
        if header.kind == RunKind::GroupCreated {
            return self.create(view, payload);
        }
        if header.kind == RunKind::Skipped {
            return Ok(());
        }
        let group = self.group(header)?;
        let index = &mut *group.index.lock();
        if header.rewritten {
            let known = index.relocate(header.sequence, header.index, header.last(), &place, &self.files);
            // A repair: what the copy holds is whole again.
            index.damaged.retain(|range| (range.first, range.last) != (header.index, header.last()));
            return match known || is_broken(index) {
                true => Ok(()),
                false => Err(format!("group {}: a rewritten run has no original", header.group)),
            };
        }
        self.take_sequence(index, header)?;
        let broken = is_broken(index);
        match header.kind {
            RunKind::Data | RunKind::NoOp | RunKind::Configuration if broken => {}
            RunKind::TruncateSuffix | RunKind::TruncatePrefix if broken => {}
            RunKind::Data | RunKind::NoOp | RunKind::Configuration => {
                index.check_append(header.index, header.term)?;
                let configuration = match header.kind {
                    RunKind::Configuration => Some(decode_configuration(payload)?),
                    _ => None,
                };
                if header.count == 0 || (configuration.is_some() && header.count != 1) {
                    return Err("a run with a wrong number of entries".to_owned());
                }
                index.append(&run_of(header, place), configuration);
            }
            RunKind::HardState => {
                index.hard_state = HardState { term: header.term, vote: recorded_vote(payload)? };
            }
            RunKind::TruncateSuffix => {
                index.check_truncate_suffix(header.index)?;
                repeat_truncation(index, header.index, &self.files);
            }
            RunKind::TruncatePrefix => {
                let before = header.index.checked_sub(1).ok_or("a prefix truncation at 0")?;
                index.truncate_prefix(LogId::new(before, header.term), &self.files);
            }
            RunKind::Reset => {
                let conf = match payload {
                    [] => None,
                    conf => in_force(take_configuration_entry(&mut Cursor::new(conf))?),
                };
                index.reset(LogId::new(header.index, header.term), conf, &self.files);
            }
            RunKind::Promise => index.promised_ms = index.promised_ms.max(header.index),
            RunKind::MemberRemoved => index.member_removed = LogId::new(header.index, header.term),
            RunKind::DamagedRange if header.index == 0 => index.damaged.clear(),
            RunKind::DamagedRange => {
                let mut cursor = Cursor::new(payload);
                let (last, what) = (cursor.u64()?, cursor.text()?.to_owned());
                index.damaged.push(DamagedRange { first: header.index, last, what });
            }
            RunKind::GroupRemoved => self.remove(&group, index, header),
            RunKind::GroupCreated | RunKind::Skipped => {}
        }
        Ok(())
    }

    fn create(&mut self, view: &RunView, payload: &[u8]) -> Result<(), String> {
        let key = view.header.group;
        if key.number.0 < self.next_number || key.incarnation.0 < self.next_incarnation {
            return Err(format!("group {key} is created twice"));
        }
        let name = std::str::from_utf8(payload).map_err(|e| e.to_string())?;
        let name: GroupId = name.parse().map_err(|e: ringraft_core::InvalidGroupId| e.to_string())?;
        self.next_number = key.number.0 + 1;
        self.next_incarnation = key.incarnation.0 + 1;
        let index = GroupIndex { next_sequence: 1, ..GroupIndex::default() };
        let creation = view.header.index;
        let group = Group::new(key, name, creation, index, self.suspicion.clone());
        self.groups.insert(key.number.0, Arc::new(group));
        Ok(())
    }
}

/// The vote belongs to the term it was recorded with.
fn recorded_vote(payload: &[u8]) -> Result<Vote, String> {
    let text = std::str::from_utf8(payload).map_err(|e| e.to_string())?;
    let vote = Vote::from_text(text).map_err(|e| e.to_string())?;
    Ok(if Mutant::A9RecoveryForgetsTheVote.is_active() { Vote::None } else { vote })
}

/// What was truncated must not come back.
fn repeat_truncation(index: &mut GroupIndex, from: LogIndex, files: &Segments) {
    if !Mutant::D28RecoveryForgetsTruncations.is_active() {
        index.truncate_suffix(from, files);
    }
}

fn run_of(header: &RunHeader, place: Place) -> Run {
    Run {
        first: header.index,
        last: header.last(),
        term: header.term,
        sequence: header.sequence,
        kind: header.kind,
        place,
    }
}
