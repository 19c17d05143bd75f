//! Reads one part of the stream and says which of its runs are good.

use std::sync::Arc;

use super::super::format::{Layout, Newer, PartHeader, RUN_HEADER, RunError, RunView, decode_run};
use super::super::segments::Segment;
use crate::traits::StorageError;

/// A file's bytes from `base` to its end.
pub(super) struct Loaded {
    pub(super) segment: Arc<Segment>,
    pub(super) base: u64,
    bytes: Vec<u8>,
}

impl Loaded {
    pub(super) fn read(segment: &Arc<Segment>, base: u64) -> Result<Loaded, StorageError> {
        let length = segment.header.bytes.checked_sub(base).ok_or_else(|| {
            segment.damaged(base, "the checkpoint's position is beyond the file's end".to_owned())
        })?;
        let mut bytes = vec![0; length as usize];
        segment.file()?.read_exact_at(base, &mut bytes)?;
        Ok(Loaded { segment: Arc::clone(segment), base, bytes })
    }

    pub(super) fn from(&self, offset: u64) -> &[u8] {
        self.bytes.get((offset - self.base) as usize..).unwrap_or(&[])
    }

    pub(super) fn header_at(&self, offset: u64) -> Result<Option<PartHeader>, Newer> {
        PartHeader::decode(&self.segment.header, self.from(offset))
    }
}

/// A run and what is wrong with its payload, if anything is.
pub(super) struct FoundRun {
    pub(super) offset: u64,
    pub(super) view: RunView,
    pub(super) damage: Option<&'static str>,
}

/// A part that was read.
pub(super) struct Part {
    pub(super) file: usize,
    pub(super) offset: u64,
    /// Bytes up to the next part.
    pub(super) len: u64,
    pub(super) header: PartHeader,
    pub(super) runs: Vec<FoundRun>,
    /// Runs whose headers cannot be read, so that nobody knows whose they are.
    pub(super) lost: u32,
    /// The first thing that is wrong.
    pub(super) wrong: Option<&'static str>,
}

/// Why there is no part.
pub(super) enum NoPart {
    /// No right header, or one that does not follow.
    Missing(&'static str),
    Newer(Newer),
}

/// What must follow in the stream.
#[derive(Clone, Copy)]
pub(super) struct Follows {
    pub(super) sequence: u64,
    /// Life of the part before: lives never fall.
    pub(super) life: u32,
}

/// Reads and verifies the part at `offset`.
pub(super) fn read_part(loaded: &Loaded, file: usize, offset: u64, follows: Follows) -> Result<Part, NoPart> {
    let segment = &loaded.segment.header;
    let header =
        loaded.header_at(offset).map_err(NoPart::Newer)?.ok_or(NoPart::Missing("no batch header"))?;
    if header.sequence != follows.sequence {
        return Err(NoPart::Missing("a batch out of order"));
    }
    if header.life < follows.life {
        return Err(NoPart::Missing("a batch of an earlier life"));
    }
    let start = offset + segment.part_header() as u64;
    let len = (segment.part_header() as u64 + u64::from(header.body)).next_multiple_of(segment.block());
    let body = loaded.from(start).get(..header.body as usize);
    let body = body.ok_or(NoPart::Missing("a batch longer than the file"))?;
    let mut part = Part { file, offset, len, header, runs: Vec::new(), lost: 0, wrong: None };
    let (mut at, mut digest) = (0, 0);
    while at < body.len() {
        let (view, damage) = match decode_run(segment, &body[at..]) {
            Ok(view) => (view, None),
            Err(RunError::Damaged(view, what)) => (*view, Some(what)),
            Err(RunError::Newer(newer)) => return Err(NoPart::Newer(newer)),
            Err(RunError::Broken(what)) => {
                part.wrong = part.wrong.or(Some(what));
                match next_run(segment, body, at) {
                    Some(next) => at = next,
                    None => break,
                }
                continue;
            }
        };
        if part.wrong.is_none() && segment.layout != Layout::V1 && view.number != part.runs.len() as u16 {
            part.wrong = Some("a run that is not of this part");
        }
        part.wrong = part.wrong.or(damage);
        digest = crc32c::crc32c_append(digest, &view.crc.to_le_bytes());
        let next = at + view.len;
        part.runs.push(FoundRun { offset: start + at as u64, view, damage });
        at = next;
    }
    part.lost = header.runs.saturating_sub(part.runs.len() as u32);
    let whole = digest == header.digest && part.lost == 0 && at == body.len();
    if part.wrong.is_none() && !whole {
        part.wrong = Some("a batch header that does not belong to its runs");
    }
    Ok(part)
}

/// Where the next run with a right header starts behind a broken one: runs start at multiples of 8.
fn next_run(segment: &super::SegmentHeader, body: &[u8], broken: usize) -> Option<usize> {
    if segment.layout == Layout::V1 {
        return None; // header and payload share a checksum there
    }
    let last = body.len().checked_sub(RUN_HEADER)?;
    (broken + 8..=last)
        .step_by(8)
        .find(|at| matches!(decode_run(segment, &body[*at..]), Ok(_) | Err(RunError::Damaged(..))))
}
