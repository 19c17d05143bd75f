//! Reads entries back, from any thread: neighbours in a file with one call, small runs joined to one chunk.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringraft_core::{ChunkBuilder, EntryChunk, LogIndex, Mutant};

use super::Groups;
use super::format::{RunError, RunKind, RunView, decode_run};
use super::index::{Group, Run};
use super::segments::Segments;
use crate::traits::{GroupKey, LogReader, StorageError};

/// Bytes between two runs that are read along rather than skipped (other groups' runs, batch headers).
const MAX_GAP: u64 = 16 << 10;

/// Bytes between runs that one call reads along, all in all: where many groups write by turns the gaps are most of the file.
const MAX_GAPS: u64 = 64 << 10;

/// Bytes of one read at most, unless a single run is larger.
const MAX_SPAN: u64 = 1 << 20;

/// Data runs with payloads up to this size are copied into one chunk with their neighbours.
const JOIN_BYTES: usize = 16 << 10;

/// How often a read starts over because the runs it wanted moved meanwhile.
const ATTEMPTS: usize = 16;

/// Reads of a segment log.
pub(crate) struct SegmentReader {
    groups: Groups,
    files: Arc<Segments>,
}

/// What a read does when a run cannot be read.
enum Failure {
    /// It stands there no more: look again.
    Moved,
    Final(StorageError),
}

impl SegmentReader {
    pub(crate) fn new(groups: Groups, files: Arc<Segments>) -> SegmentReader {
        SegmentReader { groups, files }
    }

    fn group(&self, key: GroupKey, index: LogIndex) -> Result<Arc<Group>, StorageError> {
        let groups = self.groups.read();
        let group = groups.get(&key.number.0).filter(|g| g.key == key);
        group.cloned().ok_or(StorageError::NotFound { group: key, index })
    }
}

/// Runs that hold `from..`, cut to `to` and about `max_bytes` of record.
fn wanted(
    group: &Group,
    files: &Segments,
    from: LogIndex,
    to: LogIndex,
    max_bytes: usize,
) -> Result<Vec<Run>, StorageError> {
    let index = group.index.lock();
    if from <= index.before_first.index {
        return Err(StorageError::Compacted { group: group.key, index: from });
    }
    let to = to.min(index.durable_last);
    if from > to {
        return Err(StorageError::NotFound { group: group.key, index: from });
    }
    let mut runs: Vec<Run> = Vec::new();
    let mut bytes = 0;
    for run in index.runs.from(from).take_while(|run| run.first <= to) {
        if bytes > max_bytes {
            break;
        }
        let before = runs.last().map(|run| &run.place.segment).filter(|s| s.number() == run.file);
        // It cannot be missing while the index is locked.
        let Some(segment) = before.cloned().or_else(|| files.get(run.file)) else { break };
        // The record is a little larger than its payload: that only matters for where a read may stop early,
        // and the exact limit is applied to what was read. Headers are not counted so that small entries get through.
        bytes += (run.len as usize).saturating_sub(64).max(1);
        let run = Run::of(&run, segment);
        runs.push(Run { first: run.first.max(from), last: run.last.min(to), ..run });
    }
    // Whoever is told of no entry and of no error asks again for ever.
    if runs.is_empty() {
        return Err(StorageError::NotFound { group: group.key, index: from });
    }
    Ok(runs)
}

/// The longest prefix of `runs` that one read fetches; `gaps` is how many bytes between runs may still be read along.
fn span(runs: &[Run], gaps: &mut u64) -> usize {
    let first = &runs[0].place;
    let mut n = 1;
    while let Some(next) = runs.get(n) {
        let before = &runs[n - 1].place;
        let end = before.offset + u64::from(before.len);
        let near = Arc::ptr_eq(&next.place.segment, &first.segment)
            && next.place.offset >= end
            && next.place.offset - end <= MAX_GAP.min(*gaps)
            && next.place.offset + u64::from(next.place.len) - first.offset <= MAX_SPAN;
        if !near {
            break;
        }
        *gaps -= next.place.offset - end;
        n += 1;
    }
    n
}

