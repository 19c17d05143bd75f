//! Opens a directory: reads manifest and checkpoint, replays the stream after it, cuts a torn tail, tells it from damage,
//! and makes what it found durable before anything of it counts.

mod create;
mod part;
mod scan;
mod tail;
mod takeover;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use ringraft_core::GroupId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::checkpoint::{
    self, Checkpoint, CheckpointRoom, Unreadable, checkpoint_name, checkpoint_number, v1,
};
use super::files::OpenFiles;
use super::format::{
    DATA_START, Layout, PART_HEADER, PartHeader, SMALLEST_BLOCK_LOG2, SegmentHeader, segment_name,
    segment_number,
};
use super::index::{Group, Suspicion};
use super::manifest::{COPIES, Manifest, ManifestFile, SharedManifest};
use super::options::SegmentLogOptions;
use super::prepare::{Prepared, TEMPORARY};
use super::replay::Replay;
use super::segments::{Segment, Segments};
use super::stream::Position;
use crate::disk::{Disk, DiskFile};
use crate::store_id::StoreId;
use crate::traits::StorageError;
use scan::Scan;

/// What the caller knows of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A store that exists is opened, a directory without one gets one.
    Anything,
    /// The directory has no store yet, or one that was never finished. One with records is refused.
    Blank,
    /// The store was made at some time: anything that is missing is damage. With its id, when that is known.
    Existing(Option<StoreId>),
}

/// Files that a checkpoint needs: those from its position on, and those of its runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckpointNeeds {
    pub(crate) from: u64,
    pub(crate) files: FxHashSet<u64>,
}

impl CheckpointNeeds {
    pub(crate) fn needs(&self, file: u64) -> bool {
        file >= self.from || self.files.contains(&file)
    }
}

/// What a directory holds.
pub(crate) struct Recovered {
    pub(crate) groups: FxHashMap<u32, Arc<Group>>,
    /// Theirs.
    pub(crate) suspicion: Suspicion,
    pub(crate) tombstones: BTreeMap<GroupId, u64>,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
    pub(crate) manifest: Arc<SharedManifest>,
    /// What the checkpoint before the newest needs, and the newest.
    pub(crate) needs: [Option<CheckpointNeeds>; 2],
    pub(crate) segments: Arc<Segments>,
    pub(crate) checkpoint_room: CheckpointRoom,
    pub(crate) current: Prepared,
    pub(crate) position: Position,
    /// Bytes of the stream between the checkpoint and the position.
    pub(crate) replayed: u64,
    /// Names of files that nobody needs, with their sizes.
    pub(crate) spares: Vec<(String, u64)>,
    /// Number that no file has had.
    pub(crate) next_file: u64,
}

/// Reads the directory and repairs its tail.
pub(crate) fn recover(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    options: &SegmentLogOptions,
    expect: Expect,
) -> Result<Recovered, StorageError> {
    let names = clean(disk)?;
    let existing = matches!(expect, Expect::Existing(_));
    match Manifest::read(disk, &names) {
        Ok(Some(manifest)) => open(disk, files, expect, &names, manifest),
        Ok(None) if names.iter().any(|n| v1::SLOTS.contains(&n.as_str())) => {
            if expect == Expect::Blank {
                return Err(not_blank(disk, &names));
            }
            takeover::take_over(disk, files, options, &names)
        }
        Ok(None) if existing => {
            Err(damaged(disk.path(COPIES[0]), 0, "missing; the store has no list of its files"))
        }
        Err(error @ StorageError::Damaged { .. }) if existing || has_records(disk, &names)? => Err(error),
        Err(error @ StorageError::Io { .. }) => Err(error),
        _ if has_records(disk, &names)? => {
            Err(damaged(disk.path(COPIES[0]), 0, "missing, though segment files hold records"))
        }
        _ => create::create(disk, files, options, &names),
    }
}

fn damaged(path: String, offset: u64, what: &str) -> StorageError {
    StorageError::Damaged { path, offset, what: what.to_owned() }
}

