//! Makes a new store. The manifest commits it; a host commits the directory by its identity after that.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::super::checkpoint::{self, Checkpoint, CheckpointRoom, Head};
use super::super::files::OpenFiles;
use super::super::format::DATA_START;
use super::super::manifest::{Manifest, ManifestFile, SharedManifest};
use super::super::options::SegmentLogOptions;
use super::super::prepare::{Origin, prepare};
use super::super::replay::Replay;
use super::super::segments::{Segment, Segments};
use super::super::stream::Position;
use super::{CheckpointNeeds, Finish, Recovered, finish, is_store_file};
use crate::disk::Disk;
use crate::store_id::StoreId;
use crate::traits::StorageError;

/// A name that no other store has, as far as chance goes.
pub(super) fn fresh_id() -> StoreId {
    let mut id = [0; 16];
    for (at, half) in id.chunks_mut(8).enumerate() {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_usize(at);
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    StoreId(id)
}

/// The entry of a file.
pub(super) fn entry(segment: &Segment) -> ManifestFile {
    let header = &segment.header;
    ManifestFile { number: header.number, salt: header.salt, bytes: header.bytes, version: 2 }
}

pub(super) fn create(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    options: &SegmentLogOptions,
    names: &[String],
) -> Result<Recovered, StorageError> {
    // What a creation left that did not finish.
    let leftovers: Vec<&String> = names.iter().filter(|n| is_store_file(n)).collect();
    for name in &leftovers {
        disk.remove(name)?;
    }
    if !leftovers.is_empty() {
        disk.sync_dir()?;
    }
    let store = fresh_id();
    let first = prepare(disk, files, &Origin::new(store, options), 1, None)?.segment;
    let position = Position { file: 1, offset: DATA_START, sequence: 1, life: 1 };
    let checkpoint = Checkpoint::initial(position);
    let tombstones = BTreeMap::new();
    let head = Head { position, next_number: 1, next_incarnation: 1, tombstones: &tombstones };
    let bytes = checkpoint::encode(store, 1, &head, [].iter());
    let mut room = CheckpointRoom::found(names);
    room.make(disk, bytes.len() as u64)?;
    room.publish(disk, 1, &bytes)?;
    let manifest =
        Manifest { store, sequence: 0, life: 0, checkpoint: 1, checkpoint_before: 0, files: Vec::new() };
    let manifest = SharedManifest::new(manifest);
    manifest.change(disk, |m| {
        m.life = 1;
        m.add(entry(&first));
    })?;
    let needs = [None, Some(CheckpointNeeds { from: 1, files: checkpoint.files() })];
    let segments = Segments::new(BTreeMap::from([(1, first)]));
    let replay = Replay::new(checkpoint, &segments).map_err(|(_, what)| StorageError::Refused(what))?;
    let parts = Finish { manifest, needs, segments, spares: Vec::new(), position, replayed: 0, names: &[] };
    finish(disk, parts, replay)
}
