//! Those who attack: what they open, send and hold, in threads that end when they are told.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::attack::frames;

/// How long a stranger waits for a connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks at what a crowd holds.
const LOOK: Duration = Duration::from_millis(500);
/// How long a write may stand still before a stranger looks whether it is to end.
const WRITE_LIMIT: Duration = Duration::from_millis(100);
/// What is written at a time.
const PIECE: usize = 64 << 10;

/// Threads that attack until this is dropped.
pub(crate) struct Strangers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Connections that were opened.
    opened: Arc<AtomicU64>,
    /// Bytes that were sent.
    sent: Arc<AtomicU64>,
}

/// What one thread is given.
#[derive(Clone)]
pub(crate) struct Orders {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
}

impl Strangers {
    /// Nobody yet.
    pub(crate) fn new() -> Strangers {
        Strangers { stop: Arc::default(), threads: Vec::new(), opened: Arc::default(), sent: Arc::default() }
    }

    /// One more, who must look at its orders often.
    pub(crate) fn send(&mut self, stranger: impl FnOnce(&Orders) + Send + 'static) {
        let orders = Orders {
            stop: Arc::clone(&self.stop),
            opened: Arc::clone(&self.opened),
            sent: Arc::clone(&self.sent),
        };
        self.threads.push(std::thread::spawn(move || stranger(&orders)));
    }

    /// Connections that were opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// MiB that were sent so far.
    pub(crate) fn sent_mib(&self) -> u64 {
        self.sent_kib() >> 10
    }

    /// KiB that were sent so far.
    pub(crate) fn sent_kib(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) >> 10
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic, if any, has been reported; the attack was not what it should have been then, and shows as that.
            let _ = thread.join();
        }
    }
}

impl Orders {
    /// Whether it is over.
    pub(crate) fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A connection.
    pub(crate) fn connect(&self, address: SocketAddr) -> Option<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT).ok()?;
        // A write that stands still is tried again.
        stream.set_write_timeout(Some(WRITE_LIMIT)).ok()?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(stream)
    }

    /// Sends everything, however slowly it is taken; false when the connection or the attack is over.
    pub(crate) fn write(&self, mut stream: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.over() {
                return false;
            }
            match stream.write(&bytes[..bytes.len().min(PIECE)]) {
                Ok(0) => return false,
                Ok(n) => {
                    self.sent.fetch_add(n as u64, Ordering::Relaxed);
                    bytes = &bytes[n..];
                }
                Err(error) if is_later(error.kind()) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Waits, or ends early when the attack is over.
    pub(crate) fn pause(&self, time: Duration) {
        let mut left = time;
        while !self.over() && !left.is_zero() {
            let step = left.min(Duration::from_millis(50));
            std::thread::sleep(step);
            left -= step;
        }
    }
}

fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Holds so many connections, each of which says `greeting` once, and opens those again that are closed.
pub(crate) fn crowd(orders: &Orders, address: SocketAddr, size: usize, greeting: &[u8]) {
    let mut held: Vec<TcpStream> = Vec::new();
    while !orders.over() {
        held.retain(is_open);
        for _ in held.len()..size {
            if orders.over() {
                break;
            }
            let Some(stream) = orders.connect(address) else { break };
            if orders.write(&stream, greeting) && stream.set_nonblocking(true).is_ok() {
                held.push(stream);
            }
        }
        orders.pause(LOOK);
    }
}

/// Whether the other side has not closed it. What it sent is read and forgotten.
fn is_open(mut stream: &TcpStream) -> bool {
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return is_later(error.kind()),
        }
    }
}

/// Announces a frame of 64 MiB, sends `held` bytes of it at once and then so little that it is not too slow, over and over.
pub(crate) fn hog(orders: &Orders, address: SocketAddr, held: usize) {
    let (zeros, crumb) = (vec![0; PIECE], vec![0; 4 << 10]);
    while !orders.over() {
        let Some(stream) = orders.connect(address) else {
            orders.pause(LOOK);
            continue;
        };
        if !orders.write(&stream, &frames::head(1, frames::SET, 0, frames::MAX_CONTENT)) {
            continue;
        }
        let mut sent = 0;
        while sent < frames::MAX_CONTENT {
            let piece = if sent < held { &zeros } else { &crumb };
            let piece = &piece[..piece.len().min(frames::MAX_CONTENT - sent)];
            if !orders.write(&stream, piece) {
                break;
            }
            sent += piece.len();
            if sent >= held {
                orders.pause(Duration::from_millis(100));
            }
        }
    }
}

/// Sends `bytes` again and again. Answers are thrown away, or never read.
pub(crate) fn flood(orders: &Orders, address: SocketAddr, bytes: &[u8], read_answers: bool) {
    while !orders.over() {
        let Some(stream) = orders.connect(address) else {
            orders.pause(LOOK);
            continue;
        };
        // The reader ends with the connection, which is shut down below.
        let reader = read_answers.then(|| stream.try_clone()).and_then(Result::ok).map(|mut stream| {
            std::thread::spawn(move || {
                // However it ends.
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            })
        });
        while orders.write(&stream, bytes) {}
        // It fails when the server has closed it.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = reader {
            // It has nothing to say.
            let _ = reader.join();
        }
    }
}
