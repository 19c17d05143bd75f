//! Two slots that hold groups, hard states and the run index as of a position of the stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_core::{ConfigurationEntry, GroupId, HardState, LogId, Mutant, PeerId};
use rustc_hash::FxHashSet;

use super::format::{
    Cursor, FORMAT_VERSION, RunKind, decode_configuration, encode_configuration, put_text, u32_at, u64_at,
};
use super::index::{Group, GroupIndex};
use super::stream::Position;
use crate::disk::{Disk, DiskFile};
use crate::traits::{GroupKey, GroupNumber, Incarnation, IoKind, StorageError};

const MAGIC: [u8; 8] = *b"RRCHECKP";
const HEADER: usize = 40;

/// Names of the slots; odd checkpoints go to the first, even ones to the second.
pub(crate) const SLOTS: [&str; 2] = ["checkpoint-a", "checkpoint-b"];

/// The slot of checkpoint `sequence`.
pub(crate) fn slot_of(sequence: u64) -> usize {
    usize::from(sequence.is_multiple_of(2))
}

/// A run as a checkpoint names it: its file is only a number yet.
pub(crate) struct StoredRun {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) term: u64,
    pub(crate) sequence: u64,
    pub(crate) kind: RunKind,
    pub(crate) file: u64,
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// A group as a checkpoint holds it; `index.runs` is empty.
pub(crate) struct StoredGroup {
    pub(crate) key: GroupKey,
    pub(crate) name: GroupId,
    pub(crate) index: GroupIndex,
    pub(crate) runs: Vec<StoredRun>,
}

/// The contents of one slot.
pub(crate) struct Checkpoint {
    pub(crate) sequence: u64,
    pub(crate) position: Position,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
    pub(crate) groups: Vec<StoredGroup>,
}

impl Checkpoint {
    /// The checkpoint that a new store starts from: nothing in it, the stream begins at the first file.
    pub(crate) fn initial(position: Position) -> Checkpoint {
        Checkpoint { sequence: 1, position, next_number: 1, next_incarnation: 1, groups: Vec::new() }
    }

    /// Numbers of the files that a start from this checkpoint reads beside those from its position on.
    pub(crate) fn files(&self) -> FxHashSet<u64> {
        self.groups.iter().flat_map(|g| g.runs.iter().map(|r| r.file)).collect()
    }
}

/// Bytes of a checkpoint of `groups`.
pub(crate) fn encode<'a>(
    sequence: u64,
    position: Position,
    next_number: u32,
    next_incarnation: u32,
    groups: impl Iterator<Item = &'a Arc<Group>>,
) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    put64(&mut out, position.file);
    put64(&mut out, position.offset);
    put64(&mut out, position.sequence);
    put32(&mut out, next_number);
    put32(&mut out, next_incarnation);
    for group in groups {
        encode_group(&mut out, group);
    }
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&sequence.to_le_bytes());
    let body = (out.len() - HEADER) as u64;
    out[24..32].copy_from_slice(&body.to_le_bytes());
    let crc = crc32c::crc32c(&out[HEADER..]);
    out[32..36].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
    out
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn encode_group(out: &mut Vec<u8>, group: &Group) {
    let index = group.index.lock();
    put32(out, group.key.number.0);
    put32(out, group.key.incarnation.0);
    put_text(out, group.name.as_str());
    put64(out, index.next_sequence);
    put64(out, index.before_first.index);
    put64(out, index.before_first.term);
    put64(out, index.hard_state.term);
    put_text(out, &vote_to_keep(&index.hard_state));
    put32(out, index.configurations.len() as u32);
    for entry in &index.configurations {
        put64(out, entry.id.index);
        put64(out, entry.id.term);
        let bytes = encode_configuration(&entry.conf, &entry.old_conf);
        put32(out, bytes.len() as u32);
        out.extend_from_slice(&bytes);
    }
    put64(out, index.runs.len() as u64);
    for run in &index.runs {
        put64(out, run.first);
        put64(out, run.last);
        put64(out, run.term);
        put64(out, run.sequence);
        put64(out, run.place.segment.number());
        put32(out, run.place.offset as u32);
        put32(out, run.place.len);
        out.push(run.kind as u8);
    }
}

