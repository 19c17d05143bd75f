//! The embedded log store: one stream of runs for all groups of a directory, in files of fixed size.
//!
//! `docs/formats.md` describes the bytes. A batch is one vectored write ([`submit`](LogStorage::submit)) and one
//! fdatasync ([`complete`](LogStorage::complete)); files are written with zeros before they are used and keep their
//! size, so that fdatasync has no metadata to carry.

mod checkpoint;
mod format;
mod index;
mod maintain;
mod options;
mod prepare;
mod reader;
mod recovery;
mod replay;
mod stream;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ringraft_core::{EntryChunk, GroupId, HardState, LogId, LogOp, Mutant, PeerId, RecoveredState};
use rustc_hash::{FxHashMap, FxHashSet};

pub use options::SegmentLogOptions;

use crate::disk::{Disk, DiskLock, RealDisk, mutants};
use crate::traits::{
    GroupKey, GroupNumber, GroupWrite, Incarnation, LogReader, LogStorage, MetaStorage, StorageError,
    WriteBatch,
};
use format::{MAX_RUN_ENTRIES, MAX_TEXT, RunHeader, RunKind, stored_payload};
use index::{Group, GroupIndex, Run};
use maintain::Maintenance;
use prepare::Preparer;
use reader::SegmentReader;
use stream::{Stream, run_bound};

/// Groups by number, shared with readers.
type Groups = Arc<RwLock<FxHashMap<u32, Arc<Group>>>>;

/// A batch that was submitted and not completed by the owner yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InFlight {
    No,
    Written,
    /// An operation of the store itself made it durable before the owner asked.
    Durable,
}

/// The segment log of one directory: one ordered stream of runs for all its groups; see [`LogStorage`].
///
/// A batch is one vectored write ([`submit`](LogStorage::submit)) and one fdatasync
/// ([`complete`](LogStorage::complete)). Call [`maintain`](LogStorage::maintain) between batches: without it the
/// store never writes a checkpoint and never gets space back. `docs/formats.md` has the bytes.
///
/// Writes belong to one thread; [`reader`](LogStorage::reader) handles may be used from any. Dropping it does not
/// wait for a submitted batch.
pub struct SegmentLog {
    disk: Arc<dyn Disk>,
    options: SegmentLogOptions,
    stream: Stream,
    groups: Groups,
    names: FxHashMap<GroupId, GroupKey>,
    next_number: u32,
    next_incarnation: u32,
    /// Groups of the batch in flight.
    touched: Vec<Arc<Group>>,
    in_flight: InFlight,
    maintenance: Maintenance,
    poison: Option<String>,
    reader: Arc<SegmentReader>,
    _lock: DiskLock,
}

impl SegmentLog {
    /// Opens the store in `disk`, creating it when the directory has none.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when another owner has the directory or an option is out of range,
    /// [`StorageError::Damaged`] when what was durable cannot be read back, [`StorageError::Io`] else.
    pub fn open(disk: Arc<dyn Disk>, options: SegmentLogOptions) -> Result<SegmentLog, StorageError> {
        options.validate()?;
        let disk = mutants::around(disk);
        let lock = disk.lock()?;
        let recovered = recovery::recover(&*disk, &options)?;
        let preparer =
            Preparer::new(Arc::clone(&disk), recovered.next_file, options.file_bytes, options.background)?;
        let mut stream = Stream::new(
            &options,
            preparer,
            recovered.segments,
            recovered.current,
            recovered.position,
            recovered.replayed,
        );
        for (spare, bytes) in recovered.spares {
            stream.keep_or_remove(spare, bytes)?;
        }
        stream.top_up()?;
        let names = recovered.groups.values().map(|g| (g.name.clone(), g.key)).collect();
        let groups: Groups = Arc::new(RwLock::new(recovered.groups));
        Ok(SegmentLog {
            reader: Arc::new(SegmentReader::new(Arc::clone(&groups))),
            disk,
            options,
            stream,
            groups,
            names,
            next_number: recovered.next_number,
            next_incarnation: recovered.next_incarnation,
            touched: Vec::new(),
            in_flight: InFlight::No,
            maintenance: Maintenance::new(recovered.checkpoint, recovered.slots),
            poison: None,
            _lock: lock,
        })
    }

