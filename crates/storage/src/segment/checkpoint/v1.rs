//! Checkpoint slots of version 1, which are read and taken over.

use std::collections::BTreeMap;

use ringraft_core::{ConfigurationEntry, GroupId, HardState, InvalidGroupId, LogId, Vote};

use super::super::format::{Cursor, decode_configuration, u32_at, u64_at};
use super::super::index::GroupIndex;
use super::super::stream::Position;
use super::read::run;
use super::{Checkpoint, StoredGroup};
use crate::disk::Disk;
use crate::traits::{GroupKey, GroupNumber, Incarnation, StorageError};

const MAGIC: [u8; 8] = *b"RRCHECKP";
const VERSION: u32 = 1;
const HEADER: usize = 40;

/// Names of the slots; odd checkpoints went to the first, even ones to the second.
pub(crate) const SLOTS: [&str; 2] = ["checkpoint-a", "checkpoint-b"];

/// Reads the bytes of a slot: its sequence and what it holds.
fn decode(bytes: &[u8]) -> Result<(u64, Checkpoint), String> {
    if bytes.len() < HEADER || bytes[..8] != MAGIC {
        return Err("not a checkpoint".to_owned());
    }
    if crc32c::crc32c(&bytes[..36]) != u32_at(bytes, 36) {
        return Err("checkpoint header checksum does not match".to_owned());
    }
    if u32_at(bytes, 8) != VERSION {
        return Err(format!("format version {} is not {VERSION}", u32_at(bytes, 8)));
    }
    let body = usize::try_from(u64_at(bytes, 24)).map_err(|e| e.to_string())?;
    let body = bytes[HEADER..].get(..body).ok_or("checkpoint is cut short")?;
    if crc32c::crc32c(body) != u32_at(bytes, 32) {
        return Err("checkpoint checksum does not match".to_owned());
    }
    let mut cursor = Cursor::new(body);
    let position = Position { file: cursor.u64()?, offset: cursor.u64()?, sequence: cursor.u64()?, life: 0 };
    let (next_number, next_incarnation) = (cursor.u32()?, cursor.u32()?);
    let mut groups = Vec::new();
    while !cursor.is_empty() {
        groups.push(group(&mut cursor)?);
    }
    let tombstones = BTreeMap::new();
    Ok((u64_at(bytes, 16), Checkpoint { position, next_number, next_incarnation, groups, tombstones }))
}

fn group(cursor: &mut Cursor<'_>) -> Result<StoredGroup, String> {
    let key = GroupKey { number: GroupNumber(cursor.u32()?), incarnation: Incarnation(cursor.u32()?) };
    let name: GroupId = cursor.text()?.parse().map_err(|e: InvalidGroupId| e.to_string())?;
    let next_sequence = cursor.u64()?;
    let before_first = LogId::new(cursor.u64()?, cursor.u64()?);
    let hard_state = HardState { term: cursor.u64()?, vote: vote(cursor.text()?)? };
    let mut index = GroupIndex { before_first, hard_state, next_sequence, ..GroupIndex::default() };
    for _ in 0..cursor.u32()? {
        let id = LogId::new(cursor.u64()?, cursor.u64()?);
        let len = cursor.u32()? as usize;
        let (conf, old_conf) = decode_configuration(cursor.take(len)?)?;
        index.configurations.push_back(ConfigurationEntry { id, conf, old_conf });
    }
    for _ in 0..cursor.u64()? {
        let run = run(cursor)?;
        run.check(index.runs.last())?;
        index.runs.push(run);
    }
    Ok(StoredGroup { key, name, creation: 0, index })
}

/// The newest slot that can be read, with its sequence; `None` when there is none. It is made durable: after a failed fsync it may stand in
/// the page cache only.
pub(crate) fn read_newest(
    disk: &dyn Disk,
    names: &[String],
) -> Result<Option<(u64, Checkpoint)>, StorageError> {
    let mut newest: Option<(u64, Checkpoint, &str, Vec<u8>)> = None;
    for name in SLOTS.iter().filter(|slot| names.iter().any(|n| n == *slot)) {
        let file = disk.open(name)?;
        let mut bytes = vec![0; file.len()? as usize];
        file.read_exact_at(0, &mut bytes)?;
        match decode(&bytes) {
            Ok((sequence, checkpoint)) if newest.as_ref().is_none_or(|n| n.0 < sequence) => {
                newest = Some((sequence, checkpoint, name, bytes));
            }
            Ok(_) => {}
            Err(what) => {
                tracing::warn!(path = %disk.path(name), %what, "a checkpoint slot cannot be read; the other one is used");
            }
        }
    }
    let Some((sequence, checkpoint, name, bytes)) = newest else { return Ok(None) };
    let file = disk.open(name)?;
    file.write_at(0, &bytes)?;
    file.sync_data()?;
    Ok(Some((sequence, checkpoint)))
}

fn vote(text: &str) -> Result<Vote, String> {
    Vote::from_text(text).map_err(|e| e.to_string())
}
