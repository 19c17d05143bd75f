//! What is not durable yet, and what a loss of power makes of it.
//!
//! Data and length of a file are durable when its sync returns, names when that of the directory does. What is younger survives by chance:
//! each block of 4 KiB as it is, as it was, as a mixture of old and new sectors, or spoiled as a whole, what stood in it before included;
//! lengths each by themselves; of the changes of names the first few, as on a file system with a journal. Not covered: the making of the
//! directory itself, directories in it, maps of files into memory, and descriptors that are duplicated.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int};
use std::fmt::Write;

use crate::sys::{self, Answer};

const BLOCK: u64 = 4096;
const SECTOR: usize = 512;
/// What a spoiled block holds.
const SPOILED: u8 = 0xA5;

/// What a write or a change of length replaced.
enum Replaced {
    Block { at: u64, bytes: Vec<u8> },
    Length(u64),
}

/// A change of a name. `spare` is another name of what would be gone otherwise.
enum Name {
    Made(CString),
    Renamed { from: CString, to: CString, spare: Option<CString> },
    Removed { path: CString, spare: CString },
}

/// A file that is open, or holds what is not durable.
struct File {
    /// A descriptor of our own.
    own: c_int,
    users: usize,
    /// In the order of the changes, with their numbers.
    replaced: Vec<(u64, Replaced)>,
}

/// What a descriptor of the process stands for.
#[derive(Clone, Copy)]
enum Handle {
    File(u64),
    Directory,
}

/// A directory of files.
pub(crate) struct Disk {
    pub(crate) directory: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
    /// State of the generator: splitmix64.
    pub(crate) random: u64,
    /// By inode.
    files: BTreeMap<u64, File>,
    handles: BTreeMap<c_int, Handle>,
    names: Vec<(u64, Name)>,
    /// Changes so far.
    changes: u64,
}

impl Disk {
    pub(crate) fn new(directory: Vec<u8>, scratch: Vec<u8>, seed: u64) -> Disk {
        let (files, handles) = (BTreeMap::new(), BTreeMap::new());
        Disk { directory, scratch, random: seed, files, handles, names: Vec::new(), changes: 0 }
    }

    /// Whether a path is the directory or a file in it.
    pub(crate) fn has(&self, path: &CStr) -> bool {
        match path.to_bytes().strip_prefix(&self.directory[..]) {
            Some([]) => true,
            Some([b'/', name @ ..]) => !name.contains(&b'/'),
            _ => false,
        }
    }

    pub(crate) fn open(&mut self, path: &CStr, flags: c_int, mode: libc::mode_t) -> Answer {
        let made = flags & libc::O_CREAT != 0 && !sys::exists(path);
        // What is cut off is a change like others.
        let file = sys::open(path, flags & !libc::O_TRUNC, mode)? as c_int;
        if made {
            let number = self.next_change();
            self.names.push((number, Name::Made(path.to_owned())));
        }
        let Some(stat) = sys::stat(file) else { return Ok(file.into()) };
        if stat.is_directory {
            self.handles.insert(file, Handle::Directory);
            return Ok(file.into());
        }
        if let Some(known) = self.files.get_mut(&stat.inode) {
            known.users += 1;
        } else {
            let own = sys::open(path, libc::O_RDWR | libc::O_CLOEXEC, 0)? as c_int;
            self.files.insert(stat.inode, File { own, users: 1, replaced: Vec::new() });
        }
        self.handles.insert(file, Handle::File(stat.inode));
        if flags & libc::O_TRUNC != 0 {
            self.before_resize(file, 0);
            sys::resize(file, 0)?;
        }
        Ok(file.into())
    }

    pub(crate) fn close(&mut self, file: c_int) {
        let Some(Handle::File(inode)) = self.handles.remove(&file) else { return };
        if let Some(file) = self.files.get_mut(&inode) {
            file.users -= 1;
        }
        self.let_go(inode);
    }

    /// Forgets a file that nobody has open and all of which is durable.
    fn let_go(&mut self, inode: u64) {
        if self.files.get(&inode).is_some_and(|file| file.users == 0 && file.replaced.is_empty())
            && let Some(file) = self.files.remove(&inode)
        {
            let _ = sys::close(file.own);
        }
    }

    pub(crate) fn is_ours(&self, file: c_int) -> bool {
        self.handles.contains_key(&file)
    }

    fn next_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Remembers what a write is going to replace.
    pub(crate) fn before_write(&mut self, file: c_int, at: u64, bytes: u64) {
        let number = self.next_change();
        let Some(Handle::File(inode)) = self.handles.get(&file) else { return };
        let (Some(stat), Some(file)) = (sys::stat(file), self.files.get_mut(inode)) else { return };
        if at + bytes > stat.bytes {
            file.replaced.push((number, Replaced::Length(stat.bytes)));
        }
        let (from, to) = (at / BLOCK * BLOCK, (at + bytes).next_multiple_of(BLOCK));
        for at in (from..to).step_by(BLOCK as usize) {
            let mut bytes = vec![0; BLOCK as usize];
            sys::read_at(file.own, &mut bytes, at);
            file.replaced.push((number, Replaced::Block { at, bytes }));
        }
    }