    /// Opens the store in the directory at `path` of the operating system; creates both when missing.
    ///
    /// # Errors
    /// As for [`open`](SegmentLog::open).
    pub fn open_dir(path: impl AsRef<Path>, options: SegmentLogOptions) -> Result<SegmentLog, StorageError> {
        SegmentLog::open(Arc::new(RealDisk::new(path)?), options)
    }

    /// As [`open_group`](LogStorage::open_group) for many groups: those that are new are created in one durable
    /// write.
    ///
    /// # Errors
    /// As for [`open_group`](LogStorage::open_group).
    pub fn open_groups(
        &mut self,
        groups: &[GroupId],
    ) -> Result<Vec<(GroupKey, RecoveredState)>, StorageError> {
        self.guard(|log| {
            let mut seen = FxHashSet::default();
            let mut new: Vec<&GroupId> =
                groups.iter().filter(|name| !log.names.contains_key(*name)).collect();
            new.retain(|name| seen.insert(*name));
            log.create_groups(&new)?;
            let table = log.groups.read();
            let mut opened = Vec::with_capacity(groups.len());
            for name in groups {
                let key = log.names[name];
                let recovered = table.get(&key.number.0).map(|g| g.index.lock().recovered());
                opened.push((key, recovered.unwrap_or_default()));
            }
            Ok(opened)
        })
    }

    /// Runs `f` unless the store has failed before; latches its failure.
    fn guard<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, StorageError>) -> Result<T, StorageError> {
        if let Some(reason) = &self.poison {
            return Err(StorageError::Poisoned(reason.clone()));
        }
        let result = f(self);
        if let Err(error) = &result {
            tracing::error!(%error, "the log store stops");
            self.poison = Some(error.to_string());
        }
        result
    }

    fn group(&self, key: GroupKey) -> Result<Arc<Group>, StorageError> {
        find(&self.groups.read(), key).cloned()
    }

    /// Makes everything written so far durable, so that the store can write for itself.
    fn settle(&mut self) -> Result<(), StorageError> {
        if self.in_flight == InFlight::Written {
            self.finish_batch()?;
            self.in_flight = InFlight::Durable;
        }
        Ok(())
    }

    fn finish_batch(&mut self) -> Result<(), StorageError> {
        self.stream.sync()?;
        for group in self.touched.drain(..) {
            group.index.lock().mark_durable();
        }
        Ok(())
    }

    fn create_groups(&mut self, names: &[&GroupId]) -> Result<(), StorageError> {
        if names.is_empty() {
            return Ok(());
        }
        self.settle()?;
        self.stream.begin(names.iter().map(|n| run_bound(0, n.as_str().len())).sum())?;
        let mut created = Vec::with_capacity(names.len());
        for name in names {
            if name.as_str().len() > MAX_TEXT {
                return Err(StorageError::Refused(format!("a group's name has more than {MAX_TEXT} bytes")));
            }
            let key = GroupKey {
                number: GroupNumber(self.next_number),
                incarnation: Incarnation(self.next_incarnation),
            };
            let exhausted = || StorageError::Refused("the store has used up its group numbers".to_owned());
            self.next_number = self.next_number.checked_add(1).ok_or_else(exhausted)?;
            self.next_incarnation = self.next_incarnation.checked_add(1).ok_or_else(exhausted)?;
            let payload = Bytes::copy_from_slice(name.as_str().as_bytes());
            let header = control_header(RunKind::GroupCreated, key, 0, &payload);
            self.stream.push(&header, &[], &payload)?;
            let index = GroupIndex { next_sequence: 1, ..GroupIndex::default() };
            created.push(Group { key, name: (*name).clone(), index: Mutex::new(index) });
        }
        self.stream.finish()?;
        self.stream.sync()?;
        let mut groups = self.groups.write();
        for group in created {
            self.names.insert(group.name.clone(), group.key);
            groups.insert(group.key.number.0, Arc::new(group));
        }
        Ok(())
    }

    fn write_batch(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if self.in_flight != InFlight::No {
            return Err(StorageError::Refused(
                "a batch was submitted before the one before it was completed; complete it first".to_owned(),
            ));
        }
        let mut bound = 0;
        for GroupWrite { group, ops } in &batch.writes {
            for op in ops {
                check_peers(op).map_err(|what| StorageError::Invalid { group: *group, what })?;
                bound += op_bound(op);
            }
        }
        self.stream.begin(bound)?;
        for GroupWrite { group: key, ops } in &batch.writes {
            let group = self.group(*key)?;
            {
                let mut index = group.index.lock();
                for op in ops {
                    write_op(&mut self.stream, *key, &mut index, op)?;
                }
            }
            self.touched.push(group);
        }
        if !batch.is_empty() {
            self.stream.finish()?;
        }
        self.in_flight = if must_be_synced(batch) { InFlight::Written } else { InFlight::Durable };
        Ok(())
    }
}

