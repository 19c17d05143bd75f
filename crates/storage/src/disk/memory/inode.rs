//! One file: what the page cache shows, what the medium holds, and what is between them.

/// Bytes that reach the medium together or not at all.
pub(super) const SECTOR: usize = 512;

/// A set of sectors.
#[derive(Default)]
pub(super) struct Sectors {
    words: Vec<u64>,
}

impl Sectors {
    fn insert_range(&mut self, from: usize, to: usize) {
        if self.words.len() * 64 < to {
            self.words.resize(to.div_ceil(64), 0);
        }
        for sector in from..to {
            self.words[sector / 64] |= 1 << (sector % 64);
        }
    }

    /// Takes every sector out, in ascending order.
    fn take(&mut self, mut each: impl FnMut(usize)) {
        for (position, word) in self.words.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                each(position * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }
}

/// A file without its name.
#[derive(Default)]
pub(super) struct Inode {
    /// As readers see it.
    pub(super) current: Vec<u8>,
    /// As it is after a loss of power.
    pub(super) durable: Vec<u8>,
    pub(super) dirty: Sectors,
    /// The operation that last wrote each sector; 0 for none.
    written: Vec<u64>,
}

impl Inode {
    pub(super) fn zeros(bytes: usize) -> Inode {
        Inode { current: vec![0; bytes], ..Inode::default() }
    }

    /// A copy that is durable as a whole.
    pub(super) fn fork(&self) -> Inode {
        let (current, durable) = (self.current.clone(), self.current.clone());
        Inode { current, durable, dirty: Sectors::default(), written: self.written.clone() }
    }

    /// Writes where the file has room already.
    pub(super) fn write(&mut self, start: usize, data: &[u8], operation: u64) {
        let end = (start + data.len()).min(self.current.len());
        if start >= end {
            return;
        }
        self.current[start..end].copy_from_slice(&data[..end - start]);
        let (first, last) = (start / SECTOR, end.div_ceil(SECTOR));
        self.dirty.insert_range(first, last);
        if self.written.len() < last {
            self.written.resize(last, 0);
        }
        self.written[first..last].fill(operation);
    }

    pub(super) fn resize(&mut self, bytes: usize) {
        self.current.resize(bytes, 0);
    }

    /// The operation that last wrote the byte at `offset`.
    pub(super) fn written_at(&self, offset: usize) -> u64 {
        self.written.get(offset / SECTOR).copied().unwrap_or(0)
    }

    /// The operation that last wrote any byte of the file.
    pub(super) fn last_written(&self) -> u64 {
        self.written.iter().copied().max().unwrap_or(0)
    }

    pub(super) fn flip_bit(&mut self, at: usize, bit: u8) {
        self.current[at] ^= 1 << (bit % 8);
        if let Some(byte) = self.durable.get_mut(at) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Everything reaches the medium.
    pub(super) fn sync(&mut self) {
        let Inode { current, durable, dirty, .. } = self;
        durable.resize(current.len(), 0);
        dirty.take(|sector| copy_sector(current, durable, sector));
    }

    /// Power comes back: each dirty sector reached the medium if `survives` says so. A device that writes blocks of `tear` bytes may have
    /// been in the middle of one: then nothing of the block can be read, what stood in it before included.
    pub(super) fn lose_power(&mut self, tear: usize, mut survives: impl FnMut() -> bool) {
        let Inode { current, durable, dirty, .. } = self;
        let mut torn = Vec::new();
        dirty.take(|sector| {
            if survives() {
                copy_sector(current, durable, sector);
            } else if tear > SECTOR {
                torn.push(sector * SECTOR / tear);
            }
        });
        torn.dedup();
        for block in torn {
            let start = (block * tear).min(durable.len());
            let end = (start + tear).min(durable.len());
            // A block that holds what was written to it anyhow is not harmed by being written again.
            if current.get(start..end) != Some(&durable[start..end]) && !survives() {
                durable[start..end].fill(0xA5);
            }
        }
        current.clone_from(durable);
        self.written.truncate(self.current.len().div_ceil(SECTOR));
    }
}

fn copy_sector(from: &[u8], to: &mut Vec<u8>, sector: usize) {
    let start = (sector * SECTOR).min(from.len());
    let data = &from[start..(start + SECTOR).min(from.len())];
    if data.is_empty() {
        return;
    }
    if to.len() < start + data.len() {
        to.resize(start + data.len(), 0);
    }
    to[start..start + data.len()].copy_from_slice(data);
}