    /// Remembers what a change of length is going to replace.
    pub(crate) fn before_resize(&mut self, file: c_int, bytes: u64) {
        let Some(stat) = sys::stat(file) else { return };
        if bytes < stat.bytes {
            self.before_write(file, bytes, stat.bytes - bytes);
        }
        let number = self.next_change();
        if let Some(Handle::File(inode)) = self.handles.get(&file)
            && let Some(file) = self.files.get_mut(inode)
        {
            file.replaced.push((number, Replaced::Length(stat.bytes)));
        }
    }

    /// Another name for what is going to lose this one.
    fn spare(&mut self, path: &CStr) -> Option<CString> {
        let mut name = self.scratch.clone();
        let number = self.next_change();
        name.extend_from_slice(format!("/{number}").as_bytes());
        let spare = sys::path(name);
        sys::link(path, &spare).ok().map(|_| spare)
    }

    pub(crate) fn rename(&mut self, from: &CStr, to: &CStr) -> Answer {
        let spare = self.spare(to);
        let answer = sys::rename(from, to)?;
        let number = self.next_change();
        self.names.push((number, Name::Renamed { from: from.to_owned(), to: to.to_owned(), spare }));
        Ok(answer)
    }

    pub(crate) fn unlink(&mut self, path: &CStr) -> Answer {
        let spare = self.spare(path);
        let answer = sys::unlink(path)?;
        let number = self.next_change();
        let removed = |spare| (number, Name::Removed { path: path.to_owned(), spare });
        self.names.extend(spare.map(removed));
        Ok(answer)
    }

    /// The changes so far: those that a sync which begins now makes durable.
    pub(crate) fn begin_sync(&self) -> u64 {
        self.changes
    }

    /// What was changed before the sync began is durable.
    pub(crate) fn end_sync(&mut self, file: c_int, began: u64) {
        match self.handles.get(&file) {
            Some(Handle::File(inode)) => {
                let inode = *inode;
                if let Some(file) = self.files.get_mut(&inode) {
                    file.replaced.retain(|(number, _)| *number > began);
                }
                self.let_go(inode);
            }
            Some(Handle::Directory) => {
                let durable = self.names.partition_point(|(number, _)| *number <= began);
                for (_, name) in self.names.drain(..durable) {
                    forget_spare(&name);
                }
            }
            None => {}
        }
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.random() % end.max(1)
    }

    /// Undoes a part of what is not durable; says what, in pairs of a name and a number.
    pub(crate) fn lose_power(&mut self) -> String {
        // All, three of four, half, one of four or none survive: the extremes are what chance would not show.
        let odds = self.below(5);
        let (mut unsynced, mut undone, mut mixed, mut spoiled, mut cut) = (0, 0, 0, 0, 0);
        for (_, file) in std::mem::take(&mut self.files) {
            let mut blocks: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
            let mut length = None;
            for (_, replaced) in file.replaced {
                match replaced {
                    Replaced::Block { at, bytes } => blocks.entry(at).or_default().push(bytes),
                    Replaced::Length(bytes) => length = length.or(Some(bytes)),
                }
            }
            if let Some(bytes) = length
                && self.below(4) >= odds
            {
                let _ = sys::resize(file.own, bytes as i64);
                cut += 1;
            }
            for (at, mut before) in blocks {
                unsynced += 1;
                let mut block = vec![0; BLOCK as usize];
                let bytes = sys::read_at(file.own, &mut block, at);
                // Any of the states since the last sync.
                let old = before.swap_remove(self.below(before.len() as u64) as usize);
                if self.below(4) < odds || block == old {
                    continue;
                }
                match self.below(4) {
                    0 => {
                        mixed += 1;
                        for (new, old) in block.chunks_mut(SECTOR).zip(old.chunks(SECTOR)) {
                            if self.below(2) == 0 {
                                new.copy_from_slice(old);
                            }
                        }
                    }
                    1 => {
                        spoiled += 1;
                        block.fill(SPOILED);
                    }
                    _ => {
                        undone += 1;
                        block = old;
                    }
                }
                let _ = sys::write_at(file.own, &block[..bytes], at);
            }
        }
        let names = std::mem::take(&mut self.names);
        let kept = self.below(names.len() as u64 + 1) as usize;
        let (all, back) = (names.len(), names.len() - kept);
        for (_, name) in names[kept..].iter().rev() {
            take_back(name);
        }
        for (_, name) in &names {
            forget_spare(name);
        }
        let mut report = String::new();
        let _ = write!(report, "unsynced={unsynced} undone={undone} mixed={mixed} spoiled={spoiled} ");
        let _ = writeln!(report, "lengths={cut} renames={all} taken-back={back}");
        report
    }
}

fn take_back(name: &Name) {
    let _ = match name {
        Name::Made(path) => sys::unlink(path),
        Name::Removed { path, spare } => sys::link(spare, path),
        Name::Renamed { from, to, spare } => {
            let moved = sys::rename(to, from);
            spare.as_ref().map_or(moved, |spare| sys::link(spare, to))
        }
    };
}

fn forget_spare(name: &Name) {
    if let Name::Removed { spare, .. } | Name::Renamed { spare: Some(spare), .. } = name {
        let _ = sys::unlink(spare);
    }
}
