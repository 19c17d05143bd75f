//! Frames on their way to one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use ringraft_proto::OutFrame;

use crate::metrics::NetMetrics;
use crate::socket::Socket;

/// Parts below this many bytes are copied together. Below it a copy costs less than one more slice of a vectored
/// write, and it lets the part's own memory go.
const COALESCE_BELOW: usize = 2048;

/// Slices of one vectored write.
const MAX_SLICES: usize = 64;

/// The bounded outbound queue of a connection.
///
/// Two locks: whoever queues holds `queue` for moments and never waits for a system call; whoever flushes holds
/// `writer` while it writes. A flush that meets another one leaves its work to it.
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    writer: Mutex<Writer>,
    /// A flush was asked for; the holder of `writer` looks again before it leaves.
    wanted: AtomicBool,
    /// The socket has room again.
    writable: AtomicBool,
    /// Bytes queued and not taken by the socket, to make an idle flush free.
    waiting: AtomicUsize,
    /// There is room again after a frame was refused: to be told once.
    room: AtomicBool,
    max_bytes: usize,
    max_frames: usize,
    meter: Arc<Meter>,
    at_meter: AtMeter,
}

/// Bytes that wait in many outboxes together.
#[derive(Debug)]
pub(crate) struct Meter {
    waiting: AtomicUsize,
    max: usize,
}

impl Meter {
    pub(crate) fn new(max: usize) -> Arc<Meter> {
        Arc::new(Meter { waiting: AtomicUsize::new(0), max })
    }

    /// Whether more waits than may.
    pub(crate) fn is_over(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.max
    }

    fn add(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What an outbox does when its meter is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtMeter {
    /// Refuses unless it is empty: for requests, which are repeated.
    Refuse,
    /// Takes nevertheless: for answers, which cannot be left out. The loop closes whoever reads too little.
    Take,
}

struct Queue {
    parts: Vec<Part>,
    /// Small parts in one piece, behind `parts`.
    small: BytesMut,
    small_frames: usize,
    /// Of everything the socket has not taken, what the writer holds included.
    bytes: usize,
    frames: usize,
    closed: bool,
    /// A frame was refused since there was room last.
    refused: bool,
}

struct Writer {
    parts: VecDeque<Part>,
    blocked: bool,
}

struct Part {
    bytes: Bytes,
    /// How many frames end in it.
    frames: usize,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    Closed,
}

impl Outbox {
    pub(crate) fn new(max_bytes: usize, max_frames: usize, meter: Arc<Meter>, at_meter: AtMeter) -> Self {
        Self {
            queue: Mutex::new(Queue {
                parts: Vec::new(),
                small: BytesMut::new(),
                small_frames: 0,
                bytes: 0,
                frames: 0,
                closed: false,
                refused: false,
            }),
            writer: Mutex::new(Writer { parts: VecDeque::new(), blocked: false }),
            wanted: AtomicBool::new(false),
            writable: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            room: AtomicBool::new(false),
            max_bytes,
            max_frames,
            meter,
            at_meter,
        }
    }

    /// Queues a frame whole or not at all. A frame larger than the bound passes when nothing else waits.
    pub(crate) fn push(&self, frame: OutFrame) -> Result<(), PushError> {
        let len = frame.len();
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(PushError::Closed);
        }
        let metered = self.at_meter == AtMeter::Refuse && self.meter.is_over();
        if queue.frames >= self.max_frames
            || (queue.bytes > 0 && (metered || queue.bytes + len > self.max_bytes))
        {
            queue.refused = true;
            return Err(PushError::Full);
        }
        if len == 0 {
            return Ok(());
        }
        queue.bytes += len;
        self.meter.add(len);
        queue.frames += 1;
        self.waiting.store(queue.bytes, Ordering::Relaxed);
        for part in frame.parts {
            if part.len() < COALESCE_BELOW {
                queue.small.extend_from_slice(&part);
            } else {
                queue.seal();
                queue.parts.push(Part { bytes: part, frames: 0 });
            }
        }
        let queue = &mut *queue;
        match queue.parts.last_mut() {
            Some(last) if queue.small.is_empty() => last.frames += 1,
            _ => queue.small_frames += 1,
        }
        Ok(())
    }

    /// Sends as much as the socket takes. When another thread is at it, that thread does this work too.
    pub(crate) fn flush(&self, socket: &impl Socket, metrics: &NetMetrics) -> io::Result<()> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        self.wanted.store(true, Ordering::Relaxed);
        loop {
            // Either this sees the lock free, or its holder sees `wanted` after the release: hence both fences.
            fence(Ordering::SeqCst);
            let Some(mut writer) = self.writer.try_lock() else { return Ok(()) };
            while self.wanted.swap(false, Ordering::AcqRel) {
                self.drain(&mut writer, socket, metrics)?;
            }
            drop(writer);
            fence(Ordering::SeqCst);
            if !self.wanted.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// The socket reported room: writes what waits.
    pub(crate) fn on_writable(&self, socket: &impl Socket, metrics: &NetMetrics) -> io::Result<()> {
        self.writable.store(true, Ordering::Release);
        self.flush(socket, metrics)
    }

    /// Whether there is room again after a frame was refused; true once each time.
    pub(crate) fn take_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) && self.room.swap(false, Ordering::Acquire)
    }

