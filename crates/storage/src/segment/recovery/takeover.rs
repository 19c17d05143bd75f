//! Takes over a directory of version 1: its stream is recovered by its own rules and goes on in files of version 2.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::checkpoint::{self, CheckpointRoom, Head, v1};
use super::super::files::OpenFiles;
use super::super::format::{DATA_START, Layout, segment_name, segment_number};
use super::super::index::Group;
use super::super::manifest::{Manifest, ManifestFile, SharedManifest};
use super::super::options::SegmentLogOptions;
use super::super::prepare::{Origin, prepare};
use super::super::replay::Replay;
use super::super::segments::{Segment, Segments};
use super::super::stream::Position;
use super::create::{entry, fresh_id};
use super::scan::Scan;
use super::{CheckpointNeeds, Finish, Recovered, damaged, finish, header_of, remove_strangers};
use crate::disk::Disk;
use crate::traits::StorageError;

pub(super) fn take_over(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    options: &SegmentLogOptions,
    names: &[String],
) -> Result<Recovered, StorageError> {
    let Some((_, old)) = v1::read_newest(disk, names)? else {
        let what = "no checkpoint slot can be read though the store has been used";
        return Err(damaged(disk.path(v1::SLOTS[0]), 0, what));
    };
    let needs = CheckpointNeeds { from: old.position.file, files: old.files() };
    let start = old.position;
    let (segments, spares) = sort_files(disk, files, names, &needs)?;
    if !segments.contains_key(&start.file) {
        return Err(damaged(disk.path(&segment_name(start.file)), 0, "missing; the stream goes on in it"));
    }
    let segments = Segments::new(segments);
    let replay = Replay::new(old, &segments)
        .map_err(|(file, what)| damaged(disk.path(&segment_name(file)), 0, &what))?;
    let mut scan = Scan::new(&segments, replay, start)?;
    scan.run()?;
    let tail = scan.tail()?;
    tail.make_durable()?;

    // The stream goes on at the start of a new file. Until the manifest names it the directory has version 1.
    let store = fresh_id();
    let number = names.iter().filter_map(|n| segment_number(n)).max().unwrap_or(0) + 1;
    let next = prepare(disk, files, &Origin::new(store, options), number, None)?.segment;
    let position = Position { file: number, offset: DATA_START, sequence: tail.position().sequence, life: 1 };
    let replay = scan.into_replay();
    {
        let mut groups: Vec<&Arc<Group>> = replay.groups.values().collect();
        groups.sort_by_key(|g| g.key);
        let head = Head {
            position,
            next_number: replay.next_number,
            next_incarnation: replay.next_incarnation,
            tombstones: &replay.tombstones,
        };
        let bytes = checkpoint::encode(store, 1, &head, groups.into_iter());
        let mut room = CheckpointRoom::found(names);
        room.make(disk, bytes.len() as u64)?;
        room.publish(disk, 1, &bytes)?;
    }
    let old_files = segments.range(..).into_iter().map(|s| {
        let header = &s.header;
        ManifestFile { number: header.number, salt: header.salt, bytes: header.bytes, version: 1 }
    });
    let mut in_use: Vec<ManifestFile> = old_files.collect();
    in_use.push(entry(&next));
    let manifest =
        Manifest { store, sequence: 0, life: 0, checkpoint: 1, checkpoint_before: 0, files: Vec::new() };
    let manifest = SharedManifest::new(manifest);
    manifest.change(disk, |m| {
        m.life = 1;
        in_use.into_iter().for_each(|file| m.add(file));
    })?;
    remove_strangers(disk, names, &manifest.get())?;
    tracing::info!(%store, "the log store was taken over from format version 1");

    let needs = [None, Some(CheckpointNeeds { from: number, files: segments.live() })];
    segments.insert(next);
    let parts = Finish { manifest, needs, segments, spares, position, replayed: 0, names };
    let mut recovered = finish(disk, parts, replay)?;
    recovered.next_file = number + 1;
    Ok(recovered)
}

/// Files that the checkpoint needs, and those that nobody does.
#[allow(clippy::type_complexity)] // both halves of one list
fn sort_files(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    names: &[String],
    needs: &CheckpointNeeds,
) -> Result<(BTreeMap<u64, Arc<Segment>>, Vec<(String, u64)>), StorageError> {
    let (mut segments, mut spares) = (BTreeMap::new(), Vec::new());
    for name in names {
        let Some(number) = segment_number(name) else { continue };
        let file = disk.open(name)?;
        let bytes = file.len()?;
        let header = header_of(&*file)?;
        let left_by_a_takeover = header.as_ref().is_ok_and(|h| h.layout != Layout::V1);
        if left_by_a_takeover || !needs.needs(number) {
            spares.push((name.clone(), bytes));
            continue;
        }
        let header = header.map_err(|what| damaged(disk.path(name), 0, &what))?;
        if header.number != number || header.bytes != bytes {
            let what = format!("header of file {} with {} bytes", header.number, header.bytes);
            return Err(damaged(disk.path(name), 0, &what));
        }
        segments.insert(number, Segment::new(header, Arc::clone(files)));
    }
    Ok((segments, spares))
}
