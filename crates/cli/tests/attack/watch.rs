//! What the processes use: memory and descriptors at their highest, lines that they log.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often descriptors are counted.
const PERIOD: Duration = Duration::from_millis(250);

/// Watches processes until it is asked.
pub struct Watch {
    pids: Vec<u32>,
    stop: Arc<AtomicBool>,
    descriptors: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// The highest of all watched processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// Resident memory in MiB.
    pub rss_mib: u64,
    /// Open files and sockets.
    pub descriptors: u64,
}

impl Watch {
    /// Begins; peaks of before do not count.
    pub fn start(pids: Vec<u32>) -> Watch {
        for pid in &pids {
            // Where the kernel does not let it, the peak is that of the whole life.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        let (stop, descriptors) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (pids, stop, descriptors) = (pids.clone(), Arc::clone(&stop), Arc::clone(&descriptors));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let most = pids.iter().map(|pid| open_files(*pid)).max().unwrap_or(0);
                    descriptors.fetch_max(most, Ordering::Relaxed);
                    std::thread::park_timeout(PERIOD);
                }
            }
        });
        Watch { pids, stop, descriptors, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Peak {
        let rss_mib = self.pids.iter().map(|pid| memory_mib(*pid, "VmHWM:")).max().unwrap_or(0);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // Its panic, if any, has been reported.
        let _ = self.thread.join();
        Peak { rss_mib, descriptors: self.descriptors.load(Ordering::Relaxed) }
    }
}

fn open_files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// A number of `/proc/PID/status` in MiB: `VmHWM:` or `VmRSS:`; 0 for a process that is gone.
pub fn memory_mib(pid: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Ends of logs, to see what comes after.
pub struct Logs(Vec<(PathBuf, u64)>);

/// What one log got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logged {
    pub lines: u64,
    /// Lines of level WARN or ERROR.
    pub warnings: u64,
    /// Bytes 0x1b: escape codes that were not escaped.
    pub escapes: u64,
    /// Lines that begin with [`FORGED`].
    pub forged: u64,
}

/// What a stranger would like to find at the beginning of a line.
pub const FORGED: &[u8] = b"FORGED";

impl Logs {
    /// The ends now.
    pub fn mark(paths: impl IntoIterator<Item = PathBuf>) -> Logs {
        let len = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        Logs(paths.into_iter().map(|path| (path.clone(), len(&path))).collect())
    }

    /// The worst of what came since.
    pub fn since(&self) -> Logged {
        let mut worst = Logged::default();
        for (path, from) in &self.0 {
            let logged = read(path, *from).unwrap_or_default();
            worst.lines = worst.lines.max(logged.lines);
            worst.warnings = worst.warnings.max(logged.warnings);
            worst.escapes = worst.escapes.max(logged.escapes);
            worst.forged = worst.forged.max(logged.forged);
        }
        worst
    }
}

fn read(path: &Path, from: u64) -> std::io::Result<Logged> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut logged = Logged::default();
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        logged.lines += 1;
        let level = |word: &[u8]| line.windows(word.len()).take(60).any(|part| part == word);
        logged.warnings += u64::from(level(b" WARN ") || level(b"ERROR "));
        logged.escapes += line.iter().filter(|byte| **byte == 0x1b).count() as u64;
        logged.forged += u64::from(line.starts_with(FORGED));
    }
    Ok(logged)
}
