//! Where the runs of one group stand: a few bytes a run, however long the log and however many groups write by turns.
//!
//! An *element* holds neighbouring runs as rows, each coded by what differs from the run before it (see [`put_row`]).
//! A run of one small entry costs about four bytes: a byte that says "as the one before", and how far on it stands. Rows
//! name every run and not every 64 KiB of file: where ten thousand groups write by turns no two runs of one of them
//! stand that near, and so sparse anchors would save nothing; and what is named exactly is read without its neighbours, is moved by its
//! identity when it is rewritten, and is damaged alone.
//!
//! Whoever looks for a run finds its element by bisection and decodes that one, at most [`ELEMENT_RUNS`] rows. Changes other than at the end
//! (truncation, a rewritten run) decode one element and code it again.

use std::collections::VecDeque;

use ringraft_core::{LogIndex, Term};

use super::format::{Cursor, RunKind, put_varint};
#[cfg(test)]
use super::format::{put32, put64};

/// Runs in an element at most: bounds what a look-up decodes.
const ELEMENT_RUNS: usize = 128;

/// Bytes of rows from which on an element takes no more runs.
const ELEMENT_BYTES: usize = 480;

/// Runs stand at multiples of this, and so their places are counted in it.
const GRAIN: u64 = 8;

// What differs from the run before, by bit; fields follow in this order.
const FILE: u8 = 1;
const TERM: u8 = 2;
const KIND: u8 = 4;
const SEQUENCE: u8 = 8;
const COUNT: u8 = 16;
const LENGTH: u8 = 32;

/// Stored entries `first..=last` that still belong to the log, and where their run stands; the record may hold more on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunAt {
    pub(crate) first: LogIndex,
    pub(crate) last: LogIndex,
    pub(crate) term: Term,
    /// Identity within the group's life, kept when the run is rewritten.
    pub(crate) sequence: u64,
    pub(crate) kind: RunKind,
    /// Number of its segment file.
    pub(crate) file: u64,
    pub(crate) offset: u64,
    /// Bytes of the record with its padding.
    pub(crate) len: u32,
}

impl RunAt {
    /// What the first row of an element differs from.
    fn before(first: LogIndex) -> RunAt {
        let last = first.wrapping_sub(1);
        RunAt { first: last, last, term: 0, sequence: 0, kind: RunKind::Data, file: 0, offset: 0, len: 0 }
    }

    /// Whether this run can follow `before` in a log, or begin one when there is none.
    ///
    /// The error says which rule it breaks.
    pub(crate) fn check(&self, before: Option<&RunAt>) -> Result<(), String> {
        let (sequence, term) = before.map_or((0, 0), |run| (run.sequence, run.term));
        let fits = self.first <= self.last
            && before.is_none_or(|run| run.last.checked_add(1) == Some(self.first))
            && self.sequence > sequence
            && self.term >= term
            && self.kind.is_entries()
            && self.offset.is_multiple_of(GRAIN)
            && u64::from(self.len).is_multiple_of(GRAIN)
            && self.offset.checked_add(u64::from(self.len)).is_some();
        match fits {
            true => Ok(()),
            false => Err(format!("a run of entries {}..={} that cannot be", self.first, self.last)),
        }
    }
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Appends the row of a run that [follows](RunAt::check) `before`.
fn put_row(out: &mut Vec<u8>, before: &RunAt, run: &RunAt) {
    let count = run.last - run.first;
    let end = before.offset + u64::from(before.len);
    let gap = run.sequence - before.sequence - 1;
    let mut tag = 0;
    for (bit, differs) in [
        (FILE, run.file != before.file),
        (TERM, run.term != before.term),
        (KIND, run.kind != before.kind),
        (SEQUENCE, gap != 0),
        (COUNT, count != before.last - before.first),
        (LENGTH, run.len != before.len),
    ] {
        tag |= if differs { bit } else { 0 };
    }
    out.push(tag);
    if tag & FILE != 0 {
        put_varint(out, zigzag(run.file.wrapping_sub(before.file) as i64));
        put_varint(out, run.offset / GRAIN);
    } else {
        put_varint(out, zigzag((run.offset / GRAIN) as i64 - (end / GRAIN) as i64));
    }
    if tag & TERM != 0 {
        put_varint(out, run.term - before.term);
    }
    if tag & KIND != 0 {
        out.push(run.kind as u8);
    }
    if tag & SEQUENCE != 0 {
        put_varint(out, gap);
    }
    if tag & COUNT != 0 {
        put_varint(out, count);
    }
    if tag & LENGTH != 0 {
        put_varint(out, u64::from(run.len) / GRAIN);
    }
}

/// Reads the row of the run behind `before`; bytes that a disk gave may hold anything.
fn take_row(cursor: &mut Cursor<'_>, before: &RunAt) -> Result<RunAt, String> {
    let too_large = || "a number that is too large".to_owned();
    let tag = cursor.u8()?;
    if tag >= LENGTH << 1 {
        return Err(format!("a row with flags {tag:#x}, which a newer program wrote; start that one"));
    }
    let (file, grains) = if tag & FILE != 0 {
        (before.file.wrapping_add(unzigzag(cursor.varint()?) as u64), cursor.varint()?)
    } else {
        let end = (before.offset + u64::from(before.len)) / GRAIN;
        let grains = end.checked_add_signed(unzigzag(cursor.varint()?)).ok_or_else(too_large)?;
        (before.file, grains)
    };
    let more = if tag & TERM != 0 { cursor.varint()? } else { 0 };
    let term = before.term.checked_add(more).ok_or_else(too_large)?;
    let kind = if tag & KIND != 0 {
        RunKind::from_byte(cursor.u8()?).ok_or("a run of unknown kind")?
    } else {
        before.kind
    };
    let gap = if tag & SEQUENCE != 0 { cursor.varint()? } else { 0 };
    let sequence = before.sequence.checked_add(1).and_then(|next| next.checked_add(gap));
    let count = if tag & COUNT != 0 { cursor.varint()? } else { before.last - before.first };
    let first = before.last.wrapping_add(1);
    let len = if tag & LENGTH != 0 {
        let bytes = cursor.varint()?.checked_mul(GRAIN);
        bytes.and_then(|bytes| u32::try_from(bytes).ok()).ok_or_else(too_large)?
    } else {
        before.len
    };
    Ok(RunAt {
        first,
        last: first.checked_add(count).ok_or_else(too_large)?,
        term,
        sequence: sequence.ok_or_else(too_large)?,
        kind,
        file,
        offset: grains.checked_mul(GRAIN).ok_or_else(too_large)?,
        len,
    })
}

/// Neighbouring runs, coded.
struct Element {
    first: LogIndex,
    last: LogIndex,
    /// Of its first run.
    sequence: u64,
    /// Lowest and highest number of the files in which its runs stand.
    files: (u64, u64),
    runs: u32,
    rows: Vec<u8>,
}

impl Element {
    fn new(run: &RunAt) -> Element {
        let files = (run.file, run.file);
        let mut element = Element {
            first: run.first,
            last: run.first.wrapping_sub(1),
            sequence: run.sequence,
            files,
            runs: 0,
            rows: Vec::new(),
        };
        element.push(&RunAt::before(run.first), run);
        element
    }

