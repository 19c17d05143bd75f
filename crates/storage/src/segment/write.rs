//! A batch of the owner in two passes: everything is checked before anything is written, so that who breaks a rule
//! fails alone and the disk never holds half of what a group wanted.

use std::sync::Arc;

use bytes::Bytes;
use ringraft_core::{ChunkKind, ConfigurationEntry, EntryChunk, LogId, LogOp, Mutant, PeerId};

use super::format::{
    MAX_RUN_ENTRIES, MAX_TEXT, RunHeader, RunKind, encode_configuration, put_configuration_entry,
    stored_payload,
};
use super::index::{Group, GroupIndex, Run};
use super::stream::{Stream, run_bound};
use super::{InFlight, SegmentLog, control_header};
use crate::shape::LogShape;
use crate::traits::{GroupKey, GroupWrite, RefusedWrites, StorageError, WriteBatch};

impl SegmentLog {
    /// Writes what of the batch breaks no rule, and notes the rest.
    pub(super) fn write_batch(&mut self, batch: &WriteBatch) -> Result<(), StorageError> {
        if self.in_flight != InFlight::No {
            return Err(StorageError::Refused(
                "a batch was submitted before the one before it was completed; complete it first".to_owned(),
            ));
        }
        let largest = self.stream.largest_run();
        self.refused_now.clear();
        let checked = self.check_batch(batch, largest);
        let new = checked.iter().flat_map(|(_, ops)| ops.iter().map(new_configuration)).max().unwrap_or(0);
        let sizes = checked.iter().flat_map(|(group, ops)| {
            let conf = in_force_bound(group, ops, new);
            ops.iter().flat_map(move |op| run_sizes(op, largest, conf))
        });
        // Nothing needs no file, which there may not be.
        if !checked.is_empty() {
            self.begin(sizes)?;
        }
        for (group, ops) in &checked {
            let mut index = group.index.lock();
            // Rule P1: term, vote and entries keep their order in the one stream.
            for op in *ops {
                write_op(&mut self.stream, group.key, &mut index, op)?;
            }
        }
        if !checked.is_empty() {
            self.stream.finish()?;
        }
        self.touched.extend(checked.into_iter().map(|(group, _)| group));
        self.in_flight = if must_be_synced(batch) { InFlight::Written } else { InFlight::Durable };
        Ok(())
    }

    /// Those writes of the batch that may be carried out, in order.
    fn check_batch<'a>(&mut self, batch: &'a WriteBatch, largest: u64) -> Vec<(Arc<Group>, &'a [LogOp])> {
        let mut checked = Vec::with_capacity(batch.writes.len());
        self.shapes.clear();
        for GroupWrite { group: key, ops } in &batch.writes {
            let verdict = match self.refused.get(key) {
                Some(reason) => Err(reason.clone()),
                None => self.check_write(*key, ops, largest),
            };
            match verdict {
                Ok(group) => checked.push((group, ops.as_slice())),
                Err(reason) => self.refuse(*key, reason),
            }
        }
        checked
    }

    fn check_write(
        &mut self,
        key: GroupKey,
        ops: &[LogOp],
        largest: u64,
    ) -> Result<Arc<Group>, StorageError> {
        let group = self.group(key)?;
        {
            let index = group.index.lock();
            let last = LogId::new(index.last_index(), index.last_term());
            let shape = self.shapes.entry(key).or_insert_with(|| LogShape::new(index.before_first, last));
            for op in ops {
                check_peers(op)
                    .and_then(|()| check_size(op, largest))
                    .and_then(|()| shape.check(op, |at| index.term_at(at)))
                    .map_err(|what| StorageError::Invalid { group: key, what })?;
            }
        }
        Ok(group)
    }

    /// Takes nothing more of the group. Rule P7: the others share the disk with it and not its bug.
    fn refuse(&mut self, key: GroupKey, reason: StorageError) {
        self.refused.entry(key).or_insert_with(|| {
            tracing::error!(group = %key, error = %reason, "the log store refuses the writes of a group");
            reason.clone()
        });
        if self.refused_now.iter().all(|refused| refused.group != key) {
            self.refused_now.push(RefusedWrites { group: key, reason });
        }
    }
}

