//! Reads the stream from a position on, replays whole batches, and judges where it ends.

use std::sync::Arc;

use ringraft_core::Mutant;

use super::super::format::{DATA_START, Newer, u32_at};
use super::super::index::Place;
use super::super::replay::Replay;
use super::super::segments::Segments;
use super::super::stream::Position;
use super::damaged;
use super::part::{Follows, Loaded, NoPart, Part, read_part};
use super::tail::Tail;
use crate::traits::StorageError;

/// A part that was replayed.
struct Replayed {
    file: usize,
    offset: u64,
    len: u64,
    sequence: u64,
}

/// Reads the stream from a position on.
pub(super) struct Scan {
    files: Vec<Loaded>,
    replay: Replay,
    /// After the last whole batch.
    position: Position,
    position_file: usize,
    /// Every part up to this sequence is known to have been durable, by the parts that were read.
    synced: u64,
    /// As `synced`, by every header that stands in a file; looked up when something is wrong.
    vouched: Option<u64>,
    replayed: Vec<Replayed>,
    /// Runs of durable batches whose owner nobody knows.
    lost: u64,
    /// Where the first of them was missed.
    lost_at: Option<(String, u64)>,
    /// Why the scan ended.
    end: &'static str,
}

/// What stands at the place where a part should be.
enum Found {
    Part(Part),
    End(&'static str),
}

/// Rule P8: whether a part was durable once, when all up to `vouched` were; one that was not may be torn.
fn was_durable(sequence: u64, vouched: u64) -> bool {
    vouched >= sequence && !Mutant::H8VouchedDamagePassesForTorn.is_active()
}

impl Scan {
    pub(super) fn new(segments: &Segments, replay: Replay, start: Position) -> Result<Scan, StorageError> {
        let files = segments
            .range(start.file..)
            .iter()
            .map(|s| {
                Loaded::read(s, if s.number() == start.file { start.offset } else { s.header.data_start() })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Scan {
            files,
            replay,
            position: start,
            position_file: 0,
            synced: start.sequence - 1,
            vouched: None,
            replayed: Vec::new(),
            lost: 0,
            lost_at: None,
            end: "no batch header",
        })
    }

    fn newer(&self, file: usize, newer: &Newer) -> StorageError {
        StorageError::Refused(format!("{}: {}", self.files[file].segment.path(), newer.text()))
    }

    /// Replays every whole batch.
    pub(super) fn run(&mut self) -> Result<(), StorageError> {
        let (mut file, mut offset) = (0, self.position.offset);
        let mut follows = Follows { sequence: self.position.sequence, life: self.position.life };
        let mut parts: Vec<Part> = Vec::new();
        loop {
            match self.next(file, offset, follows)? {
                Found::Part(part) => {
                    self.synced = self.synced.max(part.header.synced);
                    offset += part.len;
                    follows = Follows { sequence: follows.sequence + 1, life: part.header.life };
                    let more = part.header.more;
                    parts.push(part);
                    if !more {
                        self.replay_batch(&parts)?;
                        parts.clear();
                        self.position = Position {
                            file: self.files[file].segment.number(),
                            offset,
                            sequence: follows.sequence,
                            life: follows.life,
                        };
                        self.position_file = file;
                    }
                }
                Found::End(why) => {
                    self.end = why;
                    // The stream goes on in a later file, not always the very next: files that an earlier
                    // start left over may stand between.
                    let Some(next) = self.goes_on(file, follows)? else { return self.account_for_lost() };
                    file = next;
                    offset = self.files[file].base;
                }
            }
        }
    }

    /// The part at a place, when it counts. Rule P8: what is wrong with one that was durable once is damage of its groups; one that nobody vouches
    /// for is torn.
    fn next(&mut self, file: usize, offset: u64, follows: Follows) -> Result<Found, StorageError> {
        match read_part(&self.files[file], file, offset, follows) {
            Ok(part) => match part.wrong {
                None => Ok(Found::Part(part)),
                Some(_) if was_durable(part.header.sequence, self.vouched_up_to()?) => Ok(Found::Part(part)),
                Some(why) => Ok(Found::End(why)),
            },
            Err(NoPart::Missing(why)) => Ok(Found::End(why)),
            Err(NoPart::Newer(newer)) => Err(self.newer(file, &newer)),
        }
    }

    fn goes_on(&self, file: usize, follows: Follows) -> Result<Option<usize>, StorageError> {
        for (at, loaded) in self.files.iter().enumerate().skip(file + 1) {
            let header = loaded.header_at(loaded.base).map_err(|n| self.newer(at, &n))?;
            if header.is_some_and(|h| h.sequence == follows.sequence && h.life >= follows.life) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Every right header in the files that were loaded, and where it stands.
    fn headers(
        &self,
        from_file: usize,
        from: u64,
        mut each: impl FnMut(usize, u64, u64),
    ) -> Result<(), StorageError> {
        for (file, loaded) in self.files.iter().enumerate().skip(from_file) {
            let header = &loaded.segment.header;
            let (magic, step) = (header.part_magic(), header.block());
            let mut at = if file == from_file { from } else { loaded.base };
            while at + header.part_header() as u64 <= header.bytes {
                if u32_at(loaded.from(at), 0) == magic {
                    match loaded.header_at(at) {
                        Ok(Some(part)) => each(file, at, part.synced),
                        Ok(None) => {}
                        Err(newer) => return Err(self.newer(file, &newer)),
                    }
                }
                at += step;
            }
        }
        Ok(())
    }

    /// Every part up to the sequence that this returns was durable once, as some header says: leftovers of earlier lives speak the truth, too.
    fn vouched_up_to(&mut self) -> Result<u64, StorageError> {
        if let Some(known) = self.vouched {
            return Ok(known);
        }
        let mut vouched = self.synced;
        let start = self.files.first().map_or(DATA_START, |f| f.base);
        self.headers(0, start, |_, _, synced| vouched = vouched.max(synced))?;
        self.vouched = Some(vouched);
        Ok(vouched)
    }

    fn replay_batch(&mut self, parts: &[Part]) -> Result<(), StorageError> {
        for part in parts {
            let loaded = &self.files[part.file];
            for run in &part.runs {
                let place = Place {
                    segment: Arc::clone(&loaded.segment),
                    offset: run.offset,
                    len: run.view.len as u32,
                };
                let bytes = loaded.from(run.offset);
                let at = |what: String| loaded.segment.damaged(run.offset, what);
                match run.damage {
                    None => self.replay.apply(&run.view, bytes, place).map_err(at)?,
                    // Rule P7: the groups beside it are whole.
                    Some(what) => self.replay.apply_damaged(&run.view, place, what).map_err(at)?,
                }
            }
            if part.lost > 0 {
                self.lost += u64::from(part.lost);
                self.lost_at.get_or_insert((loaded.segment.path(), part.offset));
            }
            self.replayed.push(Replayed {
                file: part.file,
                offset: part.offset,
                len: part.len,
                sequence: part.header.sequence,
            });
        }
        Ok(())
    }

    /// Runs that were lost must be missed by some group; one that nobody misses may be anybody's vote.
    fn account_for_lost(&self) -> Result<(), StorageError> {
        match &self.lost_at {
            Some((name, offset)) if self.replay.missed < self.lost => {
                let what = format!(
                    "the headers of {} operations cannot be read and only {} of them are missed by a group",
                    self.lost, self.replay.missed
                );
                Err(damaged(name.clone(), *offset, &what))
            }
            _ => Ok(()),
        }
    }

    /// What to do about the end of the stream; `Damaged` when something proves that more was durable.
    pub(super) fn tail(&mut self) -> Result<Tail, StorageError> {
        let mut stale = Vec::new();
        let mut synced = self.synced;
        // None in sight proves nothing: an earlier start may have failed to make its zeros durable, and a
        // part there could pass for the one that follows what this start writes.
        for loaded in self.files.iter().skip(self.position_file + 1) {
            stale.push((Arc::clone(&loaded.segment), loaded.base));
        }
        let mut found = Vec::new();
        self.headers(self.position_file, self.position.offset, |file, at, vouches| {
            synced = synced.max(vouches);
            found.push((file, at));
        })?;
        let cut = found.len();
        stale.extend(found.into_iter().map(|(file, at)| (Arc::clone(&self.files[file].segment), at)));
        if was_durable(self.position.sequence, synced) {
            let segment = &self.files[self.position_file].segment;
            let what = format!(
                "batch {} was durable and cannot be read ({}); the stream goes on up to batch {synced} at least",
                self.position.sequence, self.end
            );
            return Err(segment.damaged(self.position.offset, what));
        }
        if cut > 0 {
            let file = self.files[self.position_file].segment.path();
            let (offset, sequence) = (self.position.offset, self.position.sequence);
            tracing::warn!(%file, offset, sequence, why = self.end,
                "the end of the log was torn and is cut: nothing vouches that it was durable");
        }
        let suspects = self
            .replayed
            .iter()
            .filter(|part| part.sequence > synced)
            .map(|part| {
                let loaded = &self.files[part.file];
                let bytes = loaded.from(part.offset);
                let bytes = bytes[..bytes.len().min(part.len as usize)].to_vec();
                (Arc::clone(&loaded.segment), part.offset, bytes)
            })
            .collect();
        Ok(Tail { position: self.position, suspects, stale })
    }

    /// Bytes of the stream that were replayed.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed.iter().map(|part| part.len).sum()
    }

    pub(super) fn into_replay(self) -> Replay {
        self.replay
    }
}