/// Reads the bytes from the first run to the end of the last.
fn fetch(runs: &[Run]) -> Result<Bytes, StorageError> {
    let (first, last) = (&runs[0].place, &runs[runs.len() - 1].place);
    let len = last.offset + u64::from(last.len) - first.offset;
    let mut buffer = BytesMut::zeroed(len as usize);
    first.segment.file()?.read_exact_at(first.offset, &mut buffer)?;
    Ok(buffer.freeze())
}

/// Verifies a run and that it is the one that the index means.
fn verify(group: &Group, run: &Run, bytes: &[u8]) -> Result<RunView, Failure> {
    let what = match decode_run(&run.place.segment.header, bytes) {
        Ok(view) => {
            let header = &view.header;
            let same = header.group == group.key
                && header.sequence == run.sequence
                && (header.kind, header.term) == (run.kind, run.term)
                && header.index <= run.first
                && header.last() >= run.last;
            if same {
                return Ok(view);
            }
            "another run stands where this one belongs"
        }
        Err(RunError::Broken(what) | RunError::Damaged(_, what)) => what,
        Err(RunError::Newer(_)) => "a record of a newer program",
    };
    if !group.still_holds(run) {
        return Err(Failure::Moved);
    }
    let what = format!("group {}, entries {}..={}: {what}", group.key, run.first, run.last);
    let error = run.place.segment.damaged(run.place.offset, what);
    group.note_damage(run, &error);
    Err(Failure::Final(error))
}

/// Collects what a read returns, up to its byte limit.
struct Collector {
    chunks: Vec<Arc<EntryChunk>>,
    /// Small data entries that wait to be joined, with the first one's index and their term.
    joined: ChunkBuilder,
    joined_first: LogIndex,
    joined_term: u64,
    room: usize,
    any: bool,
    full: bool,
}

impl Collector {
    fn new(max_bytes: usize) -> Collector {
        Collector {
            chunks: Vec::new(),
            joined: ChunkBuilder::new(),
            joined_first: 0,
            joined_term: 0,
            room: max_bytes,
            any: false,
            full: false,
        }
    }

    /// Entries of a payload that still fit: as many as reach the limit, at least one.
    fn fitting(&mut self, sizes: impl Iterator<Item = usize>) -> usize {
        let mut n = 0;
        for size in sizes {
            if self.any && size > self.room {
                self.end_here();
                break;
            }
            self.any = true;
            self.room = self.room.saturating_sub(size);
            n += 1;
        }
        n
    }

    /// A read of limited size is a prefix of what was asked: what comes after the entry that did not fit is left out, too.
    fn end_here(&mut self) {
        self.full = !Mutant::D7ReadSkipsWhatDoesNotFit.is_active();
    }

    fn flush(&mut self) {
        self.chunks.extend(self.joined.take(self.joined_first, self.joined_term).map(Arc::new));
    }

    fn add_chunk(&mut self, chunk: EntryChunk) {
        let n = self.fitting((0..chunk.len()).map(|i| chunk.entry(i).len()));
        if n > 0 {
            self.flush();
            let last = chunk.first_index() + n as u64 - 1;
            self.chunks.extend(Arc::new(chunk).share(0, last));
        }
    }

    /// Adds entries `first..=last` of a small data run.
    fn add_small(&mut self, run: &Run, view: &RunView, bytes: &[u8]) -> Result<(), String> {
        let ends = view.ends(bytes);
        let payload = &bytes[view.payload.clone()];
        let skip = (run.first - view.header.index) as usize;
        let keep = (run.last - run.first + 1) as usize;
        let mut start = if skip == 0 { 0 } else { ends[skip - 1] as usize };
        if !self.joined.is_empty() && self.joined_term != run.term {
            self.flush();
        }
        if self.joined.is_empty() {
            (self.joined_first, self.joined_term) = (run.first, run.term);
        }
        for end in &ends[skip..skip + keep] {
            let entry = payload.get(start..*end as usize).ok_or("entry ends do not ascend")?;
            start = *end as usize;
            if self.fitting(std::iter::once(entry.len())) == 0 {
                break;
            }
            self.joined.push(entry);
        }
        Ok(())
    }
}

