//! The outer form of a checkpoint file: a header, and a block of frames that are read one at a time.

use super::super::format::{FORMAT_VERSION, put32, put64, u16_at, u32_at, u64_at};
use crate::disk::DiskFile;
use crate::store_id::StoreId;
use crate::traits::StorageError;

const MAGIC: [u8; 8] = *b"RRCHECKP";
const HEADER: usize = 64;

/// First word of a frame.
const FRAME_MAGIC: u32 = 0x464b_4352;
const FRAME_HEADER: usize = 32;

/// Bytes of a frame's body at most.
const FRAME_BODY: usize = 64 << 10;

const FLAG_FIRST: u32 = 1;
const FLAG_LAST: u32 = 2;
const FLAG_FULL: u32 = 4;

/// The bytes of a file with one full block.
pub(crate) fn file(store: StoreId, number: u64, block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + block.len() + (block.len() / FRAME_BODY + 1) * FRAME_HEADER);
    out.extend_from_slice(&MAGIC);
    put32(&mut out, FORMAT_VERSION);
    put32(&mut out, 0); // stream 0
    put64(&mut out, number);
    out.extend_from_slice(&store.0);
    let crc = crc32c::crc32c(&out);
    put32(&mut out, crc);
    out.resize(HEADER, 0);
    let last = block.len().saturating_sub(1) / FRAME_BODY;
    for (at, body) in block.chunks(FRAME_BODY).enumerate() {
        let mut flags = FLAG_FULL;
        flags |= if at == 0 { FLAG_FIRST } else { 0 };
        flags |= if at == last { FLAG_LAST } else { 0 };
        let start = out.len();
        put32(&mut out, FRAME_MAGIC);
        put32(&mut out, flags);
        put64(&mut out, number);
        put32(&mut out, at as u32);
        put32(&mut out, body.len() as u32);
        put32(&mut out, crc32c::crc32c(body));
        let crc = crc32c::crc32c_append(seed(store), &out[start..]);
        put32(&mut out, crc);
        out.extend_from_slice(body);
    }
    out
}

/// What frames of a store start their checksums from, so that those of another are never taken for its own.
fn seed(store: StoreId) -> u32 {
    crc32c::crc32c(&store.0)
}

/// Why a checkpoint cannot be read.
pub(crate) enum Unreadable {
    /// The system did not give it: another attempt may.
    Io(StorageError),
    /// What stands there is no checkpoint.
    Broken(String),
}

impl From<String> for Unreadable {
    fn from(what: String) -> Unreadable {
        Unreadable::Broken(what)
    }
}

impl From<&str> for Unreadable {
    fn from(what: &str) -> Unreadable {
        Unreadable::Broken(what.to_owned())
    }
}

impl From<StorageError> for Unreadable {
    fn from(error: StorageError) -> Unreadable {
        match error {
            StorageError::Damaged { what, .. } => Unreadable::Broken(what),
            error => Unreadable::Io(error),
        }
    }
}

/// Reads the block of a checkpoint file through a window of one frame.
pub(crate) struct BlockReader<'a> {
    file: &'a dyn DiskFile,
    store: StoreId,
    number: u64,
    offset: u64,
    frame: u32,
    ended: bool,
    window: Vec<u8>,
    taken: usize,
}

impl<'a> BlockReader<'a> {
    /// Begins to read file `number` of the store.
    pub(crate) fn open(
        file: &'a dyn DiskFile,
        store: StoreId,
        number: u64,
    ) -> Result<BlockReader<'a>, Unreadable> {
        let mut head = [0; HEADER];
        file.read_exact_at(0, &mut head)?;
        if head[..8] != MAGIC {
            return Err("not a checkpoint".into());
        }
        if u32_at(&head, 8) != FORMAT_VERSION {
            return Err(format!("format version {} is not {FORMAT_VERSION}", u32_at(&head, 8)).into());
        }
        if crc32c::crc32c(&head[..40]) != u32_at(&head, 40) {
            return Err("the checksum of the file's header does not match".into());
        }
        if (u16_at(&head, 12), u64_at(&head, 16), StoreId::read(&head[24..40])) != (0, number, store) {
            return Err("a checkpoint of another number or store".into());
        }
        Ok(BlockReader {
            file,
            store,
            number,
            offset: HEADER as u64,
            frame: 0,
            ended: false,
            window: Vec::new(),
            taken: 0,
        })
    }

    fn next_frame(&mut self) -> Result<(), Unreadable> {
        if self.ended {
            return Err("the block ends early".into());
        }
        let mut head = [0; FRAME_HEADER];
        self.file.read_exact_at(self.offset, &mut head)?;
        if u32_at(&head, 0) != FRAME_MAGIC
            || crc32c::crc32c_append(seed(self.store), &head[..28]) != u32_at(&head, 28)
        {
            return Err(format!("no frame at byte {}", self.offset).into());
        }
        let flags = u32_at(&head, 4);
        let body = u32_at(&head, 20) as usize;
        let expected = if self.frame == 0 { FLAG_FIRST } else { 0 };
        if flags & (FLAG_FIRST | FLAG_FULL) != expected | FLAG_FULL
            || (u64_at(&head, 8), u32_at(&head, 16)) != (self.number, self.frame)
            || body > FRAME_BODY
        {
            return Err(format!("a frame out of order at byte {}", self.offset).into());
        }
        let rest = self.window.split_off(self.taken);
        self.window = rest;
        self.taken = 0;
        let start = self.window.len();
        self.window.resize(start + body, 0);
        let at = self.offset + FRAME_HEADER as u64;
        self.file.read_exact_at(at, &mut self.window[start..])?;
        if crc32c::crc32c(&self.window[start..]) != u32_at(&head, 24) {
            return Err(format!("the checksum of the frame at byte {} does not match", self.offset).into());
        }
        self.offset = at + body as u64;
        self.frame += 1;
        self.ended = flags & FLAG_LAST != 0;
        Ok(())
    }

    /// The next `n` bytes of the block.
    pub(crate) fn take(&mut self, n: usize) -> Result<&[u8], Unreadable> {
        while self.window.len() - self.taken < n {
            self.next_frame()?;
        }
        self.taken += n;
        Ok(&self.window[self.taken - n..self.taken])
    }

    /// Whether the whole block was taken.
    pub(crate) fn is_at_end(&self) -> bool {
        self.ended && self.taken == self.window.len()
    }
}
