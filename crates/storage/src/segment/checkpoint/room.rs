//! Space for the next checkpoint, made ahead: on a full disk it is the next checkpoint that frees files.

use std::sync::Arc;

use super::checkpoint_name;
use crate::disk::{Disk, DiskFile};
use crate::traits::{IoKind, StorageError};

/// Name of the file that the next checkpoint is written to. What it holds means nothing.
pub(crate) const ROOM: &str = "checkpoint.tmp";

/// Bytes by which the file grows.
const STEP: u64 = 4 << 10;

/// The file that the next checkpoint is written to, with its blocks. It is the file of the checkpoint that was given up last.
#[derive(Default)]
pub(crate) struct CheckpointRoom {
    there: bool,
}

impl CheckpointRoom {
    /// The room in a directory that holds these names.
    pub(crate) fn found(names: &[String]) -> CheckpointRoom {
        CheckpointRoom { there: names.iter().any(|name| name == ROOM) }
    }

    /// Sees to it that the next checkpoint finds room for `bytes` bytes and some more.
    ///
    /// # Errors
    /// [`StorageError::Io`]. Nothing has happened then, and it may be tried again.
    pub(crate) fn make(&mut self, disk: &dyn Disk, bytes: u64) -> Result<(), StorageError> {
        let file = if self.there { disk.open(ROOM)? } else { disk.create(ROOM, 0)? };
        self.there = true;
        let length = file.len()?;
        if length >= bytes + bytes / 4 {
            return Ok(());
        }
        let ample = (2 * bytes).next_multiple_of(STEP);
        grow(&*file, length, ample).or_else(|error| match error {
            _ if length >= bytes => Ok(()),
            StorageError::Io { kind: IoKind::Full, .. } => grow(&*file, length, bytes),
            error => Err(error),
        })
    }

    /// Writes checkpoint file `number` into the room, durably. The manifest must name it before it counts.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(crate) fn publish(&mut self, disk: &dyn Disk, number: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let file: Arc<dyn DiskFile> = disk.open(ROOM)?;
        file.write_at(0, bytes)?;
        file.sync_data()?;
        drop(file);
        disk.rename(ROOM, &checkpoint_name(number))?;
        self.there = false;
        disk.sync_dir()
    }

    /// The file of a checkpoint that the manifest names no more is the room for the next one; 0 is none.
    pub(crate) fn take_back(&mut self, disk: &dyn Disk, number: u64) {
        if number == 0 || self.there {
            return;
        }
        // Nothing depends on it: what stays is removed at the next start.
        match disk.rename(&checkpoint_name(number), ROOM) {
            Ok(()) => self.there = true,
            Err(error) => tracing::warn!(%error, "an old checkpoint stays until the next start"),
        }
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