fn collect(group: &Group, runs: &[Run], max_bytes: usize) -> Result<Vec<Arc<EntryChunk>>, Failure> {
    let mut out = Collector::new(max_bytes);
    let (mut rest, mut gaps) = (runs, MAX_GAPS);
    while !rest.is_empty() && !out.full {
        let n = span(rest, &mut gaps);
        let bytes = match fetch(&rest[..n]) {
            Ok(bytes) => bytes,
            Err(_) if rest[..n].iter().any(|r| !group.still_holds(r)) => return Err(Failure::Moved),
            Err(error) => return Err(Failure::Final(error)),
        };
        let base = rest[0].place.offset;
        for run in &rest[..n] {
            let start = (run.place.offset - base) as usize;
            let record = bytes.slice(start..start + run.place.len as usize);
            let view = verify(group, run, &record)?;
            let broken = |what| Failure::Final(run.place.segment.damaged(run.place.offset, what));
            if run.kind == RunKind::Data && view.payload.len() <= JOIN_BYTES {
                out.add_small(run, &view, &record).map_err(broken)?;
            } else {
                let chunk = view.chunk(&record).map_err(broken)?;
                if let Some(chunk) = chunk.slice(run.first, run.last) {
                    out.add_chunk(chunk);
                }
            }
            if out.full {
                break;
            }
        }
        rest = &rest[n..];
    }
    out.flush();
    Ok(out.chunks)
}

/// Entries of one run as one chunk, for rewriting.
pub(crate) fn read_run(group: &Group, run: &Run) -> Result<EntryChunk, StorageError> {
    let bytes = fetch(std::slice::from_ref(run))?;
    let damaged = |what| run.place.segment.damaged(run.place.offset, what);
    let view = verify(group, run, &bytes).map_err(|failure| match failure {
        Failure::Final(error) => error,
        Failure::Moved => damaged("the run moved while its owner read it".to_owned()),
    })?;
    let chunk = view.chunk(&bytes).map_err(damaged)?;
    chunk.slice(run.first, run.last).ok_or_else(|| damaged("the run has no entry left".to_owned()))
}

impl LogReader for SegmentReader {
    fn read(
        &self,
        group: GroupKey,
        from: LogIndex,
        to: LogIndex,
        max_bytes: usize,
    ) -> Result<Vec<Arc<EntryChunk>>, StorageError> {
        let found = self.group(group, from)?;
        for _ in 0..ATTEMPTS {
            let runs = wanted(&found, &self.files, from, to, max_bytes)?;
            match collect(&found, &runs, max_bytes) {
                Ok(chunks) => return Ok(chunks),
                Err(Failure::Moved) => {}
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        // Truncated or rewritten under each attempt: the log below it is going away.
        Err(StorageError::NotFound { group, index: from })
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::{GroupIndex, Suspicion};
    use super::super::runs::RunAt;
    use super::*;
    use crate::traits::{GroupNumber, Incarnation};

    #[test]
    fn a_group_that_is_removed_under_a_read_has_no_entries() {
        let key = GroupKey { number: GroupNumber(1), incarnation: Incarnation(1) };
        let index = GroupIndex { durable_last: 5, ..GroupIndex::default() };
        let group = Group::new(key, "g".parse().unwrap(), 0, index, Suspicion::default());
        let files = Segments::default();
        group.index.lock().release_all(&files);
        assert!(matches!(wanted(&group, &files, 3, 5, 100), Err(StorageError::NotFound { .. })));
    }

    #[test]
    fn entries_that_stand_nowhere_are_an_error_and_not_an_empty_answer() {
        let key = GroupKey { number: GroupNumber(1), incarnation: Incarnation(1) };
        let index = GroupIndex { durable_last: 5, ..GroupIndex::default() };
        let group = Group::new(key, "g".parse().unwrap(), 0, index, Suspicion::default());
        let files = Segments::default();
        assert!(matches!(wanted(&group, &files, 3, 5, 100), Err(StorageError::NotFound { .. })));
        let (first, last, kind) = (1, 5, RunKind::Data);
        let run = RunAt { first, last, term: 1, sequence: 1, kind, file: 7, offset: 4096, len: 128 };
        group.index.lock().runs.push(run);
        assert!(matches!(wanted(&group, &files, 3, 5, 100), Err(StorageError::NotFound { .. })));
    }
}
