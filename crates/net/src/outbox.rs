//! Frames on their way to one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
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
    pub(crate) fn new(max_bytes: usize, max_frames: usize) -> Self {
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
        }
    }

    /// Queues a frame whole or not at all. A frame larger than the bound passes when nothing else waits.
    pub(crate) fn push(&self, frame: OutFrame) -> Result<(), PushError> {
        let len = frame.len();
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(PushError::Closed);
        }
        if queue.frames >= self.max_frames || (queue.bytes > 0 && queue.bytes + len > self.max_bytes) {
            queue.refused = true;
            return Err(PushError::Full);
        }
        if len == 0 {
            return Ok(());
        }
        queue.bytes += len;
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
    }

    /// Bytes that wait.
    #[cfg(test)]
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
                queue.bytes -= bytes;
                queue.frames -= frames;
                self.waiting.store(queue.bytes, Ordering::Relaxed);
                if queue.refused && queue.bytes <= self.max_bytes / 2 && queue.frames <= self.max_frames / 2 {
                    queue.refused = false;
                    self.room.store(true, Ordering::Release);
                }
                if queue.closed {
                    writer.parts.clear();
                    return Ok(());
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
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Takes `room` bytes, then blocks; at most `step` a call.
    struct Trickle {
        out: Mutex<Vec<u8>>,
        room: AtomicUsize,
        step: usize,
        calls: AtomicUsize,
    }

    impl Trickle {
        fn new(room: usize, step: usize) -> Self {
            Self {
                out: Mutex::new(Vec::new()),
                room: AtomicUsize::new(room),
                step,
                calls: AtomicUsize::new(0),
            }
        }
    }

    impl Socket for Trickle {
        fn read(&self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let room = self.room.load(Ordering::Relaxed).min(self.step);
            if room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut out = self.out.lock();
            let mut n = 0;
            for slice in slices {
                let take = slice.len().min(room - n);
                out.extend_from_slice(&slice[..take]);
                n += take;
            }
            self.room.fetch_sub(n, Ordering::Relaxed);
            Ok(n)
        }

        fn shutdown(&self) {}
    }

    fn frame(parts: &[&[u8]]) -> OutFrame {
        OutFrame { parts: parts.iter().map(|part| Bytes::copy_from_slice(part)).collect() }
    }

    #[test]
    fn partial_writes_keep_order_and_counts() {
        let metrics = NetMetrics::default();
        for step in [1, 7, 100, 2048, 5000, usize::MAX] {
            let outbox = Outbox::new(1 << 20, 100);
            let socket = Trickle::new(usize::MAX, step);
            let mut expected = Vec::new();
            for n in 0..20u8 {
                let small = vec![n; 10 + n as usize];
                let large = vec![100 + n; COALESCE_BELOW + n as usize];
                outbox.push(frame(&[&small, &large, &small])).unwrap();
                outbox.push(frame(&[&small])).unwrap();
                for part in [&small, &large, &small, &small] {
                    expected.extend_from_slice(part);
                }
            }
            assert_eq!(outbox.waiting(), expected.len());
            outbox.flush(&socket, &metrics).unwrap();
            assert_eq!(*socket.out.lock(), expected, "step {step}");
            let queue = outbox.queue.lock();
            assert_eq!((queue.bytes, queue.frames, queue.small_frames), (0, 0, 0));
        }
    }

    #[test]
    fn small_frames_leave_in_one_slice() {
        let outbox = Outbox::new(1 << 20, 1000);
        for n in 0..200u8 {
            outbox.push(frame(&[&[n; 30], &[n; 16]])).unwrap();
        }
        outbox.queue.lock().seal();
        assert_eq!(outbox.queue.lock().parts.len(), 1);
    }

    #[test]
    fn a_full_outbox_takes_nothing_until_bytes_have_left() {
        let metrics = NetMetrics::default();
        let outbox = Outbox::new(1000, 100);
        let socket = Trickle::new(0, usize::MAX);
        outbox.push(frame(&[&[1; 600]])).unwrap();
        assert_eq!(outbox.push(frame(&[&[2; 600]])), Err(PushError::Full));
        outbox.push(frame(&[&[3; 400]])).unwrap();
        outbox.flush(&socket, &metrics).unwrap();
        assert_eq!(outbox.push(frame(&[&[4; 1]])), Err(PushError::Full));
        // 599 of 600: the frame is not out yet, but its bytes are.
        socket.room.store(599, Ordering::Relaxed);
        outbox.on_writable(&socket, &metrics).unwrap();
        assert_eq!(outbox.waiting(), 401);
        assert!(outbox.take_room(), "more than half has left since a frame was refused");
        assert!(!outbox.take_room(), "told once");
        assert_eq!(outbox.queue.lock().frames, 2);
        outbox.push(frame(&[&[5; 599]])).unwrap();
        socket.room.store(usize::MAX, Ordering::Relaxed);
        outbox.on_writable(&socket, &metrics).unwrap();
        assert_eq!(outbox.waiting(), 0);
        assert!(!outbox.take_room(), "nothing was refused since");
        let sizes = [(1, 600), (3, 400), (5, 599)];
        let expected: Vec<u8> = sizes.iter().flat_map(|&(byte, n)| std::iter::repeat_n(byte, n)).collect();
        assert_eq!(*socket.out.lock(), expected);
    }

    #[test]
    fn the_frame_count_is_bounded_too() {
        let outbox = Outbox::new(1000, 3);
        for _ in 0..3 {
            outbox.push(frame(&[&[0; 10]])).unwrap();
        }
        assert_eq!(outbox.push(frame(&[&[0; 10]])), Err(PushError::Full));
    }

    #[test]
    fn a_frame_above_the_bound_passes_alone() {
        let outbox = Outbox::new(1000, 3);
        outbox.push(frame(&[&[0; 5000]])).unwrap();
        assert_eq!(outbox.push(frame(&[&[0; 1]])), Err(PushError::Full));
    }

    #[test]
    fn a_blocked_socket_is_not_tried_again_before_its_edge() {
        let metrics = NetMetrics::default();
        let outbox = Outbox::new(1000, 30);
        let socket = Trickle::new(0, usize::MAX);
        for _ in 0..5 {
            outbox.push(frame(&[&[0; 10]])).unwrap();
            outbox.flush(&socket, &metrics).unwrap();
        }
        assert_eq!(socket.calls.load(Ordering::Relaxed), 1);
        socket.room.store(usize::MAX, Ordering::Relaxed);
        outbox.on_writable(&socket, &metrics).unwrap();
        assert_eq!(socket.out.lock().len(), 50);
    }

    #[test]
    fn a_closed_outbox_takes_nothing() {
        let outbox = Outbox::new(1000, 30);
        outbox.close();
        assert_eq!(outbox.push(frame(&[&[0; 10]])), Err(PushError::Closed));
    }

    #[test]
    fn flushes_from_many_threads_leave_nothing_behind() {
        let metrics = NetMetrics::default();
        for _ in 0..200 {
            let outbox = Outbox::new(1 << 20, 10_000);
            let socket = Trickle::new(usize::MAX, 64);
            std::thread::scope(|scope| {
                for n in 0..4u8 {
                    let (outbox, socket, metrics) = (&outbox, &socket, &metrics);
                    scope.spawn(move || {
                        for _ in 0..20 {
                            outbox.push(frame(&[&[n; 33]])).unwrap();
                            outbox.flush(socket, metrics).unwrap();
                        }
                    });
                }
            });
            // Every flush has returned, so whichever was last must have seen everything.
            assert_eq!(socket.out.lock().len(), 4 * 20 * 33);
            assert!(socket.out.lock().chunks(33).all(|frame| frame.iter().all(|byte| *byte == frame[0])));
        }
    }
}