/// Every batch is synced before it counts, those that hold nothing but terms and votes included.
fn must_be_synced(batch: &WriteBatch) -> bool {
    let hard_states = |write: &GroupWrite| write.ops.iter().all(|op| matches!(op, LogOp::HardState(_)));
    !(Mutant::A15VoteWriteIsNotSynced.is_active() && batch.writes.iter().all(hard_states))
}

/// Bytes that a chunk takes at most when it is written as one run.
fn chunk_bound(chunk: &EntryChunk) -> u64 {
    match chunk.kind() {
        ChunkKind::Configuration { .. } => run_bound(1, stored_payload(chunk).len()),
        _ => run_bound(chunk.len(), chunk.payload().len()),
    }
}

/// Whether the chunk can be one run, or cannot be cut.
fn is_whole(chunk: &EntryChunk, largest: u64) -> bool {
    chunk.len() == 1 || chunk_bound(chunk) <= largest && chunk.len() <= MAX_RUN_ENTRIES
}

/// Both halves of a chunk that no file can hold.
fn halves(chunk: &EntryChunk) -> impl Iterator<Item = EntryChunk> {
    let middle = chunk.first_index() + chunk.len() as u64 / 2;
    [chunk.slice(0, middle - 1), chunk.slice(middle, u64::MAX)].into_iter().flatten()
}

/// Bytes that the configuration in force at any place of the log takes at most, when one of the operations needs it; `new` is what those
/// take that the batch brings, for any group: an earlier write of this one may hold one of them.
fn in_force_bound(group: &Group, ops: &[LogOp], new: usize) -> usize {
    if !ops.iter().any(|op| matches!(op, LogOp::TruncatePrefix { .. })) {
        return 0;
    }
    let index = group.index.lock();
    let stored = index.configurations.iter().chain(&index.conf_at_start);
    stored.map(|entry| in_force(Some(entry)).len()).max().unwrap_or(0).max(new)
}

/// Bytes that a configuration which the operation brings takes when it is in force.
fn new_configuration(op: &LogOp) -> usize {
    match op {
        LogOp::Append(chunk) => match chunk.kind() {
            ChunkKind::Configuration { conf, old_conf } => 16 + encode_configuration(conf, old_conf).len(),
            _ => 0,
        },
        LogOp::Reset { conf, .. } => in_force(conf.as_deref()).len(),
        _ => 0,
    }
}

/// Sizes of the runs that an operation is written as, each at most; `conf` is what a configuration in force takes.
fn run_sizes(op: &LogOp, largest: u64, conf: usize) -> impl Iterator<Item = u64> + Clone + use<> {
    let (one, several) = match op {
        LogOp::Append(chunk) if is_whole(chunk, largest) => (Some(chunk_bound(chunk)), Vec::new()),
        LogOp::Append(chunk) => {
            let mut sizes = Vec::new();
            cut_sizes(chunk, largest, &mut sizes);
            (None, sizes)
        }
        LogOp::HardState(state) => {
            // A peer's text is its ip and three numbers; the vote that is withheld has a short one.
            let vote = state.vote.candidate().map_or(32, |peer| peer.ip().len() + 32);
            (Some(run_bound(0, vote)), Vec::new())
        }
        LogOp::Reset { conf, .. } => (Some(run_bound(0, in_force(conf.as_deref()).len())), Vec::new()),
        LogOp::TruncatePrefix { .. } => (Some(run_bound(0, conf)), Vec::new()),
        _ => (Some(run_bound(0, 0)), Vec::new()),
    };
    one.into_iter().chain(several)
}

fn cut_sizes(chunk: &EntryChunk, largest: u64, sizes: &mut Vec<u64>) {
    if is_whole(chunk, largest) {
        sizes.push(chunk_bound(chunk));
    } else {
        halves(chunk).for_each(|half| cut_sizes(&half, largest, sizes));
    }
}

