//! A bounded byte stream between two loops, with the edges that a socket would give.

use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;

use crate::hub::ConnectionId;
use crate::socket::Socket;
use crate::{Endpoint, LoopWaker};

/// Bytes that wait in one direction, as in a socket's buffers.
const CAPACITY: usize = 256 << 10;

/// What happens to a loop.
pub(super) enum Event {
    Readable(ConnectionId),
    Writable(ConnectionId),
    /// A host connects.
    Incoming {
        from: Endpoint,
        end: End,
    },
    /// A host appeared, or a cut was healed: try again what is down.
    NetworkChanged,
}

/// Where a loop's events collect.
pub(super) struct Mailbox {
    events: Mutex<Vec<Event>>,
    waker: LoopWaker,
}

impl Mailbox {
    pub(super) fn new(waker: LoopWaker) -> Self {
        Self { events: Mutex::default(), waker }
    }

    pub(super) fn post(&self, event: Event) {
        self.events.lock().push(event);
        self.waker.wake();
    }

    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.events.lock())
    }
}

/// Whom to tell.
#[derive(Clone)]
struct Listener {
    mailbox: Arc<Mailbox>,
    id: ConnectionId,
}

/// One direction.
#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: BytesMut,
    closed: bool,
    /// The writer found no room and waits for its edge.
    writer_waits: bool,
    reader: Option<Listener>,
    writer: Option<Listener>,
}

impl Pipe {
    fn close(&self) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        let reader = state.reader.clone();
        drop(state);
        if let Some(reader) = reader {
            reader.mailbox.post(Event::Readable(reader.id));
        }
    }
}

/// One end of a connection.
pub(super) struct End {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
}

/// Breaks a connection from outside, while it lasts.
pub(super) struct Wire {
    pipes: [Weak<Pipe>; 2],
}

impl Wire {
    pub(super) fn is_gone(&self) -> bool {
        self.pipes.iter().all(|pipe| pipe.strong_count() == 0)
    }

    pub(super) fn sever(&self) {
        for pipe in &self.pipes {
            if let Some(pipe) = pipe.upgrade() {
                // What was under way is lost, as when a cable is pulled.
                pipe.state.lock().bytes.clear();
                pipe.close();
            }
        }
    }
}

impl End {
    /// Both ends of a new connection. Each must be attached to the loop that uses it.
    pub(super) fn pair() -> (End, End, Wire) {
        let (there, back) = (Arc::new(Pipe::default()), Arc::new(Pipe::default()));
        let wire = Wire { pipes: [Arc::downgrade(&there), Arc::downgrade(&back)] };
        let near = End { incoming: back.clone(), outgoing: there.clone() };
        (near, End { incoming: there, outgoing: back }, wire)
    }

    /// Sends this end's edges to a loop. What arrived earlier gives none: look once after this.
    pub(super) fn attach(&self, mailbox: &Arc<Mailbox>, id: ConnectionId) {
        let listener = Listener { mailbox: mailbox.clone(), id };
        self.incoming.state.lock().reader = Some(listener.clone());
        self.outgoing.state.lock().writer = Some(listener);
    }
}

impl Socket for End {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.incoming.state.lock();
        let n = state.bytes.len().min(buffer.len());
        if n == 0 {
            return if state.closed { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        state.bytes.copy_to_slice(&mut buffer[..n]);
        if state.bytes.is_empty() {
            state.bytes = BytesMut::new();
        }
        let writer = if std::mem::take(&mut state.writer_waits) { state.writer.clone() } else { None };
        drop(state);
        if let Some(writer) = writer {
            writer.mailbox.post(Event::Writable(writer.id));
        }
        Ok(n)
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.outgoing.state.lock();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let was_empty = state.bytes.is_empty();
        let mut room = CAPACITY - state.bytes.len();
        if room == 0 {
            state.writer_waits = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for slice in slices {
            let n = slice.len().min(room);
            state.bytes.extend_from_slice(&slice[..n]);
            room -= n;
            written += n;
        }
        let reader = if was_empty { state.reader.clone() } else { None };
        drop(state);
        if let Some(reader) = reader {
            reader.mailbox.post(Event::Readable(reader.id));
        }
        Ok(written)
    }

    fn shutdown(&self) {
        self.outgoing.close();
        self.incoming.close();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId { slot, generation: 0 }
    }

    #[test]
    fn edges_come_when_they_must() {
        let near_box = Arc::new(Mailbox::new(LoopWaker::for_parker()));
        let far_box = Arc::new(Mailbox::new(LoopWaker::for_parker()));
        let (near, far, _wire) = End::pair();
        near.attach(&near_box, id(1));
        far.attach(&far_box, id(2));
        let block = vec![7; CAPACITY + 1];
        assert_eq!(near.write_vectored(&[IoSlice::new(&block)]).unwrap(), CAPACITY);
        assert!(matches!(far_box.take()[..], [Event::Readable(at)] if at == id(2)));
        assert_eq!(
            near.write_vectored(&[IoSlice::new(&block)]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let mut buffer = [0; 10];
        assert_eq!(far.read(&mut buffer).unwrap(), 10);
        assert_eq!(buffer, [7; 10]);
        assert!(matches!(near_box.take()[..], [Event::Writable(at)] if at == id(1)));
        drop(near);
        assert!(matches!(far_box.take()[..], [Event::Readable(_)]));
        let mut rest = vec![0; CAPACITY];
        assert_eq!(far.read(&mut rest).unwrap(), CAPACITY - 10);
        assert_eq!(far.read(&mut rest).unwrap(), 0);
        assert_eq!(
            far.write_vectored(&[IoSlice::new(&block)]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