/// Every batch is synced before it counts, those that hold nothing but terms and votes included.
fn must_be_synced(batch: &WriteBatch) -> bool {
    let hard_states = |write: &GroupWrite| write.ops.iter().all(|op| matches!(op, LogOp::HardState(_)));
    !(Mutant::A15VoteWriteIsNotSynced.is_active() && batch.writes.iter().all(hard_states))
}

fn find(groups: &FxHashMap<u32, Arc<Group>>, key: GroupKey) -> Result<&Arc<Group>, StorageError> {
    groups
        .get(&key.number.0)
        .filter(|g| g.key == key)
        .ok_or_else(|| StorageError::Invalid { group: key, what: "the store has no such group".to_owned() })
}

fn control_header(kind: RunKind, key: GroupKey, sequence: u64, payload: &Bytes) -> RunHeader {
    RunHeader { payload: payload.len() as u32, ..RunHeader::control(kind, key, sequence) }
}

/// Bytes of runs that an operation takes at most.
fn op_bound(op: &LogOp) -> u64 {
    match op {
        LogOp::Append(chunk) => match chunk.kind() {
            ringraft_core::ChunkKind::Configuration { .. } => run_bound(1, stored_payload(chunk).len()),
            _ => run_bound(chunk.len(), chunk.payload().len()),
        },
        LogOp::HardState(state) => run_bound(0, state.voted_for.as_ref().map_or(0, |p| p.ip().len() + 32)),
        _ => run_bound(0, 0),
    }
}

/// Checks one operation, adds it to the batch and applies it to the index; readers see it when it is durable.
fn write_op(
    stream: &mut Stream,
    key: GroupKey,
    index: &mut GroupIndex,
    op: &LogOp,
) -> Result<(), StorageError> {
    let invalid = |what: String| StorageError::Invalid { group: key, what };
    match op {
        LogOp::Append(chunk) => {
            index.check_append(chunk.first_index(), chunk.term()).map_err(invalid)?;
            append(stream, key, index, chunk)
        }
        LogOp::HardState(state) => {
            let vote = state.voted_for.as_ref().map(PeerId::to_string).unwrap_or_default();
            let payload = Bytes::from(vote);
            let sequence = index.take_sequence();
            let header =
                RunHeader { term: state.term, ..control_header(RunKind::HardState, key, sequence, &payload) };
            stream.push(&header, &[], &payload)?;
            index.hard_state = state.clone();
            Ok(())
        }
        LogOp::TruncateSuffix { from } => {
            index.check_truncate_suffix(*from).map_err(invalid)?;
            if *from > index.last_index() {
                return Ok(());
            }
            let sequence = index.take_sequence();
            let header =
                RunHeader { index: *from, ..RunHeader::control(RunKind::TruncateSuffix, key, sequence) };
            stream.push(&header, &[], &Bytes::new())?;
            index.truncate_suffix(*from);
            Ok(())
        }
        LogOp::TruncatePrefix { first_kept } => {
            if *first_kept <= index.first_index() {
                return Ok(());
            }
            let before = LogId::new(first_kept - 1, index.term_at(first_kept - 1).unwrap_or(0));
            let sequence = index.take_sequence();
            let header = RunHeader {
                index: *first_kept,
                term: before.term,
                ..RunHeader::control(RunKind::TruncatePrefix, key, sequence)
            };
            stream.push(&header, &[], &Bytes::new())?;
            index.truncate_prefix(before);
            Ok(())
        }
    }
}