/// Whether every entry fits in a file.
fn check_size(op: &LogOp, largest: u64) -> Result<(), String> {
    let LogOp::Append(chunk) = op else { return Ok(()) };
    if chunk_bound(chunk) <= largest {
        return Ok(());
    }
    let payload = match chunk.kind() {
        ChunkKind::Configuration { .. } => stored_payload(chunk).len(),
        _ => (0..chunk.len()).map(|i| chunk.entry(i).len()).max().unwrap_or(0),
    };
    if run_bound(1, payload) <= largest {
        return Ok(());
    }
    Err(format!(
        "an entry of {payload} bytes from index {} on does not fit in a segment file, whose runs have at most \
         {largest} bytes; raise file_bytes or bound the size of an entry",
        chunk.first_index()
    ))
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
        LogOp::HardState(state) => state.vote.candidate().map_or(Ok(()), readable),
        LogOp::Append(chunk) => match chunk.kind() {
            ChunkKind::Configuration { conf, old_conf } => {
                let lists = [&conf.peers, &conf.learners, &old_conf.peers, &old_conf.learners];
                lists.into_iter().flatten().try_for_each(readable)
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Adds one operation that was checked to the batch and applies it to the index; readers see it when it is durable.
fn write_op(
    stream: &mut Stream,
    key: GroupKey,
    index: &mut GroupIndex,
    op: &LogOp,
) -> Result<(), StorageError> {
    match op {
        LogOp::Append(chunk) => append(stream, key, index, chunk),
        LogOp::HardState(state) => {
            let payload = Bytes::from(state.vote.to_text());
            let sequence = index.take_sequence();
            let header =
                RunHeader { term: state.term, ..control_header(RunKind::HardState, key, sequence, &payload) };
            stream.push(&header, &[], &payload)?;
            index.hard_state = state.clone();
            Ok(())
        }
        LogOp::TruncateSuffix { from } => {
            if *from > index.last_index() {
                return Ok(());
            }
            let sequence = index.take_sequence();
            let header =
                RunHeader { index: *from, ..RunHeader::control(RunKind::TruncateSuffix, key, sequence) };
            stream.push(&header, &[], &Bytes::new())?;
            index.truncate_suffix(*from, &stream.segments);
            Ok(())
        }
        LogOp::TruncatePrefix { first_kept } => {
            if *first_kept <= index.first_index() {
                return Ok(());
            }
            let before = LogId::new(first_kept - 1, index.term_at(first_kept - 1).unwrap_or(0));
            let conf = in_force(index.configuration_at(before.index));
            let sequence = index.take_sequence();
            let header = RunHeader {
                index: *first_kept,
                term: before.term,
                ..control_header(RunKind::TruncatePrefix, key, sequence, &conf)
            };
            stream.push(&header, &[], &conf)?;
            index.truncate_prefix(before, &stream.segments);
            Ok(())
        }
        LogOp::Reset { before, conf } => {
            let payload = in_force(conf.as_deref());
            let sequence = index.take_sequence();
            let header = RunHeader {
                index: before.index,
                term: before.term,
                ..control_header(RunKind::Reset, key, sequence, &payload)
            };
            stream.push(&header, &[], &payload)?;
            index.reset(*before, conf.as_deref().cloned(), &stream.segments);
            Ok(())
        }
        LogOp::Promise { ms } => {
            let sequence = index.take_sequence();
            let header = RunHeader { index: *ms, ..RunHeader::control(RunKind::Promise, key, sequence) };
            stream.push(&header, &[], &Bytes::new())?;
            index.promised_ms = index.promised_ms.max(*ms);
            Ok(())
        }
        LogOp::MemberRemoved { at } => {
            let sequence = index.take_sequence();
            let header = RunHeader {
                index: at.index,
                term: at.term,
                ..RunHeader::control(RunKind::MemberRemoved, key, sequence)
            };
            stream.push(&header, &[], &Bytes::new())?;
            index.member_removed = *at;
            Ok(())
        }
    }
}

/// A configuration in force as a payload; nothing for the initial one.
fn in_force(entry: Option<&ConfigurationEntry>) -> Bytes {
    let mut out = Vec::new();
    if let Some(entry) = entry {
        put_configuration_entry(&mut out, entry);
    }
    out.into()
}

/// Appends a chunk, in pieces when a file cannot hold it whole.
fn append(
    stream: &mut Stream,
    key: GroupKey,
    index: &mut GroupIndex,
    chunk: &EntryChunk,
) -> Result<(), StorageError> {
    if !is_whole(chunk, stream.largest_run()) {
        return halves(chunk).try_for_each(|half| append(stream, key, index, &half));
    }
    let sequence = index.take_sequence();
    let run = append_run(stream, key, sequence, false, chunk, &stored_payload(chunk))?;
    let configuration = match chunk.kind() {
        ChunkKind::Configuration { conf, old_conf } => Some((conf.clone(), old_conf.clone())),
        _ => None,
    };
    index.append(&run, configuration);
    Ok(())
}

/// Adds the run of a chunk to the batch.
pub(super) fn append_run(
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
