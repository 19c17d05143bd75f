//! Opens a directory: reads the checkpoint, replays the stream after it, cuts a torn tail, tells it from damage,
//! and makes what it found durable before anything of it counts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use ringraft_core::Mutant;
use rustc_hash::{FxHashMap, FxHashSet};

use super::checkpoint::{self, Checkpoint, SLOTS, SlotFiles, slot_of};
use super::files::OpenFiles;
use super::format::{
    BATCH_HEADER, BatchHeader, DATA_START, RunView, SegmentHeader, decode_run, segment_name, segment_number,
    u32_at,
};
use super::index::{Group, Place, Segment};
use super::options::SegmentLogOptions;
use super::prepare::{Prepared, TEMPORARY, prepare};
use super::replay::Replay;
use super::stream::Position;
use crate::disk::{Disk, DiskFile};
use crate::traits::StorageError;

/// Files that a valid checkpoint slot needs: those from its position on, and those of its runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlotNeeds {
    pub(crate) from: u64,
    pub(crate) files: FxHashSet<u64>,
}

impl SlotNeeds {
    pub(crate) fn needs(&self, file: u64) -> bool {
        file >= self.from || self.files.contains(&file)
    }

    /// Whether the slot itself says that the file is there.
    fn names(&self, file: u64) -> bool {
        file == self.from || self.files.contains(&file)
    }
}

/// What a directory holds.
pub(crate) struct Recovered {
    pub(crate) groups: FxHashMap<u32, Arc<Group>>,
    pub(crate) next_number: u32,
    pub(crate) next_incarnation: u32,
    pub(crate) checkpoint: u64,
    pub(crate) slots: [Option<SlotNeeds>; 2],
    pub(crate) slot_files: SlotFiles,
    pub(crate) segments: BTreeMap<u64, Arc<Segment>>,
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
) -> Result<Recovered, StorageError> {
    let names = clean(disk)?;
    let numbers: Vec<u64> = names.iter().filter_map(|n| segment_number(n)).collect();
    let mut slot_files = SlotFiles::found(&names);
    let mut slots = read_slots(disk, &mut slot_files, &names, &numbers)?;
    let needs: [Option<SlotNeeds>; 2] = std::array::from_fn(|slot| {
        let c = slots.values().find(|c| slot_of(c.sequence) == slot)?;
        Some(SlotNeeds { from: c.position.file, files: c.files() })
    });
    let Some((_, checkpoint)) = slots.pop_last() else {
        return Err(damaged(disk.path(SLOTS[0]), 0, "no checkpoint"));
    };
    let start = checkpoint.position;

    let mut segments = BTreeMap::new();
    let mut spares = Vec::new();
    let mut unreadable = Vec::new();
    for &number in &numbers {
        let file = disk.open(&segment_name(number))?;
        if !needs.iter().flatten().any(|n| n.needs(number)) {
            spares.push((segment_name(number), file.len()?));
            continue;
        }
        match read_header(&*file, number) {
            Ok(header) => {
                segments.insert(number, Segment::new(header, Arc::clone(files)));
            }
            Err(error @ StorageError::Damaged { .. }) if !needs.iter().flatten().any(|n| n.names(number)) => {
                unreadable.push(Unreadable { number, error, unused: is_unused(&*file)? });
            }
            Err(error) => return Err(error),
        }
    }
    let next_file = numbers.iter().max().copied().unwrap_or(0).max(start.file) + 1;
    if let Entry::Vacant(missing) = segments.entry(start.file) {
        // A new store wrote its first checkpoint before its first file; any other time the file must be there.
        if checkpoint.sequence != 1 || !numbers.is_empty() {
            let path = disk.path(&segment_name(start.file));
            return Err(damaged(path, 0, "missing; the stream goes on in it"));
        }
        missing.insert(prepare(disk, files, start.file, options.file_bytes, None)?.segment);
    }

    let sequence = checkpoint.sequence;
    let replay = Replay::new(checkpoint, |number| segments.get(&number).cloned())
        .map_err(|(file, what)| damaged(disk.path(&segment_name(file)), 0, &what))?;
    let mut scan = Scan::new(&segments, replay, start)?;
    scan.run()?;
    let tail = scan.tail()?;
    let strays = strays(unreadable, &tail.position)?;
    tail.make_durable()?;
    for stray in strays {
        disk.remove(&segment_name(stray))?;
    }

    let position = tail.position;
    let replayed = scan.suspects.iter().map(|(_, _, len, _)| len).sum();
    let (groups, next_number, next_incarnation) =
        (scan.replay.groups, scan.replay.next_number, scan.replay.next_incarnation);
    groups.values().for_each(|g| g.index.lock().mark_durable());
    let segment = Arc::clone(&segments[&position.file]);
    let current = Prepared { file: segment.file()?, segment };
    let beyond: Vec<u64> = segments.range((Excluded(position.file), Unbounded)).map(|(n, _)| *n).collect();
    for number in beyond {
        if let Some(segment) = segments.remove(&number) {
            segment.free();
            spares.push((segment_name(number), segment.header.bytes));
        }
    }
    Ok(Recovered {
        groups,
        next_number,
        next_incarnation,
        checkpoint: sequence,
        slots: needs,
        slot_files,
        segments,
        current,
        position,
        replayed,
        spares,
        next_file,
    })
}

