//! Makes empty segment files ahead of the stream: written with zeros or recycled, each life with a fresh salt.
//!
//! Nothing of the stream is ever in such a file, so that whatever goes wrong is tried again with another one.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use ringraft_core::Mutant;

use super::files::OpenFiles;
use super::format::{DATA_START, Layout, SMALLEST_BLOCK_LOG2, SegmentHeader, segment_name, segment_number};
use super::manifest::{ManifestFile, SharedManifest};
use super::options::SegmentLogOptions;
use super::segments::Segment;
use crate::disk::{Disk, DiskFile, io_error};
use crate::store_id::StoreId;
use crate::traits::{IoKind, StorageError};

/// Bytes of zeros written at once.
const ZEROS: usize = 1 << 20;

/// Name of a file that is being prepared; such files mean nothing at start.
pub(crate) const TEMPORARY: &str = ".tmp";

/// First pause after a failed attempt; each one more doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Attempts in a row when a file is needed and no thread of the store prepares any.
const INLINE_ATTEMPTS: usize = 3;

/// A number that no earlier life of any file had, as far as chance goes.
fn fresh_salt(number: u64) -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(number);
    hasher.finish()
}

/// A file that the stream may go on in, or is in.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) segment: Arc<Segment>,
    /// Opened under the file's final name: that is the one which errors tell.
    pub(crate) file: Arc<dyn DiskFile>,
}

/// What every file of a store has in common.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) store: StoreId,
    /// Parts start at multiples of 2 to the power of this.
    pub(crate) block_log2: u8,
    /// Size of a file.
    pub(crate) bytes: u64,
}

/// What a device writes at once, so that one that is torn harms nothing but what was written to it last.
fn block_of_files(options: &SegmentLogOptions) -> u8 {
    if Mutant::H8BatchesShareABlock.is_active() { SMALLEST_BLOCK_LOG2 } else { options.block_log2() }
}

impl Origin {
    /// What new files of the store are like by these options.
    pub(crate) fn new(store: StoreId, options: &SegmentLogOptions) -> Origin {
        Origin { store, block_log2: block_of_files(options), bytes: options.file_bytes }
    }
}

/// Makes segment file `number`, of the file named `spare` when there is one. It gets its final name last, so that a
/// file with such a name always has a durable header of its own. The manifest must name it before it may be used.
pub(crate) fn prepare(
    disk: &dyn Disk,
    files: &Arc<OpenFiles>,
    origin: &Origin,
    number: u64,
    spare: Option<&str>,
) -> Result<Prepared, StorageError> {
    let name = segment_name(number);
    let temporary = format!("{name}{TEMPORARY}");
    let bytes = origin.bytes;
    let layout = Layout::V2 { stream: 0, block_log2: origin.block_log2, store: origin.store };
    let header = SegmentHeader { number, salt: fresh_salt(number), bytes, layout };
    let mut head = header.encode();
    let file = match spare {
        Some(spare) => {
            // The old name must be gone for good before its header is.
            disk.rename(spare, &temporary)?;
            disk.sync_dir()?;
            head.resize((DATA_START + (1 << origin.block_log2)).min(bytes) as usize, 0);
            disk.open(&temporary)?
        }
        None => {
            let file = disk.create(&temporary, bytes)?;
            let zeros = vec![0; ZEROS.min(bytes as usize)];
            let mut at = 0;
            while at < bytes {
                let n = (bytes - at).min(zeros.len() as u64);
                file.write_at(at, &zeros[..n as usize])?;
                at += n;
            }
            file
        }
    };
    file.write_at(0, &head)?;
    file.sync_data()?;
    drop(file);
    disk.rename(&temporary, &name)?;
    disk.sync_dir()?;
    Ok(Prepared { segment: Segment::new(header, Arc::clone(files)), file: disk.open(&name)? })
}

/// Removes whatever a failed attempt has left, as far as that works: it may hold the space that was missing. The next
/// attempt begins with changes of the directory of its own, so that a sync of it covers them.
fn clear_away(disk: &dyn Disk, number: u64, spare: Option<String>) {
    let name = segment_name(number);
    for left in [Some(format!("{name}{TEMPORARY}")), Some(name), spare].into_iter().flatten() {
        // Most of them are not there, and to look would take a descriptor. One that stays is in the way of the next
        // attempt, which tells.
        let _ = disk.remove(&left);
    }
}

/// What is to be done, and what is done.
struct Queue {
    next_number: u64,
    /// Files that are to be ready at any time.
    ahead: usize,
    ready: VecDeque<Prepared>,
    /// Names of old files that nobody needs, to be recycled.
    spares: Vec<String>,
    /// A file that is ready but for the manifest, which could not be changed. It must not be removed: what the disk holds of the manifest
    /// may name it.
    unnamed: Option<Prepared>,
    /// Names of files to remove.
    removals: Vec<String>,
    /// Why the last attempt failed, unless something has changed since.
    trouble: Option<StorageError>,
    failures: u32,
    pause_until: Option<Instant>,
    /// What is still to do is left undone: the next start deals with it.
    stop: bool,
    ended: bool,
}

