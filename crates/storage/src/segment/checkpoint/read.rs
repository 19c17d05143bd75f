//! Reads checkpoint files back.

use std::collections::BTreeMap;

use ringraft_core::{ConfigurationEntry, DamagedRange, GroupId, HardState, InvalidGroupId, LogId, Vote};

use super::super::format::{Cursor, RunKind, decode_configuration, take_configuration_entry, u16_at, u32_at};
use super::super::index::GroupIndex;
use super::super::runs::RunAt;
use super::super::stream::Position;
use super::frames::{BlockReader, Unreadable};
use super::{Checkpoint, StoredGroup, checkpoint_name};
use crate::disk::Disk;
use crate::store_id::StoreId;
use crate::traits::{GroupKey, GroupNumber, Incarnation};

/// Reads checkpoint file `number`.
pub(crate) fn read(disk: &dyn Disk, store: StoreId, number: u64) -> Result<Checkpoint, Unreadable> {
    let file = disk.open(&checkpoint_name(number))?;
    let mut block = BlockReader::open(&*file, store, number)?;
    let mut head = Cursor::new(block.take(48)?);
    let position =
        Position { file: head.u64()?, offset: head.u64()?, sequence: head.u64()?, life: head.u32()? };
    let (next_number, next_incarnation) = (head.u32()?, head.u32()?);
    let (group_count, tombstone_count, gone) = (head.u32()?, head.u32()?, head.u32()?);
    if gone != 0 {
        return Err("a full block that names groups that are gone".into());
    }
    let mut groups = Vec::new();
    for _ in 0..group_count {
        let len = u32_at(block.take(4)?, 0) as usize;
        let mut record = Cursor::new(block.take(len)?);
        groups.push(group(&mut record)?);
        if !record.is_empty() {
            return Err("a group record that is longer than what it says".into());
        }
    }
    let mut tombstones = BTreeMap::new();
    for _ in 0..tombstone_count {
        let len = usize::from(u16_at(block.take(2)?, 0));
        let name = std::str::from_utf8(block.take(len)?).map_err(|e| e.to_string())?;
        let name: GroupId = name.parse().map_err(|e: InvalidGroupId| e.to_string())?;
        tombstones.insert(name, Cursor::new(block.take(8)?).u64()?);
    }
    if !block.is_at_end() {
        return Err("the block is longer than what it says".into());
    }
    Ok(Checkpoint { position, next_number, next_incarnation, groups, tombstones })
}

fn group(cursor: &mut Cursor<'_>) -> Result<StoredGroup, String> {
    let key = GroupKey { number: GroupNumber(cursor.u32()?), incarnation: Incarnation(cursor.u32()?) };
    let creation = cursor.u64()?;
    let name: GroupId = cursor.text()?.parse().map_err(|e: InvalidGroupId| e.to_string())?;
    let next_sequence = cursor.u64()?;
    let before_first = LogId::new(cursor.u64()?, cursor.u64()?);
    let conf_at_start = in_force(take_configuration_entry(cursor)?);
    let hard_state = HardState { term: cursor.u64()?, vote: vote(cursor.text()?)? };
    let promised_ms = cursor.u64()?;
    let member_removed = LogId::new(cursor.u64()?, cursor.u64()?);
    let mut damaged = Vec::new();
    for _ in 0..cursor.u32()? {
        let (first, last) = (cursor.u64()?, cursor.u64()?);
        damaged.push(DamagedRange { first, last, what: cursor.text()?.to_owned() });
    }
    if cursor.u8()? != 0 {
        return Err("a snapshot, which a newer program wrote; start that one".to_owned());
    }
    let mut index = GroupIndex {
        before_first,
        hard_state,
        next_sequence,
        conf_at_start,
        promised_ms,
        member_removed,
        damaged,
        ..GroupIndex::default()
    };
    for _ in 0..cursor.u32()? {
        let id = LogId::new(cursor.u64()?, cursor.u64()?);
        let len = cursor.u32()? as usize;
        let (conf, old_conf) = decode_configuration(cursor.take(len)?)?;
        index.configurations.push_back(ConfigurationEntry { id, conf, old_conf });
    }
    if cursor.u32()? != 0 {
        return Err("terms without their runs, which a newer program wrote; start that one".to_owned());
    }
    for _ in 0..cursor.u32()? {
        let run = run(cursor)?;
        run.check(index.runs.last())?;
        index.runs.push(run);
    }
    if cursor.u32()? != 0 {
        return Err("footers, which a newer program wrote; start that one".to_owned());
    }
    Ok(StoredGroup { key, name, creation, index })
}

/// A run as earlier programs wrote it: all its numbers in full.
pub(super) fn run(cursor: &mut Cursor<'_>) -> Result<RunAt, String> {
    Ok(RunAt {
        first: cursor.u64()?,
        last: cursor.u64()?,
        term: cursor.u64()?,
        sequence: cursor.u64()?,
        file: cursor.u64()?,
        offset: u64::from(cursor.u32()?),
        len: cursor.u32()?,
        kind: RunKind::from_byte(cursor.u8()?).ok_or("a run of unknown kind")?,
    })
}

/// The initial configuration has no entry and is not told.
pub(crate) fn in_force(entry: ConfigurationEntry) -> Option<ConfigurationEntry> {
    (entry.id.index > 0 || !entry.conf.peers.is_empty()).then_some(entry)
}

fn vote(text: &str) -> Result<Vote, String> {
    Vote::from_text(text).map_err(|e| e.to_string())
}