/// A file with a number that the stream may have used, and without a header that could be read.
struct Unreadable {
    number: u64,
    error: StorageError,
    /// Nothing was ever written where its first batch belongs.
    unused: bool,
}

/// Numbers of the unreadable files that surely hold nothing of the stream: the stream passed them by, or nothing was
/// ever written to them. Any other may hold the end of the stream, and nothing else would tell.
fn strays(unreadable: Vec<Unreadable>, end: &Position) -> Result<Vec<u64>, StorageError> {
    let stray = |file: Unreadable| {
        if file.number > end.file && !file.unused {
            let StorageError::Damaged { path, offset, what } = file.error else { return Err(file.error) };
            let what = format!(
                "{what}, and the log may go on in it (if it is not a file of this store, move it out of the directory)"
            );
            return Err(StorageError::Damaged { path, offset, what });
        }
        tracing::warn!(error = %file.error, "the file holds nothing of the log and is removed");
        Ok(file.number)
    };
    unreadable.into_iter().map(stray).collect()
}

/// Whether no batch was ever written to the file: the place of the first header is cleared before a file is used. A
/// file that begins with zeros proves nothing: what cleared its header may have cleared the batch behind it, too.
fn is_unused(file: &dyn DiskFile) -> Result<bool, StorageError> {
    let mut bytes = [0; DATA_START as usize + BATCH_HEADER];
    if file.len()? < bytes.len() as u64 {
        return Ok(false);
    }
    file.read_exact_at(0, &mut bytes)?;
    let (header, first) = bytes.split_at(DATA_START as usize);
    Ok(header.iter().any(|byte| *byte != 0) && first.iter().all(|byte| *byte == 0))
}

