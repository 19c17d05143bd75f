//! Makes empty segment files ahead of the stream: written with zeros or recycled, each life with a fresh salt.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::format::{DATA_START, SegmentHeader, segment_name};
use super::index::Segment;
use crate::disk::{Disk, DiskFile, io_error};
use crate::traits::StorageError;

/// Bytes of zeros written at once.
const ZEROS: usize = 1 << 20;

/// Name of a file that is being prepared; such files mean nothing at start.
pub(crate) const TEMPORARY: &str = ".tmp";

/// A number that no earlier life of any file had, as far as chance goes.
fn fresh_salt(number: u64) -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(number);
    hasher.finish()
}

/// An old file whose bytes nobody needs any more.
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Makes segment file `number`. It gets its final name last, so that a file with such a name always has a
/// durable header of its own.
pub(crate) fn prepare(
    disk: &dyn Disk,
    number: u64,
    bytes: u64,
    spare: Option<Spare>,
) -> Result<Arc<Segment>, StorageError> {
    let name = segment_name(number);
    let temporary = format!("{name}{TEMPORARY}");
    let header = SegmentHeader { number, salt: fresh_salt(number), bytes };
    let mut head = header.encode();
    let file = match spare {
        Some(spare) => {
            // The old name must be gone for good before its header is.
            disk.rename(&spare.name, &temporary)?;
            disk.sync_dir()?;
            head.resize(DATA_START as usize * 2, 0);
            spare.file
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
    disk.rename(&temporary, &name)?;
    disk.sync_dir()?;
    Ok(Segment::new(header, name, file))
}

enum Job {
    Prepare { number: u64, bytes: u64, spare: Option<Spare> },
    Remove(String),
}

struct Worker {
    /// `None` once the thread was told to end.
    jobs: Option<Sender<Job>>,
    ready: Receiver<Result<Arc<Segment>, StorageError>>,
    /// What is still to do is left undone: the next start deals with it.
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Prepares files in order of number, on a thread of its own or when asked.
pub(crate) struct Preparer {
    disk: Arc<dyn Disk>,
    next_number: u64,
    bytes: u64,
    /// Files asked for and not taken yet.
    asked: usize,
    inline: VecDeque<Arc<Segment>>,
    worker: Option<Worker>,
}

impl Preparer {
    /// Prepares files of `bytes` from `next_number` on.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        next_number: u64,
        bytes: u64,
        background: bool,
    ) -> Result<Preparer, StorageError> {
        let worker = if background { Some(Worker::start(Arc::clone(&disk))?) } else { None };
        Ok(Preparer { disk, next_number, bytes, asked: 0, inline: VecDeque::new(), worker })
    }

    /// Files that are ready or on their way.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// Whether a request costs the caller nothing.
    pub(crate) fn in_background(&self) -> bool {
        self.worker.is_some()
    }

    /// Asks for the next file, made of `spare` when one is given.
    pub(crate) fn request(&mut self, spare: Option<Spare>) -> Result<(), StorageError> {
        let number = self.next_number;
        match &self.worker {
            Some(worker) => worker.send(Job::Prepare { number, bytes: self.bytes, spare })?,
            None => self.inline.push_back(prepare(&*self.disk, number, self.bytes, spare)?),
        }
        self.next_number += 1;
        self.asked += 1;
        Ok(())
    }

    /// The file with the lowest number that was asked for; waits until it is ready.
    pub(crate) fn take(&mut self) -> Result<Arc<Segment>, StorageError> {
        if self.asked == 0 {
            self.request(None)?;
        }
        self.asked -= 1;
        match &self.worker {
            Some(worker) => worker.ready.recv().map_err(|_| ended())?,
            None => self.inline.pop_front().ok_or_else(ended),
        }
    }

    /// Removes a file that nobody needs.
    pub(crate) fn remove(&mut self, name: String) -> Result<(), StorageError> {
        match &self.worker {
            Some(worker) => worker.send(Job::Remove(name)),
            None => self.disk.remove(&name),
        }
    }
}

fn ended() -> StorageError {
    StorageError::Poisoned("the thread that prepares files has ended".to_owned())
}

impl Worker {
    fn start(disk: Arc<dyn Disk>) -> Result<Worker, StorageError> {
        let (jobs, inbox) = channel::<Job>();
        let (outbox, ready) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("log-prepare".to_owned())
            .spawn(move || {
                for job in inbox {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    match job {
                        Job::Prepare { number, bytes, spare } => {
                            if outbox.send(prepare(&*disk, number, bytes, spare)).is_err() {
                                return;
                            }
                        }
                        // Nothing depends on it: what stays is removed at the next start.
                        Job::Remove(name) => {
                            if let Err(error) = disk.remove(&name) {
                                tracing::warn!(%error, "a freed segment file stays until the next start");
                            }
                        }
                    }
                }
            })
            .map_err(|e| io_error("start thread", "log-prepare", &e))?;
        Ok(Worker { jobs: Some(jobs), ready, stop, thread: Some(thread) })
    }

    fn send(&self, job: Job) -> Result<(), StorageError> {
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(ended)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that prepares segment files panicked");
        }
    }
}
