//! Housekeeping: prepares files, writes checkpoints, rewrites the last live runs of old files, frees files.

use std::sync::Arc;

use ringraft_core::Mutant;
use rustc_hash::FxHashSet;

use super::checkpoint::{self, CheckpointRoom, Head};
use super::format::stored_payload;
use super::index::{Group, Run};
use super::manifest::SharedManifest;
use super::reader::read_run;
use super::recovery::CheckpointNeeds;
use super::stream::run_bound;
use super::write::append_run;
use super::{InFlight, SegmentLog};
use crate::traits::{IoKind, StorageError};

/// What housekeeping remembers between calls.
pub(crate) struct Maintenance {
    manifest: Arc<SharedManifest>,
    /// What the checkpoint before the newest needs, and the newest.
    needs: [Option<CheckpointNeeds>; 2],
    room: CheckpointRoom,
    /// Checkpoints in a row that found no room or no descriptor, and calls of housekeeping until the next is tried.
    checkpoint_failures: u32,
    checkpoint_pause: u32,
    /// Stream bytes at the newest checkpoint.
    written_at_checkpoint: u64,
    /// Size of the newest checkpoint.
    checkpoint_bytes: u64,
    /// The file that is being emptied, and who may still have runs in it.
    victim: Option<Victim>,
    /// Files with a live run that no file of today's size can hold, or that cannot be read back; looked at again after
    /// the next checkpoint.
    stuck: FxHashSet<u64>,
}

/// What came of rewriting runs of a group.
enum Rewritten {
    Bytes(u64),
    /// Something is missing that may come.
    NotNow,
    /// One of the runs cannot be read.
    Never,
}

struct Victim {
    file: u64,
    groups: Vec<Arc<Group>>,
}

impl Maintenance {
    pub(crate) fn new(
        manifest: Arc<SharedManifest>,
        needs: [Option<CheckpointNeeds>; 2],
        room: CheckpointRoom,
    ) -> Maintenance {
        Maintenance {
            manifest,
            needs,
            room,
            checkpoint_failures: 0,
            checkpoint_pause: 0,
            written_at_checkpoint: 0,
            checkpoint_bytes: 0,
            victim: None,
            stuck: FxHashSet::default(),
        }
    }

    /// Whether a start would read this file; either of the two checkpoints may be the one that is used.
    fn needs(&self, file: u64) -> bool {
        !Mutant::E7FilesAreFreedTooEarly.is_active()
            && self.needs.iter().flatten().any(|checkpoint| checkpoint.needs(file))
    }
}

impl Maintenance {
    /// A checkpoint could not be begun; the next is tried after a growing number of calls.
    fn put_off(&mut self, error: &StorageError) {
        self.checkpoint_failures = self.checkpoint_failures.saturating_add(1);
        self.checkpoint_pause = 1 << self.checkpoint_failures.min(6);
        if self.checkpoint_failures.is_power_of_two() {
            tracing::warn!(%error, attempts = self.checkpoint_failures, "a checkpoint has to wait");
        }
    }
}

impl SegmentLog {
    /// One bounded piece of housekeeping; nothing while a batch is in flight.
    pub(super) fn do_maintenance(&mut self) -> Result<(), StorageError> {
        if self.in_flight != InFlight::No {
            return Ok(());
        }
        self.free_files();
        self.rewrite_some()?;
        if self.checkpoint_is_due() {
            if self.maintenance.checkpoint_pause > 0 {
                self.maintenance.checkpoint_pause -= 1;
            } else {
                self.write_checkpoint()?;
            }
        }
        self.free_files();
        self.stream.top_up();
        Ok(())
    }

    /// Frees every file that checkpoints can free now: the disk is full.
    pub(super) fn free_what_can_be(&mut self) -> Result<(), StorageError> {
        self.free_files();
        // A file is let go of when both checkpoints have.
        for _ in 0..2 {
            if self.dead_files().next().is_none() || !self.write_checkpoint()? {
                break;
            }
            self.free_files();
        }
        Ok(())
    }

