//! Log lines on their way to stderr: best effort, and nobody waits for it.
//!
//! Whoever reads stderr may be gone, its disk full, or the pipe stalled because the reader sleeps. A write to a stalled pipe blocks for
//! as long as it likes, and the threads that log are those of the engine. So they put lines into a bounded queue, and one thread writes
//! them. What does not fit is dropped and counted; what cannot be written is dropped.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait at most. A line that comes while fewer wait is taken whole.
const QUEUE_BYTES: usize = 1 << 20;

/// How long the end of the program waits for lines to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// The thread is writing what it has taken.
    writing: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// The queue has got its first line, or the last was written.
    moved: Condvar,
}

/// Where log lines go; clones share one queue.
#[derive(Clone, Default)]
pub struct LineWriter(Arc<Shared>);

/// The queue of this program's log.
static OF_PROGRAM: OnceLock<LineWriter> = OnceLock::new();

impl LineWriter {
    /// A queue that is written to `out` by a thread of its own, and flushed by [`flush`].
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<LineWriter> {
        let writer = LineWriter::default();
        let of_thread = writer.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || of_thread.run(out))?;
        let _ = OF_PROGRAM.set(writer.clone());
        Ok(writer)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut out: impl Write) {
        loop {
            let (lines, dropped) = self.take();
            for line in lines {
                // An interrupted write is repeated by `write_all`; any other error costs this line.
                let _ = out.write_all(&line);
            }
            if dropped > 0 {
                let line =
                    format!("{dropped} log lines were dropped: they came faster than stderr takes them\n");
                let _ = out.write_all(line.as_bytes());
            }
            let _ = out.flush();
            self.lock().writing = false;
            self.0.moved.notify_all();
        }
    }

    /// Waits for lines and takes them all, with the number of those that did not fit.
    fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let mut queue = self.lock();
        while queue.lines.is_empty() {
            queue = self.0.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        (queue.writing, queue.bytes) = (true, 0);
        (std::mem::take(&mut queue.lines), std::mem::take(&mut queue.dropped))
    }

    /// Puts a line into the queue if there is room. Never blocks on the reader.
    pub fn put(&self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let mut queue = self.lock();
        if queue.bytes >= QUEUE_BYTES {
            queue.dropped += 1;
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        drop(queue);
        self.0.moved.notify_all();
    }

    /// Waits until everything is written, for a limited time: the reader may sleep for ever.
    fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut queue = self.lock();
        while queue.writing || !queue.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.moved.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Writes a line to stderr behind the log lines, as they are: whoever says why the program ends must not hang on it.
pub fn say(line: &str) {
    match OF_PROGRAM.get() {
        Some(writer) => writer.put(format!("{line}\n").as_bytes()),
        None => eprintln!("{line}"),
    }
}

/// Gives the program's log lines a moment to be written; for the end of the program.
pub fn flush() {
    if let Some(writer) = OF_PROGRAM.get() {
        writer.flush(FLUSH_LIMIT);
    }
}

/// One event's line, put into the queue when it is complete.
pub struct Line(LineWriter, Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.put(&self.1);
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.clone(), Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Waits for leave before each write, and tells what it was given.
    struct Gate {
        leave: mpsc::Receiver<io::Result<()>>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let leave = self.leave.recv().unwrap_or(Ok(()));
            leave?;
            // Nobody listens at the end of a test.
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (LineWriter, mpsc::Sender<io::Result<()>>, mpsc::Receiver<Vec<u8>>) {
        let ((open, leave), (written, lines)) = (mpsc::channel(), mpsc::channel());
        (LineWriter::start(Gate { leave, written }).unwrap(), open, lines)
    }

    #[test]
    fn nobody_waits_for_a_reader_that_sleeps_and_what_is_dropped_is_counted() {
        let (writer, open, lines) = gate();
        let line = vec![b'x'; 1000];
        // Many times what the queue holds, while nothing is written.
        for _ in 0..5000 {
            writer.put(&line);
        }
        writer.flush(Duration::from_millis(1));
        drop(open);
        writer.flush(PATIENCE);
        let written: Vec<Vec<u8>> = lines.try_iter().collect();
        let whole = written.iter().filter(|written| **written == line).count();
        let told = written
            .iter()
            .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(" log lines were dropped"));
        let told: usize = told.map(|(count, _)| count.parse::<usize>().unwrap()).sum();
        assert_eq!(whole + told, 5000);
        assert!((QUEUE_BYTES / 1000..=2 * QUEUE_BYTES / 1000 + 2).contains(&whole), "{whole} lines are kept");
    }

    #[test]
    fn a_line_that_cannot_be_written_costs_that_line() {
        let (writer, open, lines) = gate();
        let error = |kind: io::ErrorKind| Err(io::Error::from(kind));
        for (line, result) in [
            ("one", error(io::ErrorKind::StorageFull)),
            ("two", error(io::ErrorKind::BrokenPipe)),
            ("three", Ok(())),
        ] {
            writer.put(line.as_bytes());
            open.send(result).unwrap();
            writer.flush(PATIENCE);
        }
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), b"three");
    }
}
