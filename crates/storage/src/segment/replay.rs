//! Replays runs of the stream, in order, onto the groups of a checkpoint.

use std::sync::Arc;

use ringraft_core::{GroupId, HardState, LogId, LogIndex, Mutant, PeerId};
use rustc_hash::FxHashMap;

use super::checkpoint::{Checkpoint, decode_vote};
use super::format::{RunKind, RunView, decode_configuration};
use super::index::{Group, GroupIndex, Place, Run, Segment};

/// Groups while they are rebuilt.
pub(crate) struct Replay {
    pub(crate) groups: FxHashMap<u32, Arc<Group>>,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
}

impl Replay {
    /// Starts from a checkpoint whose runs stand in `segment_of`.
    ///
    /// The error names what does not fit and the file number it concerns.
    pub(crate) fn new(
        checkpoint: Checkpoint,
        segment_of: impl Fn(u64) -> Option<Arc<Segment>>,
    ) -> Result<Replay, (u64, String)> {
        let mut groups = FxHashMap::default();
        for stored in checkpoint.groups {
            let mut index = stored.index;
            let configurations = std::mem::take(&mut index.configurations);
            for run in stored.runs {
                let segment = segment_of(run.file)
                    .ok_or_else(|| (run.file, format!("missing; group {} needs it", stored.name)))?;
                let fits = run.offset + u64::from(run.len) <= segment.header.bytes
                    && run.first <= run.last
                    && run.sequence < index.next_sequence
                    && index.runs.back().is_none_or(|r| r.sequence < run.sequence);
                index
                    .check_append(run.first, run.term)
                    .and_then(|()| if fits { Ok(()) } else { Err("a run that cannot be".to_owned()) })
                    .map_err(|what| (run.file, format!("checkpoint of group {}: {what}", stored.name)))?;
                let place = Place { segment, offset: run.offset, len: run.len };
                let (first, last, term) = (run.first, run.last, run.term);
                let run = Run { first, last, term, sequence: run.sequence, kind: run.kind, place };
                index.append(run, None);
            }
            index.configurations = configurations;
            let group = Group::new(stored.key, stored.name, index);
            groups.insert(group.key.number.0, Arc::new(group));
        }
        Ok(Replay {
            groups,
            next_number: checkpoint.next_number,
            next_incarnation: checkpoint.next_incarnation,
        })
    }

    /// Applies one run; `bytes` starts with it.
    pub(crate) fn apply(&mut self, view: &RunView, bytes: &[u8], place: Place) -> Result<(), String> {
        let header = &view.header;
        let payload = &bytes[view.payload.clone()];
        if header.kind == RunKind::GroupCreated {
            return self.create(view, payload);
        }
        let group = self
            .groups
            .get(&header.group.number.0)
            .filter(|g| g.key == header.group)
            .cloned()
            .ok_or_else(|| format!("a run of unknown group {}", header.group))?;
        let index = &mut *group.index.lock();
        if header.rewritten {
            let last = header.last_index().ok_or("a run with a wrong number of entries")?;
            return if index.relocate(header.sequence, header.index, last, &place) {
                Ok(())
            } else {
                Err(format!("group {}: a rewritten run has no original", header.group))
            };
        }
        let expected = index.take_sequence();
        if header.sequence != expected {
            return Err(format!(
                "group {}: operation {} where {expected} belongs",
                header.group, header.sequence
            ));
        }
        match header.kind {
            RunKind::Data | RunKind::NoOp | RunKind::Configuration => {
                index.check_append(header.index, header.term)?;
                let configuration = match header.kind {
                    RunKind::Configuration => Some(decode_configuration(payload)?),
                    _ => None,
                };
                let last = header.last_index().filter(|_| configuration.is_none() || header.count == 1);
                let last = last.ok_or("a run with a wrong number of entries")?;
                let run = Run {
                    first: header.index,
                    last,
                    term: header.term,
                    sequence: header.sequence,
                    kind: header.kind,
                    place,
                };
                index.append(run, configuration);
            }
            RunKind::HardState => {
                index.hard_state = HardState { term: header.term, voted_for: recorded_vote(payload)? };
            }
            RunKind::TruncateSuffix => {
                index.check_truncate_suffix(header.index)?;
                repeat_truncation(index, header.index);
            }
            RunKind::TruncatePrefix => {
                let before = header.index.checked_sub(1).ok_or("a prefix truncation at 0")?;
                index.truncate_prefix(LogId::new(before, header.term));
            }
            RunKind::GroupRemoved => index.release_all(),
            RunKind::GroupCreated => {}
        }
        if header.kind == RunKind::GroupRemoved {
            self.groups.remove(&header.group.number.0);
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
        self.groups.insert(key.number.0, Arc::new(Group::new(key, name, index)));
        Ok(())
    }
}

/// The vote belongs to the term it was recorded with.
fn recorded_vote(payload: &[u8]) -> Result<Option<PeerId>, String> {
    let vote = decode_vote(std::str::from_utf8(payload).map_err(|e| e.to_string())?)?;
    Ok(if Mutant::A9RecoveryForgetsTheVote.is_active() { None } else { vote })
}

/// What was truncated must not come back.
fn repeat_truncation(index: &mut GroupIndex, from: LogIndex) {
    if !Mutant::D28RecoveryForgetsTruncations.is_active() {
        index.truncate_suffix(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;
    use crate::segment::files::OpenFiles;
    use crate::segment::format::{
        DATA_START, RunHeader, SegmentHeader, align, decode_run, encode_run, seal_run,
    };
    use crate::segment::stream::Position;
    use crate::traits::{GroupKey, GroupNumber, Incarnation};

    /// A record with a good checksum and entries that cannot be counted, in a place where the index has others.
    #[test]
    fn a_run_without_entries_is_damage_and_not_a_panic() {
        let group = GroupKey { number: GroupNumber(1), incarnation: Incarnation(1) };
        let header = SegmentHeader { number: 1, salt: 7, bytes: 4096 };
        let segment = Segment::new(header, OpenFiles::new(Arc::new(MemoryDisk::new()), 1));
        for (rewritten, index, count) in [(false, 0, 0), (true, 0, 0), (true, u64::MAX, 2), (false, 1, 0)] {
            let position = Position { file: 1, offset: DATA_START, sequence: 1 };
            let mut replay = Replay::new(Checkpoint::initial(position), |_| None).unwrap();
            let mut apply = |run: RunHeader, payload: &[u8]| {
                let mut bytes = Vec::new();
                let ends = vec![0; run.count as usize];
                encode_run(&run, &ends, &mut bytes);
                seal_run(3, &mut bytes, payload);
                bytes.extend_from_slice(payload);
                bytes.resize(align(bytes.len()), 0);
                let view = decode_run(3, &bytes).unwrap();
                let place = Place { segment: Arc::clone(&segment), offset: 0, len: view.len as u32 };
                replay.apply(&view, &bytes, place)
            };
            let create = RunHeader { payload: 1, ..RunHeader::control(RunKind::GroupCreated, group, 0) };
            apply(create, b"g").unwrap();
            let run =
                RunHeader { rewritten, index, count, term: 1, ..RunHeader::control(RunKind::Data, group, 1) };
            assert!(apply(run, b"").is_err(), "rewritten {rewritten}, {count} entries at {index}");
        }
    }
}