    fn checkpoint_is_due(&self) -> bool {
        let since = self.stream.written - self.maintenance.written_at_checkpoint;
        if since >= self.options.checkpoint_bytes {
            return true;
        }
        // Files without a live byte wait for both checkpoints to let go of them; worth it when they are
        // more than what the checkpoints cost.
        let dead = self.dead_files().count() as u64 * self.options.file_bytes;
        dead > 0 && dead >= 4 * self.maintenance.checkpoint_bytes
    }

    /// Files before the current one without a live run.
    fn dead_files(&self) -> impl Iterator<Item = u64> {
        let earlier = self.stream.segments.range(..self.stream.position().file);
        earlier.into_iter().filter(|s| s.live() == 0).map(|s| s.number())
    }

    /// Writes the state as of now to a file of its own; of those before only the last stays. Says whether it could: a full disk or a lack
    /// of descriptors puts it off.
    fn write_checkpoint(&mut self) -> Result<bool, StorageError> {
        // Nothing in a checkpoint may be ahead of the stream on the disk.
        self.stream.sync_now()?;
        let position = self.stream.position();
        let manifest = self.maintenance.manifest.get();
        let (before, number) = (manifest.checkpoint, manifest.checkpoint + 1);
        let bytes = {
            let groups = self.groups.read();
            let mut sorted: Vec<&Arc<Group>> = groups.values().collect();
            sorted.sort_by_key(|g| g.key);
            let head = Head {
                position,
                next_number: self.next_number,
                next_incarnation: self.next_incarnation,
                tombstones: &self.tombstones,
            };
            checkpoint::encode(self.store, number, &head, sorted.into_iter())
        };
        let maintenance = &mut self.maintenance;
        if let Err(error) = maintenance.room.make(&*self.disk, bytes.len() as u64) {
            maintenance.put_off(&error);
            return Ok(false);
        }
        let named = maintenance.room.publish(&*self.disk, number, &bytes).and_then(|()| {
            maintenance.manifest.change(&*self.disk, |m| {
                (m.checkpoint, m.checkpoint_before) = (number, before);
            })
        });
        match named {
            Ok(()) => {}
            // Nothing counts on it yet, and both steps may be done again.
            Err(error @ StorageError::Io { kind: IoKind::Full | IoKind::Descriptors, .. }) => {
                maintenance.put_off(&error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        maintenance.room.take_back(&*self.disk, manifest.checkpoint_before);
        (maintenance.checkpoint_failures, maintenance.checkpoint_pause) = (0, 0);
        let needs = CheckpointNeeds { from: position.file, files: self.stream.segments.live() };
        maintenance.needs.swap(0, 1);
        maintenance.needs[1] = Some(needs);
        maintenance.checkpoint_bytes = bytes.len() as u64;
        maintenance.written_at_checkpoint = self.stream.written;
        maintenance.stuck.clear();
        Ok(true)
    }

    /// Frees files that neither a run nor a checkpoint needs.
    fn free_files(&mut self) {
        let free: Vec<u64> = self.dead_files().filter(|file| !self.maintenance.needs(*file)).collect();
        for number in free {
            self.stream.free(number);
        }
    }

    /// Moves live runs out of a file that few are left in, a bounded number of bytes a call.
    fn rewrite_some(&mut self) -> Result<(), StorageError> {
        let Some(mut victim) = self.maintenance.victim.take().or_else(|| self.choose_victim()) else {
            return Ok(());
        };
        let mut budget = self.options.rewrite_bytes;
        while budget > 0 {
            let Some(group) = victim.groups.last().cloned() else { return Ok(()) };
            match self.rewrite_group(&group, victim.file, budget)? {
                Rewritten::Bytes(0) => drop(victim.groups.pop()),
                Rewritten::Bytes(moved) => budget = budget.saturating_sub(moved),
                Rewritten::NotNow => break,
                Rewritten::Never => {
                    self.maintenance.stuck.insert(victim.file);
                    return Ok(());
                }
            }
        }
        self.maintenance.victim = Some(victim);
        Ok(())
    }

    /// The oldest file whose live share is small and whose runs fit elsewhere.
    fn choose_victim(&mut self) -> Option<Victim> {
        let percent = u64::from(self.options.rewrite_live_percent);
        for segment in self.stream.segments.range(..self.stream.position().file) {
            let (file, live) = (segment.number(), segment.live());
            let few = live > 0 && live * 100 <= segment.header.bytes * percent;
            if !few || self.maintenance.stuck.contains(&file) {
                continue;
            }
            if let Some(groups) = self.groups_in(file) {
                return Some(Victim { file, groups });
            }
            self.maintenance.stuck.insert(file);
        }
        None
    }

    /// The groups with runs in the file; `None` when one of the runs fits in no file of the size that is set now.
    fn groups_in(&self, file: u64) -> Option<Vec<Arc<Group>>> {
        let largest = self.stream.largest_run();
        let mut groups = Vec::new();
        for group in self.groups.read().values() {
            let index = group.index.lock();
            let mut runs = index.runs.in_file(file).peekable();
            if runs.peek().is_some() {
                // What is left of a run may need a table of lengths that the whole of it did without.
                if runs.any(|r| u64::from(r.len) + (r.last - r.first + 1) * 4 > largest) {
                    return None;
                }
                groups.push(Arc::clone(group));
            }
        }
        Some(groups)
    }

    /// Copies runs of one group out of the file to the end of the stream, at most about `budget` bytes. Each copy keeps
    /// the identity of its run, and the index follows only after it is durable: whatever the owner wrote later stands
    /// later in the stream and is never overridden.
    fn rewrite_group(
        &mut self,
        group: &Arc<Group>,
        file: u64,
        budget: u64,
    ) -> Result<Rewritten, StorageError> {
        let mut chosen = Vec::new();
        let mut bytes = 0;
        if let Some(segment) = self.stream.segments.get(file) {
            for run in group.index.lock().runs.in_file(file) {
                if bytes >= budget {
                    break;
                }
                bytes += u64::from(run.len);
                chosen.push(Run::of(&run, Arc::clone(&segment)));
            }
        }
        if chosen.is_empty() {
            return Ok(Rewritten::Bytes(0));
        }
        let mut chunks = Vec::with_capacity(chosen.len());
        for run in &chosen {
            match read_run(group, run) {
                Ok(chunk) => {
                    let payload = stored_payload(&chunk);
                    chunks.push((chunk, payload));
                }
                Err(StorageError::Io { kind: IoKind::Descriptors, .. }) => return Ok(Rewritten::NotNow),
                // Only who wants to read it is concerned.
                Err(error) => {
                    group.note_damage(run, &error);
                    return Ok(Rewritten::Never);
                }
            }
        }
        let need =
            self.stream.need(chunks.iter().map(|(chunk, payload)| run_bound(chunk.len(), payload.len())));
        // Housekeeping does not wait for a file, and leaves the last ones of a full disk to those who write.
        if !self.stream.is_ready_for(need) || need.files > 0 && self.stream.room_for_runs() != u64::MAX {
            return Ok(Rewritten::NotNow);
        }
        self.stream.begin(need)?;
        let mut copies = Vec::with_capacity(chosen.len());
        for (run, (chunk, payload)) in chosen.iter().zip(&chunks) {
            copies.push(append_run(&mut self.stream, group.key, run.sequence, true, chunk, payload)?);
        }
        self.stream.finish()?;
        self.stream.sync()?;
        let mut index = group.index.lock();
        for copy in &copies {
            if !index.relocate(copy.sequence, copy.first, copy.last, &copy.place, &self.stream.segments) {
                let what = format!("a run of group {} changed while it was rewritten", group.key);
                return Err(StorageError::Poisoned(what));
            }
        }
        Ok(Rewritten::Bytes(bytes))
    }
}