/// A checkpoint replaces the records of hard states, so it has the vote as well as the term.
fn vote_to_keep(state: &HardState) -> String {
    if Mutant::A9CheckpointForgetsTheVote.is_active() {
        return String::new();
    }
    state.voted_for.as_ref().map(PeerId::to_string).unwrap_or_default()
}

/// Reads the bytes of a slot.
pub(crate) fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    if bytes.len() < HEADER || bytes[..8] != MAGIC {
        return Err("not a checkpoint".to_owned());
    }
    if crc32c::crc32c(&bytes[..36]) != u32_at(bytes, 36) {
        return Err("checkpoint header checksum does not match".to_owned());
    }
    if u32_at(bytes, 8) != FORMAT_VERSION {
        return Err(format!("format version {} is not {FORMAT_VERSION}", u32_at(bytes, 8)));
    }
    let body = usize::try_from(u64_at(bytes, 24)).map_err(|e| e.to_string())?;
    let body = bytes[HEADER..].get(..body).ok_or("checkpoint is cut short")?;
    if crc32c::crc32c(body) != u32_at(bytes, 32) {
        return Err("checkpoint checksum does not match".to_owned());
    }
    let mut cursor = Cursor::new(body);
    let position = Position { file: cursor.u64()?, offset: cursor.u64()?, sequence: cursor.u64()? };
    let (next_number, next_incarnation) = (cursor.u32()?, cursor.u32()?);
    let mut groups = Vec::new();
    while !cursor.is_empty() {
        groups.push(decode_group(&mut cursor)?);
    }
    Ok(Checkpoint { sequence: u64_at(bytes, 16), position, next_number, next_incarnation, groups })
}

fn decode_group(cursor: &mut Cursor<'_>) -> Result<StoredGroup, String> {
    let key = GroupKey { number: GroupNumber(cursor.u32()?), incarnation: Incarnation(cursor.u32()?) };
    let name: GroupId = cursor.text()?.parse().map_err(|e: ringraft_core::InvalidGroupId| e.to_string())?;
    let next_sequence = cursor.u64()?;
    let before_first = LogId::new(cursor.u64()?, cursor.u64()?);
    let hard_state = HardState { term: cursor.u64()?, voted_for: decode_vote(cursor.text()?)? };
    let mut index = GroupIndex { before_first, hard_state, next_sequence, ..GroupIndex::default() };
    for _ in 0..cursor.u32()? {
        let id = LogId::new(cursor.u64()?, cursor.u64()?);
        let len = cursor.u32()? as usize;
        let (conf, old_conf) = decode_configuration(cursor.take(len)?)?;
        index.configurations.push_back(ConfigurationEntry { id, conf, old_conf });
    }
    let mut runs = Vec::new();
    for _ in 0..cursor.u64()? {
        runs.push(StoredRun {
            first: cursor.u64()?,
            last: cursor.u64()?,
            term: cursor.u64()?,
            sequence: cursor.u64()?,
            file: cursor.u64()?,
            offset: u64::from(cursor.u32()?),
            len: cursor.u32()?,
            kind: RunKind::from_byte(cursor.u8()?)
                .filter(|k| k.is_entries())
                .ok_or("a run of unknown kind")?,
        });
    }
    Ok(StoredGroup { key, name, index, runs })
}

/// A vote as text; the empty text is no vote.
pub(crate) fn decode_vote(text: &str) -> Result<Option<PeerId>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        text.parse().map(Some).map_err(|e: ringraft_core::InvalidPeerId| e.to_string())
    }
}

/// Bytes by which slots grow.
const SLOT_STEP: u64 = 4 << 10;

/// The two slot files, and whether their names are known to be durable.
#[derive(Default)]
pub(crate) struct SlotFiles {
    named: [bool; 2],
}

impl SlotFiles {
    /// The slots of a directory that holds these names, durably.
    pub(crate) fn found(names: &[String]) -> SlotFiles {
        SlotFiles { named: SLOTS.map(|slot| names.iter().any(|name| name == slot)) }
    }