fn not_blank(disk: &dyn Disk, names: &[String]) -> StorageError {
    let found: Vec<&str> = names.iter().map(String::as_str).filter(|n| is_store_file(n)).take(4).collect();
    StorageError::Refused(format!(
        "{} holds a store already ({}, …) though it should be blank; name an empty directory",
        disk.path(""),
        found.join(", ")
    ))
}

/// Whether a file of this name belongs to the store.
fn is_store_file(name: &str) -> bool {
    segment_number(name).is_some()
        || checkpoint_number(name).is_some()
        || COPIES.contains(&name)
        || v1::SLOTS.contains(&name)
}

/// Removes half-prepared files; returns the other names.
fn clean(disk: &dyn Disk) -> Result<Vec<String>, StorageError> {
    let (temporary, names): (Vec<_>, Vec<_>) =
        disk.list()?.into_iter().partition(|n| n.ends_with(&format!(".seg{TEMPORARY}")));
    for name in temporary {
        disk.remove(&name)?;
    }
    // The names that were found may not be durable when an earlier sync of the directory failed.
    disk.sync_dir()?;
    Ok(names)
}

/// Whether any segment file holds a part, or cannot be understood at all.
fn has_records(disk: &dyn Disk, names: &[String]) -> Result<bool, StorageError> {
    for name in names.iter().filter(|n| segment_number(n).is_some()) {
        let file = disk.open(name)?;
        if file.len()? == 0 {
            continue;
        }
        match header_of(&*file)? {
            Ok(header) if first_part(&*file, &header)?.is_none() => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// The header of a segment file, or why it has none.
fn header_of(file: &dyn DiskFile) -> Result<Result<SegmentHeader, String>, StorageError> {
    let mut start = [0; 64];
    match file.read_exact_at(0, &mut start) {
        Ok(()) => Ok(SegmentHeader::decode(&start)),
        Err(StorageError::Damaged { what, .. }) => Ok(Err(what)),
        Err(error) => Err(error),
    }
}

/// The header of the first part in a file, when there is a right one.
fn first_part(file: &dyn DiskFile, header: &SegmentHeader) -> Result<Option<PartHeader>, StorageError> {
    let mut bytes = vec![0; header.part_header()];
    match file.read_exact_at(header.data_start(), &mut bytes) {
        Ok(()) => PartHeader::decode(header, &bytes).map_err(|newer| refused(file, &newer.text())),
        Err(StorageError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn refused(file: &dyn DiskFile, what: &str) -> StorageError {
    StorageError::Refused(format!("{}: {what}", file.path()))
}

/// Opens a file that the manifest names and checks that it is that one.
fn named_file(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    store: StoreId,
    wanted: &ManifestFile,
) -> Result<Arc<Segment>, StorageError> {
    let name = segment_name(wanted.number);
    let file = disk.open(&name)?;
    let header = header_of(&*file)?.map_err(|what| damaged(disk.path(&name), 0, &what))?;
    let of_store = match header.layout {
        Layout::V1 => wanted.version == 1,
        Layout::V2 { store: id, .. } => wanted.version == 2 && id == store,
    };
    let told = (header.number, header.salt, header.bytes);
    if !of_store || told != (wanted.number, wanted.salt, wanted.bytes) || header.bytes != file.len()? {
        return Err(damaged(disk.path(&name), 0, "not the file that the manifest names"));
    }
    Ok(Segment::new(header, Arc::clone(files)))
}

/// Whether no batch was ever written to a file whose header is damaged. The place of the first part is cleared before a file is used, and the
/// manifest tells the salt by which the parts of the file's present life are known. One of them anywhere, on top of the header too, says that
/// the file was used: a write that went astray may have missed the place of the first part, and later ones still vouch for it. A file that
/// begins with zeros proves nothing: what cleared its header may have cleared the part behind it, too.
fn is_unused(disk: &dyn Disk, store: StoreId, wanted: &ManifestFile) -> Result<bool, StorageError> {
    let file = disk.open(&segment_name(wanted.number))?;
    if wanted.version != 2 || file.len()? != wanted.bytes {
        return Ok(false);
    }
    let mut bytes = vec![0; wanted.bytes as usize];
    file.read_exact_at(0, &mut bytes)?;
    let (header, rest) = bytes.split_at(DATA_START as usize);
    let first = &rest[..PART_HEADER.min(rest.len())];
    if header.iter().all(|byte| *byte == 0) || first.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    // Parts of every size of block start at multiples of the smallest.
    let layout = Layout::V2 { stream: 0, block_log2: SMALLEST_BLOCK_LOG2, store };
    let life = SegmentHeader { number: wanted.number, salt: wanted.salt, bytes: wanted.bytes, layout };
    Ok(bytes
        .chunks(1 << SMALLEST_BLOCK_LOG2)
        .all(|block| matches!(PartHeader::decode(&life, block), Ok(None))))
}

/// A checkpoint that can be read, the newest first; the needs of both.
fn read_checkpoints(
    disk: &dyn Disk,
    names: &[String],
    manifest: &Manifest,
) -> Result<(u64, Checkpoint, [Option<CheckpointNeeds>; 2]), StorageError> {
    let mut chosen: Option<(u64, Checkpoint)> = None;
    let mut needs = [None, None];
    let mut reason = String::new();
    for (slot, number) in [(1, manifest.checkpoint), (0, manifest.checkpoint_before)] {
        if number == 0 {
            continue;
        }
        let name = checkpoint_name(number);
        let found = match names.contains(&name) {
            true => checkpoint::read(disk, manifest.store, number),
            false => Err("missing; the manifest names it".into()),
        };
        match found {
            Ok(found) => {
                needs[slot] = Some(CheckpointNeeds { from: found.position.file, files: found.files() });
                chosen.get_or_insert((number, found));
            }
            // The other one may be older than what was acknowledged by a lot; who cannot read now may be able to later.
            Err(Unreadable::Io(error)) => return Err(error),
            Err(Unreadable::Broken(what)) => {
                let path = disk.path(&name);
                tracing::warn!(%path, %what, "a checkpoint cannot be read; the other one is used");
                reason = what;
            }
        }
    }
    match chosen {
        Some((number, found)) => Ok((number, found, needs)),
        None => Err(damaged(disk.path(&checkpoint_name(manifest.checkpoint)), 0, &reason)),
    }
}

fn open(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    expect: Expect,
    names: &[String],
    manifest: Manifest,
) -> Result<Recovered, StorageError> {
    match expect {
        Expect::Existing(Some(id)) if id != manifest.store => {
            return Err(damaged(
                disk.path(COPIES[0]),
                0,
                &format!("it is that of store {}, not of {id}", manifest.store),
            ));
        }
        Expect::Blank if has_records(disk, names)? => return Err(not_blank(disk, names)),
        _ => {}
    }
    let (mut segments, mut unused) = (BTreeMap::new(), Vec::new());
    for wanted in &manifest.files {
        if !names.contains(&segment_name(wanted.number)) {
            let path = disk.path(&segment_name(wanted.number));
            return Err(damaged(path, 0, "missing; the manifest names it"));
        }
        match named_file(disk, files, manifest.store, wanted) {
            Ok(segment) => {
                segments.insert(wanted.number, segment);
            }
            Err(error @ StorageError::Damaged { .. }) if is_unused(disk, manifest.store, wanted)? => {
                tracing::warn!(%error, "the file holds nothing of the log and is made anew");
                unused.push((segment_name(wanted.number), wanted.bytes));
            }
            Err(error) => return Err(error),
        }
    }
    let (number, checkpoint, needs) = read_checkpoints(disk, names, &manifest)?;
    let start = checkpoint.position;
    if !segments.contains_key(&start.file) {
        let path = disk.path(&segment_name(start.file));
        return Err(damaged(path, 0, "the manifest does not name it; the stream goes on in it"));
    }
    let segments = Segments::new(segments);
    let replay = Replay::new(checkpoint, &segments)
        .map_err(|(file, what)| damaged(disk.path(&segment_name(file)), 0, &what))?;
    let mut scan = Scan::new(&segments, replay, start)?;
    scan.run()?;
    let tail = scan.tail()?;
    let mut spares = unnamed(disk, names, &manifest, tail.position())?;
    spares.append(&mut unused);
    // What was read has been copied. The steps that follow need a descriptor at a time and are not tried again.
    files.close();

    let manifest = SharedManifest::new(manifest);
    manifest.change(disk, |m| {
        m.life += 1;
        if m.checkpoint != number {
            // The newest could not be read, and this start wrote nothing that it would have known.
            (m.checkpoint, m.checkpoint_before) = (number, 0);
        }
    })?;
    tail.make_durable()?;
    remove_strangers(disk, names, &manifest.get())?;

    let life = manifest.get().life;
    let position = Position { life, ..tail.position() };
    let replayed = scan.replayed();
    finish(disk, Finish { manifest, needs, segments, spares, position, replayed, names }, scan.into_replay())
}

/// What [`finish`] puts together.
struct Finish<'a> {
    manifest: SharedManifest,
    needs: [Option<CheckpointNeeds>; 2],
    segments: Arc<Segments>,
    spares: Vec<(String, u64)>,
    position: Position,
    replayed: u64,
    names: &'a [String],
}

fn finish(disk: &dyn Disk, parts: Finish<'_>, replay: Replay) -> Result<Recovered, StorageError> {
    let Finish { manifest, needs, segments, mut spares, position, replayed, names } = parts;
    replay.groups.values().for_each(|g| g.index.lock().mark_durable());
    let Some(segment) = segments.get(position.file) else {
        return Err(damaged(disk.path(&segment_name(position.file)), 0, "missing; the stream goes on in it"));
    };
    let current = Prepared { file: segment.file()?, segment };
    // Files behind the end hold nothing; they are prepared anew.
    for segment in segments.range((Excluded(position.file), Unbounded)) {
        segments.remove(segment.number());
        segment.free();
        spares.push((segment_name(segment.number()), segment.header.bytes));
    }
    let numbers = names.iter().filter_map(|n| segment_number(n));
    let next_file = numbers.chain([position.file]).max().unwrap_or(0) + 1;
    Ok(Recovered {
        groups: replay.groups,
        suspicion: replay.suspicion,
        tombstones: replay.tombstones,
        next_number: replay.next_number,
        next_incarnation: replay.next_incarnation,
        manifest: Arc::new(manifest),
        needs,
        segments,
        checkpoint_room: CheckpointRoom::found(names),
        current,
        position,
        replayed,
        spares,
        next_file,
    })
}

/// Segment files that the manifest does not name. One whose first part follows what was read proves that the manifest is older than it
/// can be.
fn unnamed(
    disk: &dyn Disk,
    names: &[String],
    manifest: &Manifest,
    end: Position,
) -> Result<Vec<(String, u64)>, StorageError> {
    let mut spares = Vec::new();
    for name in names {
        let Some(number) = segment_number(name) else { continue };
        if manifest.file(number).is_some() {
            continue;
        }
        let file = disk.open(name)?;
        let bytes = file.len()?;
        if let Ok(header) = header_of(&*file)?
            && let Some(part) = first_part(&*file, &header)?
            && part.sequence >= end.sequence
            && part.life >= end.life
        {
            let what = format!(
                "it holds batch {}, which follows the last one of the files that {} names",
                part.sequence,
                disk.path(COPIES[0])
            );
            return Err(damaged(disk.path(name), header.data_start(), &what));
        }
        spares.push((name.clone(), bytes));
    }
    Ok(spares)
}

/// Removes checkpoints that do not count, of either version.
fn remove_strangers(disk: &dyn Disk, names: &[String], manifest: &Manifest) -> Result<(), StorageError> {
    for name in names {
        let unnamed = checkpoint_number(name)
            .is_some_and(|n| n != manifest.checkpoint && n != manifest.checkpoint_before);
        if unnamed || v1::SLOTS.contains(&name.as_str()) {
            disk.remove(name)?;
        }
    }
    Ok(())
}