    /// Runs that follow each other; `None` for none.
    fn of(runs: &[RunAt]) -> Option<Element> {
        let mut element = Element::new(runs.first()?);
        for two in runs.windows(2) {
            element.push(&two[0], &two[1]);
        }
        element.rows.shrink_to_fit();
        Some(element)
    }

    fn push(&mut self, before: &RunAt, run: &RunAt) {
        put_row(&mut self.rows, before, run);
        self.last = run.last;
        self.files = (self.files.0.min(run.file), self.files.1.max(run.file));
        self.runs += 1;
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ELEMENT_BYTES || self.runs as usize >= ELEMENT_RUNS
    }

    fn iter(&self) -> impl Iterator<Item = RunAt> + '_ {
        let mut cursor = Cursor::new(&self.rows);
        let mut before = RunAt::before(self.first);
        std::iter::from_fn(move || {
            if cursor.is_empty() {
                return None;
            }
            // It was coded, or checked when it was read: it can be decoded.
            before = take_row(&mut cursor, &before).ok()?;
            Some(before)
        })
    }

    fn decoded(&self) -> Vec<RunAt> {
        self.iter().collect()
    }
}

/// The runs of one group in order.
#[derive(Default)]
pub(crate) struct Runs {
    elements: VecDeque<Element>,
    last: Option<RunAt>,
}

impl Runs {
    /// The last run.
    pub(crate) fn last(&self) -> Option<&RunAt> {
        self.last.as_ref()
    }

    /// Adds a run, which must [follow](RunAt::check) the last one.
    pub(crate) fn push(&mut self, run: RunAt) {
        debug_assert_eq!(run.check(self.last.as_ref()), Ok(()));
        match (self.elements.back_mut(), &self.last) {
            (Some(element), Some(last)) if !element.is_full() => element.push(last, &run),
            (full, _) => {
                if let Some(full) = full {
                    full.rows.shrink_to_fit();
                }
                self.elements.push_back(Element::new(&run));
            }
        }
        self.last = Some(run);
    }