    /// The slot of checkpoint `sequence`, with room for `bytes` bytes and some more: on a full disk it is the next
    /// checkpoint that frees files. What the slot holds stays as it is.
    ///
    /// # Errors
    /// [`StorageError::Io`]. Nothing has happened then, and it may be tried again.
    pub(crate) fn make_room(
        &mut self,
        disk: &dyn Disk,
        sequence: u64,
        bytes: u64,
    ) -> Result<Arc<dyn DiskFile>, StorageError> {
        let slot = slot_of(sequence);
        let name = SLOTS[slot];
        let file = if self.named[slot] {
            disk.open(name)?
        } else {
            // After a sync of the directory that failed only new changes prove anything.
            if disk.list()?.iter().any(|n| n == name) {
                disk.remove(name)?;
            }
            let file = disk.create(name, 0)?;
            disk.sync_dir()?;
            self.named[slot] = true;
            file
        };
        let length = file.len()?;
        if length < bytes + bytes / 4 {
            let ample = (2 * bytes).next_multiple_of(SLOT_STEP);
            let grown = grow(&*file, length, ample).or_else(|error| match error {
                _ if length >= bytes => Ok(()),
                StorageError::Io { kind: IoKind::Full, .. } => grow(&*file, length, bytes),
                error => Err(error),
            });
            grown?;
        }
        Ok(file)
    }
}

/// Extends a file with zeros that have their blocks; on failure it is as long as before.
fn grow(file: &dyn DiskFile, from: u64, to: u64) -> Result<(), StorageError> {
    let zeros = vec![0; (to - from).min(1 << 20) as usize];
    let mut at = from;
    while at < to {
        let n = (to - at).min(zeros.len() as u64);
        if let Err(error) = file.write_at(at, &zeros[..n as usize]) {
            // What was written of it is of no use, and may be the space that somebody needs.
            let _ = file.set_len(from);
            return Err(error);
        }
        at += n;
    }
    Ok(())
}

/// Writes a checkpoint to the slot that [`SlotFiles::make_room`] gave, and makes it durable.
pub(crate) fn write(file: &dyn DiskFile, bytes: &[u8]) -> Result<(), StorageError> {
    file.write_at(0, bytes)?;
    file.sync_data()
}

/// What the slots of a directory hold.
#[derive(Default)]
pub(crate) struct Slots {
    /// Checkpoints that can be read, by their sequence.
    pub(crate) valid: BTreeMap<u64, Checkpoint>,
    /// Slot files that exist and cannot be read, with the reason.
    pub(crate) invalid: Vec<(String, String)>,
}

/// Reads both slots, and makes the newest one that can be read durable: after a failed fsync it may stand in the page
/// cache only. The other one was durable before the newest was begun, and is not touched.
pub(crate) fn read(disk: &dyn Disk, names: &[String]) -> Result<Slots, StorageError> {
    let mut slots = Slots::default();
    let mut newest: Option<(u64, Arc<dyn DiskFile>, Vec<u8>)> = None;
    for name in SLOTS.iter().filter(|slot| names.iter().any(|n| n == *slot)) {
        let file = disk.open(name)?;
        let bytes = read_slot(&*file)?;
        match decode(&bytes) {
            Ok(checkpoint) => {
                let sequence = checkpoint.sequence;
                slots.valid.insert(sequence, checkpoint);
                if newest.as_ref().is_none_or(|(other, ..)| *other < sequence) {
                    newest = Some((sequence, file, bytes));
                }
            }
            Err(what) => slots.invalid.push((disk.path(name), what)),
        }
    }
    if let Some((_, file, bytes)) = newest {
        write(&*file, &bytes)?;
    }
    Ok(slots)
}

/// Header and body, as far as they are there; not the room behind them.
fn read_slot(file: &dyn DiskFile) -> Result<Vec<u8>, StorageError> {
    let length = file.len()?;
    let mut bytes = vec![0; length.min(HEADER as u64) as usize];
    file.read_exact_at(0, &mut bytes)?;
    if bytes.len() == HEADER {
        let end = u64_at(&bytes, 24).saturating_add(HEADER as u64).min(length);
        bytes.resize(end as usize, 0);
        file.read_exact_at(HEADER as u64, &mut bytes[HEADER..])?;
    }
    Ok(bytes)
}