/// Whether every peer that the operation names can be read back: a text that the format cuts short, or that is no
/// peer id when it is read, would spoil the record or the checkpoint around it.
fn check_peers(op: &LogOp) -> Result<(), String> {
    let readable = |peer: &PeerId| {
        let text = peer.to_string();
        if text.len() <= MAX_TEXT && text.parse().is_ok_and(|back: PeerId| back == *peer) {
            return Ok(());
        }
        let start: String = text.chars().take(40).collect();
        Err(format!("peer id {start:?} of {} bytes cannot be read back", text.len()))
    };
    match op {
        LogOp::HardState(state) => state.voted_for.iter().try_for_each(readable),
        LogOp::Append(chunk) => match chunk.kind() {
            ringraft_core::ChunkKind::Configuration { conf, old_conf } => {
                let lists = [&conf.peers, &conf.learners, &old_conf.peers, &old_conf.learners];
                lists.into_iter().flatten().try_for_each(readable)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Appends a chunk, in pieces when a file cannot hold it whole.
fn append(
    stream: &mut Stream,
    key: GroupKey,
    index: &mut GroupIndex,
    chunk: &Arc<EntryChunk>,
) -> Result<(), StorageError> {
    let payload = stored_payload(chunk);
    let whole =
        run_bound(chunk.len(), payload.len()) <= stream.largest_run() && chunk.len() <= MAX_RUN_ENTRIES;
    if whole || chunk.len() == 1 {
        let sequence = index.take_sequence();
        let run = append_run(stream, key, sequence, false, chunk, &payload)?;
        let configuration = match chunk.kind() {
            ringraft_core::ChunkKind::Configuration { conf, old_conf } => {
                Some((conf.clone(), old_conf.clone()))
            }
            _ => None,
        };
        index.append(run, configuration);
        return Ok(());
    }
    let middle = chunk.first_index() + chunk.len() as u64 / 2;
    for part in [chunk.slice(0, middle - 1), chunk.slice(middle, u64::MAX)].into_iter().flatten() {
        append(stream, key, index, &Arc::new(part))?;
    }
    Ok(())
}

/// Adds the run of a chunk to the batch.
fn append_run(
    stream: &mut Stream,
    key: GroupKey,
    sequence: u64,
    rewritten: bool,
    chunk: &EntryChunk,
    payload: &Bytes,
) -> Result<Run, StorageError> {
    let kind = RunKind::of_chunk(chunk.kind());
    let header = RunHeader {
        kind,
        rewritten,
        group: key,
        sequence,
        index: chunk.first_index(),
        term: chunk.term(),
        count: chunk.len() as u32,
        payload: payload.len() as u32,
    };
    let one = [payload.len() as u32];
    let ends = if kind == RunKind::Configuration { &one } else { chunk.ends() };
    let place = stream.push(&header, ends, payload)?;
    let (first, last) = (chunk.first_index(), chunk.last_index());
    Ok(Run { first, last, term: chunk.term(), sequence, kind, place })
}

impl LogStorage for SegmentLog {
    fn open_group(&mut self, group: &GroupId) -> Result<(GroupKey, RecoveredState), StorageError> {
        let mut opened = self.open_groups(std::slice::from_ref(group))?;
        opened.pop().ok_or_else(|| StorageError::Poisoned("a group was not opened".to_owned()))
    }

    fn remove_group(&mut self, key: GroupKey) -> Result<(), StorageError> {
        self.guard(|log| {
            let group = log.group(key)?;
            log.settle()?;
            let sequence = group.index.lock().take_sequence();
            log.stream.begin(run_bound(0, 0))?;
            log.stream.push(&RunHeader::control(RunKind::GroupRemoved, key, sequence), &[], &Bytes::new())?;
            log.stream.finish()?;
            log.stream.sync()?;
            log.groups.write().remove(&key.number.0);
            log.names.remove(&group.name);
            group.index.lock().release_all();
            Ok(())
        })
    }

    fn groups(&self) -> Vec<(GroupId, GroupKey)> {
        let mut all: Vec<_> = self.names.iter().map(|(name, key)| (name.clone(), *key)).collect();
        all.sort_by_key(|(_, key)| *key);
        all
    }

    fn submit(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        self.guard(|log| log.write_batch(batch))
    }

    fn complete(&mut self) -> Result<(), StorageError> {
        self.guard(|log| {
            if log.in_flight == InFlight::Written {
                log.finish_batch()?;
            }
            log.in_flight = InFlight::No;
            Ok(())
        })
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.reader) as Arc<dyn LogReader>
    }

    fn maintain(&mut self) -> Result<(), StorageError> {
        self.guard(SegmentLog::do_maintenance)
    }
}

impl MetaStorage for SegmentLog {
    fn hard_state(&self, group: GroupKey) -> Result<HardState, StorageError> {
        if let Some(reason) = &self.poison {
            return Err(StorageError::Poisoned(reason.clone()));
        }
        Ok(self.group(group)?.index.lock().durable_hard_state.clone())
    }
}