fn damaged(path: String, offset: u64, what: &str) -> StorageError {
    StorageError::Damaged { path, offset, what: what.to_owned() }
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

/// The readable checkpoints by sequence; at least one. A new store gets its first one here.
fn read_slots(
    disk: &dyn Disk,
    slot_files: &mut SlotFiles,
    names: &[String],
    numbers: &[u64],
) -> Result<BTreeMap<u64, Checkpoint>, StorageError> {
    let slots = checkpoint::read(disk, names)?;
    for (path, what) in &slots.invalid {
        tracing::warn!(%path, %what, "a checkpoint slot cannot be read; the other one is used");
    }
    if !slots.valid.is_empty() {
        return Ok(slots.valid);
    }
    // Only a crash in the middle of the very first checkpoint leaves this one slot alone and unreadable.
    let second = names.iter().any(|n| n == SLOTS[1]);
    if second || !numbers.is_empty() {
        let path = disk.path(SLOTS[0]);
        return Err(damaged(path, 0, "no checkpoint slot can be read though the store has been used"));
    }
    let initial = Checkpoint::initial(Position { file: 1, offset: DATA_START, sequence: 1 });
    let bytes = checkpoint::encode(1, initial.position, 1, 1, [].into_iter());
    let slot = slot_files.make_room(disk, 1, bytes.len() as u64)?;
    checkpoint::write(&*slot, &bytes)?;
    Ok(BTreeMap::from([(1, initial)]))
}

fn read_header(file: &dyn DiskFile, number: u64) -> Result<SegmentHeader, StorageError> {
    let mut sector = vec![0; DATA_START as usize];
    file.read_exact_at(0, &mut sector)?;
    let header = SegmentHeader::decode(&sector).map_err(|what| damaged(file.path(), 0, &what))?;
    if header.number != number || header.bytes != file.len()? {
        let what = format!("header of file {} with {} bytes", header.number, header.bytes);
        return Err(damaged(file.path(), 0, &what));
    }
    Ok(header)
}

/// A file's bytes from `base` to its end.
struct Loaded {
    segment: Arc<Segment>,
    base: u64,
    bytes: Vec<u8>,
}

impl Loaded {
    fn read(segment: &Arc<Segment>, base: u64) -> Result<Loaded, StorageError> {
        let length = segment.header.bytes.checked_sub(base).ok_or_else(|| {
            segment.damaged(base, "the checkpoint's position is beyond the file's end".to_owned())
        })?;
        let mut bytes = vec![0; length as usize];
        segment.file()?.read_exact_at(base, &mut bytes)?;
        Ok(Loaded { segment: Arc::clone(segment), base, bytes })
    }

    fn from(&self, offset: u64) -> &[u8] {
        &self.bytes[(offset - self.base) as usize..]
    }

    fn header_at(&self, offset: u64) -> Option<BatchHeader> {
        BatchHeader::decode(&self.segment.header, self.from(offset))
    }
}

/// A part that was read.
struct Part {
    file: usize,
    offset: u64,
    len: u64,
    header: BatchHeader,
    /// Offset in the file of each run.
    runs: Vec<(u64, RunView)>,
}

/// Reads and verifies the part at `offset`, which must have this sequence.
fn read_part(loaded: &Loaded, file: usize, offset: u64, sequence: u64) -> Result<Part, &'static str> {
    let header = loaded.header_at(offset).ok_or("no batch header")?;
    if header.sequence != sequence {
        return Err("a batch out of order");
    }
    let start = offset + BATCH_HEADER as u64;
    let body = loaded.from(start).get(..header.body as usize).ok_or("a batch longer than the file")?;
    let seed = loaded.segment.header.seed();
    let (mut runs, mut at, mut digest) = (Vec::new(), 0, 0);
    while at < body.len() {
        let view = decode_run(seed, &body[at..])?;
        digest = crc32c::crc32c_append(digest, &view.crc.to_le_bytes());
        let len = view.len;
        runs.push((start + at as u64, view));
        at += len;
    }
    if digest != header.digest || runs.len() != header.runs as usize || at != body.len() {
        return Err("a batch header that does not belong to its runs");
    }
    Ok(Part { file, offset, len: BATCH_HEADER as u64 + u64::from(header.body), header, runs })
}

/// Reads the stream from a position on.
struct Scan {
    files: Vec<Loaded>,
    replay: Replay,
    /// After the last whole batch.
    position: Position,
    position_file: usize,
    /// Every part up to this sequence is known to have been durable.
    synced: u64,
    /// Parts that were replayed: file, offset, length and sequence of each. Those beyond `synced` are suspect.
    suspects: Vec<(usize, u64, u64, u64)>,
    /// Why the scan ended.
    end: &'static str,
}