    /// All runs.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RunAt> + '_ {
        self.elements.iter().flat_map(Element::iter)
    }

    /// The runs from that on which holds `index` or is the first behind it.
    pub(crate) fn from(&self, index: LogIndex) -> impl Iterator<Item = RunAt> + '_ {
        let at = self.elements.partition_point(|element| element.last < index);
        self.elements.range(at..).flat_map(Element::iter).skip_while(move |run| run.last < index)
    }

    /// The run that holds the entry `index`.
    pub(crate) fn holding(&self, index: LogIndex) -> Option<RunAt> {
        self.from(index).next().filter(|run| run.first <= index)
    }

    /// The runs in a file.
    pub(crate) fn in_file(&self, file: u64) -> impl Iterator<Item = RunAt> + '_ {
        let near = self.elements.iter().filter(move |e| e.files.0 <= file && file <= e.files.1);
        near.flat_map(Element::iter).filter(move |run| run.file == file)
    }

    /// Where the run of this identity belongs: sequences ascend like indexes, since a run that was split at a file's end gave each piece one.
    fn element_of(&self, sequence: u64) -> Option<usize> {
        self.elements.partition_point(|element| element.sequence <= sequence).checked_sub(1)
    }

    /// The run of this identity.
    pub(crate) fn find(&self, sequence: u64) -> Option<RunAt> {
        let at = self.element_of(sequence)?;
        self.elements.get(at)?.iter().find(|run| run.sequence == sequence)
    }

    /// Puts `moved` in the place of the run with its identity and its range; returns that one, or `None` when there is none.
    pub(crate) fn replace(&mut self, moved: RunAt) -> Option<RunAt> {
        let at = self.element_of(moved.sequence)?;
        let element = self.elements.get_mut(at)?;
        let mut runs = element.decoded();
        let same = |run: &&mut RunAt| {
            (run.sequence, run.first, run.last) == (moved.sequence, moved.first, moved.last)
        };
        let run = runs.iter_mut().find(same)?;
        let old = std::mem::replace(run, moved);
        *element = Element::of(&runs)?;
        if self.last.is_some_and(|last| last.sequence == moved.sequence) {
            self.last = Some(moved);
        }
        Some(old)
    }

    /// Drops entries `from..`; a run that is cut keeps its lower part. `gone` is told of each run that goes.
    pub(crate) fn cut_back(&mut self, from: LogIndex, mut gone: impl FnMut(&RunAt)) {
        if self.last.is_none_or(|last| last.last < from) {
            return;
        }
        while let Some(element) = self.elements.pop_back() {
            let mut runs = element.decoded();
            while runs.last().is_some_and(|run| run.first >= from) {
                runs.pop().iter().for_each(&mut gone);
            }
            if let Some(run) = runs.last_mut() {
                run.last = run.last.min(from - 1);
            }
            if let Some(kept) = Element::of(&runs) {
                self.elements.push_back(kept);
                self.last = runs.last().copied();
                return;
            }
        }
        self.last = None;
    }

    /// Drops entries up to `to`; a run that is cut keeps its upper part. `gone` is told of each run that goes.
    pub(crate) fn cut_front(&mut self, to: LogIndex, mut gone: impl FnMut(&RunAt)) {
        while self.elements.front().is_some_and(|element| element.first <= to) {
            let Some(element) = self.elements.pop_front() else { break };
            let mut runs = element.decoded();
            let stays = runs.iter().position(|run| run.last > to).unwrap_or(runs.len());
            runs.drain(..stays).for_each(|run| gone(&run));
            if let Some(run) = runs.first_mut() {
                run.first = run.first.max(to + 1);
            }
            if let Some(kept) = Element::of(&runs) {
                self.elements.push_front(kept);
                break;
            }
        }
        // The last run may be the one that was cut, or have gone.
        self.last = self.elements.back().and_then(|element| match self.elements.len() {
            1 => element.iter().last(),
            _ => self.last,
        });
    }

    /// Drops everything. `gone` is told of each run.
    pub(crate) fn clear(&mut self, mut gone: impl FnMut(&RunAt)) {
        self.iter().for_each(|run| gone(&run));
        *self = Runs::default();
    }

    /// Appends what a checkpoint holds of the runs.
    #[cfg(test)]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put32(out, self.elements.len() as u32);
        for element in &self.elements {
            put64(out, element.first);
            put32(out, element.runs);
            put32(out, element.rows.len() as u32);
            out.extend_from_slice(&element.rows);
        }
    }

    #[cfg(test)]
    /// Reads back what [`encode`](Runs::encode) wrote. The runs follow each other; nothing is known of their files yet.
    pub(crate) fn decode(cursor: &mut Cursor<'_>) -> Result<Runs, String> {
        let mut runs = Runs::default();
        for _ in 0..cursor.u32()? {
            let (first, count, bytes) = (cursor.u64()?, cursor.u32()?, cursor.u32()? as usize);
            let mut rows = Cursor::new(cursor.take(bytes)?);
            let mut before = RunAt::before(first);
            for _ in 0..count {
                let run = take_row(&mut rows, &before)?;
                run.check(runs.last.as_ref())?;
                runs.push(run);
                before = run;
            }
            if !rows.is_empty() {
                return Err("an element of the index that is longer than what it says".to_owned());
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests;