struct Shared {
    disk: Arc<dyn Disk>,
    files: Arc<OpenFiles>,
    manifest: Arc<SharedManifest>,
    origin: Origin,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Prepares files in order of number, on a thread of its own or when asked.
pub(crate) struct Preparer {
    shared: Arc<Shared>,
    keep_spare: usize,
    patience: Duration,
    worker: Option<JoinHandle<()>>,
}

impl Preparer {
    /// Prepares files from `next_number` on. A thread begins at once.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        files: Arc<OpenFiles>,
        manifest: Arc<SharedManifest>,
        next_number: u64,
        options: &SegmentLogOptions,
    ) -> Result<Preparer, StorageError> {
        let origin = Origin::new(manifest.get().store, options);
        let queue = Queue {
            next_number,
            ahead: options.prepared_files,
            ready: VecDeque::new(),
            spares: Vec::new(),
            unnamed: None,
            removals: Vec::new(),
            trouble: None,
            failures: 0,
            pause_until: None,
            stop: false,
            ended: false,
        };
        let (queue, changed) = (Mutex::new(queue), Condvar::new());
        let shared = Arc::new(Shared { disk, files, manifest, origin, queue, changed });
        let worker = if options.background { Some(start(&shared)?) } else { None };
        Ok(Preparer {
            shared,
            keep_spare: options.recycled_files,
            patience: options.prepare_patience,
            worker,
        })
    }

    /// Where segment files are opened for reading.
    pub(crate) fn files(&self) -> &Arc<OpenFiles> {
        &self.shared.files
    }

    /// Files that can be taken without waiting.
    pub(crate) fn ready(&self) -> usize {
        self.shared.queue.lock().ready.len()
    }

    /// Files that can be taken even if the disk gives no more space; `None` while there is no reason to doubt that it
    /// does.
    pub(crate) fn last_files(&self) -> Option<usize> {
        let queue = self.shared.queue.lock();
        queue.trouble.as_ref().filter(|trouble| is_full(trouble)).map(|_| queue.ready.len())
    }

    /// Makes files until enough are ahead, or one cannot be made; a thread does so by itself.
    pub(crate) fn top_up(&mut self) {
        if self.worker.is_some() {
            return;
        }
        self.remove_queued();
        while self.shared.is_short() && self.shared.attempt() {}
    }

    /// The file with the lowest number; waits until it is ready.
    ///
    /// # Errors
    /// [`StorageError::NoRoom`] when there is no space for one, any other when none could be made within the
    /// patience that was set.
    pub(crate) fn take(&mut self) -> Result<Prepared, StorageError> {
        if self.worker.is_some() { self.wait_for_one() } else { self.make_one() }
    }

    fn make_one(&mut self) -> Result<Prepared, StorageError> {
        self.remove_queued();
        for attempt in 0.. {
            let mut queue = self.shared.queue.lock();
            if let Some(next) = queue.ready.pop_front() {
                return Ok(next);
            }
            match &queue.trouble {
                Some(trouble) if attempt > 0 && is_full(trouble) => return Err(no_room(trouble)),
                Some(trouble) if attempt == INLINE_ATTEMPTS => return Err(trouble.clone()),
                _ => {}
            }
            drop(queue);
            self.shared.attempt();
        }
        Err(ended())
    }

    fn wait_for_one(&mut self) -> Result<Prepared, StorageError> {
        let deadline = Instant::now() + self.patience;
        let mut queue = self.shared.queue.lock();
        loop {
            if let Some(next) = queue.ready.pop_front() {
                self.shared.changed.notify_all();
                return Ok(next);
            }
            match &queue.trouble {
                Some(trouble) if is_full(trouble) => return Err(no_room(trouble)),
                Some(trouble) if Instant::now() >= deadline => return Err(trouble.clone()),
                _ if queue.ended => return Err(ended()),
                // Without trouble it is only slow.
                None => self.shared.changed.wait(&mut queue),
                Some(_) => drop(self.shared.changed.wait_until(&mut queue, deadline)),
            }
        }
    }

    /// Takes in an old file of `bytes` bytes that nobody needs: it is recycled, or removed when there are enough.
    pub(crate) fn give(&mut self, name: String, bytes: u64) {
        let mut queue = self.shared.queue.lock();
        if bytes == self.shared.origin.bytes && queue.spares.len() < self.keep_spare {
            queue.spares.push(name);
            queue.try_again();
        } else {
            queue.removals.push(name);
        }
        self.shared.changed.notify_all();
        drop(queue);
        if self.worker.is_none() {
            self.remove_queued();
        }
    }

    fn remove_queued(&self) {
        let mut queue = self.shared.queue.lock();
        while self.shared.remove_one(&mut queue) {}
    }
}