impl Scan {
    fn new(
        segments: &BTreeMap<u64, Arc<Segment>>,
        replay: Replay,
        start: Position,
    ) -> Result<Scan, StorageError> {
        let files = segments
            .range(start.file..)
            .map(|(number, s)| Loaded::read(s, if *number == start.file { start.offset } else { DATA_START }))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Scan {
            files,
            replay,
            position: start,
            position_file: 0,
            synced: start.sequence - 1,
            suspects: Vec::new(),
            end: "no batch header",
        })
    }

    /// Replays every whole batch.
    fn run(&mut self) -> Result<(), StorageError> {
        let (mut file, mut offset, mut sequence) = (0, self.position.offset, self.position.sequence);
        let mut parts: Vec<Part> = Vec::new();
        loop {
            match read_part(&self.files[file], file, offset, sequence) {
                Ok(part) => {
                    self.synced = self.synced.max(part.header.synced);
                    offset += part.len;
                    sequence += 1;
                    let more = part.header.more;
                    parts.push(part);
                    if !more {
                        self.replay_batch(&parts)?;
                        parts.clear();
                        let number = self.files[file].segment.number();
                        self.position = Position { file: number, offset, sequence };
                        self.position_file = file;
                    }
                }
                Err(why) => {
                    self.end = why;
                    // The stream goes on in a later file, not always the very next: files that an earlier
                    // start left over may stand between.
                    let goes_on =
                        |f: &Loaded| f.header_at(DATA_START).is_some_and(|h| h.sequence == sequence);
                    let Some(skipped) = self.files[file + 1..].iter().position(goes_on) else {
                        return Ok(());
                    };
                    file += 1 + skipped;
                    offset = DATA_START;
                }
            }
        }
    }

    fn replay_batch(&mut self, parts: &[Part]) -> Result<(), StorageError> {
        for part in parts {
            let loaded = &self.files[part.file];
            for (offset, view) in &part.runs {
                let place =
                    Place { segment: Arc::clone(&loaded.segment), offset: *offset, len: view.len as u32 };
                self.replay
                    .apply(view, loaded.from(*offset), place)
                    .map_err(|what| loaded.segment.damaged(*offset, what))?;
            }
            self.suspects.push((part.file, part.offset, part.len, part.header.sequence));
        }
        Ok(())
    }

    /// What to do about the end of the stream; `Damaged` when something after it proves that more was durable.
    fn tail(&self) -> Result<Tail, StorageError> {
        let mut stale = Vec::new();
        let mut synced = self.synced;
        for (i, loaded) in self.files.iter().enumerate().skip(self.position_file) {
            let magic = loaded.segment.header.batch_magic();
            let mut at = if i == self.position_file { self.position.offset } else { loaded.base };
            if i > self.position_file {
                // None in sight proves nothing: an earlier start may have failed to make its zeros durable, and a
                // part there could pass for the one that follows what this start writes.
                stale.push((Arc::clone(&loaded.segment), DATA_START));
            }
            while at + BATCH_HEADER as u64 <= loaded.segment.header.bytes {
                if u32_at(loaded.from(at), 0) == magic
                    && let Some(header) = loaded.header_at(at)
                {
                    synced = synced.max(header.synced);
                    stale.push((Arc::clone(&loaded.segment), at));
                }
                at += 8;
            }
        }
        if synced >= self.position.sequence {
            let what = format!(
                "batch {} was durable and cannot be read ({}); the stream goes on up to batch {synced} at least",
                self.position.sequence, self.end
            );
            return Err(self.files[self.position_file].segment.damaged(self.position.offset, what));
        }
        let suspects = self
            .suspects
            .iter()
            .filter(|(.., sequence)| *sequence > synced)
            .map(|(file, offset, len, _)| {
                let loaded = &self.files[*file];
                let bytes = loaded.from(*offset)[..*len as usize].to_vec();
                (Arc::clone(&loaded.segment), *offset, bytes)
            })
            .collect();
        Ok(Tail { position: self.position, suspects, stale })
    }
}

/// The end of the stream and what must be written there before it counts.
struct Tail {
    position: Position,
    /// Parts that were read but may only stand in the page cache: a failed fsync leaves clean pages that the disk
    /// never got, so that reading them back proves nothing.
    suspects: Vec<(Arc<Segment>, u64, Vec<u8>)>,
    /// Where batch headers stand or may stand beyond the end, which must never be taken for batches that follow.
    stale: Vec<(Arc<Segment>, u64)>,
}

impl Tail {
    /// What was read proves nothing about the medium; all of it is written again.
    fn not_proven_durable(&self) -> &[(Arc<Segment>, u64, Vec<u8>)] {
        if Mutant::H1RecoveryTrustsThePageCache.is_active() { &[] } else { &self.suspects }
    }

    fn make_durable(&self) -> Result<(), StorageError> {
        const ZEROS: [u8; BATCH_HEADER] = [0; BATCH_HEADER];
        let again = self.not_proven_durable().iter().map(|(s, offset, bytes)| (s, *offset, bytes.as_slice()));
        let dead = self.stale.iter().map(|(s, offset)| (s, *offset, ZEROS.as_slice()));
        let mut writes: Vec<_> = again.chain(dead).collect();
        writes.sort_by_key(|(segment, ..)| segment.number());
        // One file after the other, each through the descriptor that wrote it.
        for of_one in writes.chunk_by(|(a, ..), (b, ..)| a.number() == b.number()) {
            let file = of_one[0].0.file()?;
            for (_, offset, bytes) in of_one {
                file.write_at(*offset, bytes)?;
            }
            file.sync_data()?;
        }
        Ok(())
    }
}