    /// Takes nothing any more and drops what waits.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.parts = Vec::new();
        queue.small = BytesMut::new();
        self.meter.sub(std::mem::take(&mut queue.bytes));
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().bytes
    }

    fn drain(&self, writer: &mut Writer, socket: &impl Socket, metrics: &NetMetrics) -> io::Result<()> {
        if self.writable.swap(false, Ordering::AcqRel) {
            writer.blocked = false;
        }
        // Only the writable edge can change that; trying before it is a wasted system call.
        if writer.blocked {
            return Ok(());
        }
        let mut bytes = 0;
        let mut frames = 0;
        loop {
            {
                let mut queue = self.queue.lock();
                if queue.closed {
                    // Nothing of it counts any more.
                    writer.parts.clear();
                    return Ok(());
                }
                queue.bytes -= bytes;
                queue.frames -= frames;
                self.meter.sub(bytes);
                self.waiting.store(queue.bytes, Ordering::Relaxed);
                if queue.refused && queue.bytes <= self.max_bytes / 2 && queue.frames <= self.max_frames / 2 {
                    queue.refused = false;
                    self.room.store(true, Ordering::Release);
                }
                if writer.blocked {
                    return Ok(());
                }
                queue.seal();
                writer.parts.extend(queue.parts.drain(..));
            }
            if writer.parts.is_empty() {
                return Ok(());
            }
            (bytes, frames) = writer.write(socket, metrics)?;
            NetMetrics::add(&metrics.frames_out, frames as u64);
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    /// Makes the small parts so far one part, because a large one follows or the writer comes.
    fn seal(&mut self) {
        if !self.small.is_empty() {
            let bytes = self.small.split().freeze();
            self.parts.push(Part { bytes, frames: std::mem::take(&mut self.small_frames) });
        }
    }
}

impl Writer {
    /// Writes until all is gone or the socket is full. Returns the bytes written and the frames completed.
    fn write(&mut self, socket: &impl Socket, metrics: &NetMetrics) -> io::Result<(usize, usize)> {
        let mut bytes = 0;
        let mut frames = 0;
        while !self.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(&part.bytes);
                count += 1;
            }
            let n = match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            NetMetrics::add(&metrics.writes, 1);
            NetMetrics::add(&metrics.bytes_out, n as u64);
            bytes += n;
            frames += self.consume(n);
        }
        Ok((bytes, frames))
    }

    fn consume(&mut self, mut n: usize) -> usize {
        let mut frames = 0;
        while let Some(front) = self.parts.front_mut() {
            if n < front.bytes.len() {
                front.bytes.advance(n);
                break;
            }
            n -= front.bytes.len();
            frames += front.frames;
            self.parts.pop_front();
        }
        frames
    }
}

#[cfg(test)]
mod tests;