fn is_full(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { kind: IoKind::Full, .. })
}

fn no_room(trouble: &StorageError) -> StorageError {
    StorageError::NoRoom(trouble.to_string())
}

fn ended() -> StorageError {
    StorageError::Poisoned("the thread that prepares files has ended".to_owned())
}

impl Queue {
    /// What went wrong may go better now.
    fn try_again(&mut self) {
        self.trouble = None;
        self.pause_until = None;
    }
}

impl Shared {
    fn is_short(&self) -> bool {
        let queue = self.queue.lock();
        queue.ready.len() < queue.ahead
    }

    /// Tries once to make the next file; says whether it worked.
    fn attempt(&self) -> bool {
        let unnamed = self.queue.lock().unnamed.take();
        let made = unnamed.map_or_else(|| self.make(), Ok).and_then(|prepared| self.name(prepared));
        let mut queue = self.queue.lock();
        let worked = made.is_ok();
        match made {
            Ok(next) => {
                if queue.failures > 0 {
                    tracing::info!(attempts = queue.failures, "log files can be prepared again");
                }
                queue.next_number += 1;
                queue.ready.push_back(next);
                queue.failures = 0;
                queue.try_again();
            }
            Err(error) => {
                queue.failures = queue.failures.saturating_add(1);
                // One line a doubling is enough for a trouble that stays.
                if queue.failures.is_power_of_two() {
                    tracing::warn!(
                        %error,
                        attempts = queue.failures,
                        ready = queue.ready.len(),
                        "a log file cannot be prepared; it is tried again"
                    );
                }
                let pause = FIRST_PAUSE.saturating_mul(1 << (queue.failures - 1).min(16));
                queue.pause_until = Some(Instant::now() + pause.min(LONGEST_PAUSE));
                queue.trouble = Some(error);
            }
        }
        self.changed.notify_all();
        worked
    }

    /// Makes the next file, of an old one when there is one.
    fn make(&self) -> Result<Prepared, StorageError> {
        let (number, spare) = {
            let mut queue = self.queue.lock();
            (queue.next_number, queue.spares.pop())
        };
        if let Some(spare) = &spare
            && let Err(error) = self.forget(spare)
        {
            // Nothing has happened to it, and the manifest may name it yet.
            self.queue.lock().spares.push(spare.clone());
            return Err(error);
        }
        let made = prepare(&*self.disk, &self.files, &self.origin, number, spare.as_deref());
        if made.is_err() {
            clear_away(&*self.disk, number, spare);
        }
        made
    }

    /// Has the manifest name a file: from then on it must be there.
    fn name(&self, prepared: Prepared) -> Result<Prepared, StorageError> {
        let header = &prepared.segment.header;
        let file = ManifestFile { number: header.number, salt: header.salt, bytes: header.bytes, version: 2 };
        match self.manifest.change(&*self.disk, |manifest| manifest.add(file)) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                self.queue.lock().unnamed = Some(prepared);
                Err(error)
            }
        }
    }

    /// Takes a file out of the manifest: from then on it may be gone.
    fn forget(&self, name: &str) -> Result<(), StorageError> {
        match segment_number(name) {
            Some(number) => self.manifest.change(&*self.disk, |manifest| manifest.remove(number)),
            None => Ok(()),
        }
    }

    /// Removes one of the files that are to be removed.
    fn remove_one(&self, queue: &mut MutexGuard<'_, Queue>) -> bool {
        let Some(name) = queue.removals.pop() else { return false };
        // Nothing depends on it: what stays is dealt with at the next start.
        let remove = || self.forget(&name).and_then(|()| self.disk.remove(&name));
        if let Err(error) = MutexGuard::unlocked(queue, remove) {
            tracing::warn!(%error, "a freed segment file stays until the next start");
        } else if queue.trouble.as_ref().is_some_and(is_full) {
            queue.try_again();
        }
        true
    }

    fn work(&self) {
        let mut queue = self.queue.lock();
        while !queue.stop {
            if self.remove_one(&mut queue) {
                continue;
            }
            match queue.pause_until {
                _ if queue.ready.len() >= queue.ahead => self.changed.wait(&mut queue),
                Some(until) if until > Instant::now() => drop(self.changed.wait_until(&mut queue, until)),
                _ => {
                    MutexGuard::unlocked(&mut queue, || self.attempt());
                }
            }
        }
    }
}

/// Tells whoever waits that nothing comes any more, also after a panic.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.queue.lock().ended = true;
        self.0.changed.notify_all();
    }
}

fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>, StorageError> {
    let ended = Ended(Arc::clone(shared));
    std::thread::Builder::new()
        .name("log-prepare".to_owned())
        .spawn(move || ended.0.work())
        .map_err(|e| io_error("start thread", "log-prepare", &e))
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.shared.queue.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.worker.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that prepares segment files panicked");
        }
    }
}
