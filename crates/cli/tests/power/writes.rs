//! Writes that are each looked for afterwards: every key is set once, so that no later write hides one that is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringraft_atomic::{AtomicClient, ClientError, ReadFrom, ReadMode};

/// Clients that write, and that read back, at the same time.
const CLIENTS: usize = 16;
/// Longest key in bytes: batches have many sizes, and files fill.
const LONGEST_KEY: usize = 1500;
/// How long a read may be tried again.
const READ_LIMIT: Duration = Duration::from_secs(15);
/// Pause after a refusal.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// A write that was acknowledged: the key, and what it was set to.
pub(crate) type Write = (String, i64);

/// Clients that write until they are stopped.
pub(crate) struct Writes {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Write>>>,
}

impl Writes {
    /// Starts them; `round` must be another one each time.
    pub(crate) fn start(client: &Arc<AtomicClient>, round: usize) -> Writes {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let write = |writer: usize| {
            let (client, stop, acked) = (Arc::clone(client), Arc::clone(&stop), Arc::clone(&acked));
            std::thread::spawn(move || write(&client, (round, writer), &stop, &acked))
        };
        let threads = (0..CLIENTS).map(write).collect();
        Writes { stop, acked, threads }
    }

    /// How many were acknowledged so far.
    pub(crate) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Stops the clients and gives what was acknowledged to them.
    pub(crate) fn finish(self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    }
}

fn write(
    client: &AtomicClient,
    (round, writer): (usize, usize),
    stop: &AtomicBool,
    acked: &AtomicU64,
) -> Vec<Write> {
    let mut writes = Vec::new();
    for number in 0_i64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut key = format!("{number}/{writer}/{round}/");
        // Lengths without a pattern: the numbers of a step that has no divisor in common with the range.
        let length = (number as usize * 611 + writer * 97) % LONGEST_KEY;
        key.extend(std::iter::repeat_n('k', length.saturating_sub(key.len())));
        match client.set(&key, number) {
            Ok(()) => {
                writes.push((key, number));
                acked.fetch_add(1, Ordering::Relaxed);
            }
            // Whatever became of it, the key is not used again.
            Err(ClientError::Unknown(_)) => {}
            Err(_) => std::thread::sleep(REFUSED_PAUSE),
        }
    }
    writes
}

/// Reads writes back through a quorum; what is wrong with those that are lost or cannot be read.
pub(crate) fn read_back(client: &AtomicClient, writes: &[Write]) -> Vec<String> {
    let wrong = Mutex::new(Vec::new());
    let deadline = Instant::now() + READ_LIMIT + Duration::from_millis(writes.len() as u64);
    std::thread::scope(|scope| {
        for part in writes.chunks(writes.len().div_ceil(CLIENTS).max(1)) {
            let wrong = &wrong;
            scope.spawn(move || {
                let found = part.iter().filter_map(|write| look_for(client, write, deadline));
                let found: Vec<String> = found.collect();
                wrong.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(found);
            });
        }
    });
    wrong.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn look_for(client: &AtomicClient, (key, value): &Write, deadline: Instant) -> Option<String> {
    let name = key.trim_end_matches('k');
    loop {
        match client.get(key, ReadMode::Quorum { from: ReadFrom::Leader, lease: false }) {
            Ok(Some(read)) if read == *value => return None,
            Ok(read) => return Some(format!("{name} was set to {value}, {read:?} was read")),
            Err(error) if Instant::now() > deadline => {
                return Some(format!("{name} cannot be read: {error}"));
            }
            Err(_) => std::thread::sleep(REFUSED_PAUSE),
        }
    }
}
