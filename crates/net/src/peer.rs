//! A connection as the loop sees it: what came in, and when something is overdue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringraft_proto::{Frame, FrameDecoder, FrameError, RequestFrame};

use crate::engine::Counted;
use crate::hub::{Connection, Link};
use crate::{LinkId, NetLoopOptions};

/// Bytes a second that a frame in parts must bring, whatever it holds.
const MIN_PARTIAL_RATE: u64 = 1 << 10;

/// The most that is asked of a frame in parts: a member behind a slow line may send its largest frame, too.
const MAX_PARTIAL_RATE: u64 = 64 << 10;

/// A frame in parts must bring as much as is there of it within so many seconds, between the two bounds above: 64 KiB/s from 1 MiB on.
const PARTIAL_SECONDS: u64 = 16;

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The peer opened it.
    Inbound,
    /// We are opening it.
    Connecting(LinkId),
    /// We opened it and it is up.
    Outbound(LinkId),
}

/// The loop's half of a connection.
pub(crate) struct Peer<S> {
    pub(crate) shared: Arc<Connection<S>>,
    pub(crate) role: Role,
    /// The link of an outbound connection that is up.
    pub(crate) link: Option<Arc<Link<S>>>,
    decoder: FrameDecoder,
    buffer: BytesMut,
    /// There may be something to read: the edge came and the socket was not read empty since.
    pub(crate) readable: bool,
    /// The peer closed its direction; a short read does not mean that there is nothing after it.
    pub(crate) hangup: bool,
    /// It is in the loop's ready list.
    pub(crate) queued: bool,
    /// The loop queued answers of its own here, which leave when the connection was served.
    pub(crate) answered: bool,
    /// The request that the consumer handed back.
    parked: Option<RequestFrame>,
    /// What the loop has counted of `held`.
    pub(crate) counted: Counted,
    /// Size of the allocation that `buffer` and `parked` share.
    allocated: usize,
    /// Since when the frame at the front, or the one that is parked, takes memory.
    holds_since: Option<Instant>,
    opened: Instant,
    last_read: Instant,
    bytes_in: u64,
    /// Sent at least one whole frame.
    pub(crate) proven: bool,
    /// When the frame that is arriving was last found fast enough, and how much had come in then.
    partial: Option<(Instant, u64)>,
    heartbeat: Heartbeat,
}

struct Heartbeat {
    last: Instant,
    unanswered: Option<Instant>,
    missed: u32,
    next_id: u32,
}

/// What a look at the clock tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Send this heartbeat.
    Heartbeat(u32),
    Close(&'static str),
}

impl<S> Peer<S> {
    pub(crate) fn new(
        shared: Arc<Connection<S>>,
        role: Role,
        now: Instant,
        options: &NetLoopOptions,
    ) -> Self {
        Self {
            shared,
            role,
            link: None,
            decoder: FrameDecoder::new(options.frame_limits),
            buffer: BytesMut::new(),
            readable: false,
            hangup: false,
            queued: false,
            answered: false,
            parked: None,
            counted: Counted::default(),
            allocated: 0,
            holds_since: None,
            opened: now,
            last_read: now,
            bytes_in: 0,
            proven: false,
            partial: None,
            heartbeat: Heartbeat { last: now, unanswered: None, missed: 0, next_id: 1 },
        }
    }

    /// The connection that was being opened is up. Returns the id of the heartbeat to begin with: it shows the peer
    /// that we are no idle stranger, and us that the peer speaks Bolt.
    pub(crate) fn established(&mut self, id: LinkId, link: Arc<Link<S>>, now: Instant) -> u32 {
        self.role = Role::Outbound(id);
        self.link = Some(link);
        self.opened = now;
        self.last_read = now;
        self.next_heartbeat(now)
    }

    /// Keeps received bytes. The buffer grows with them, never with what a frame says about itself.
    pub(crate) fn received(&mut self, bytes: &[u8], now: Instant) {
        self.buffer.extend_from_slice(bytes);
        self.allocated = self.buffer.capacity();
        self.bytes_in += bytes.len() as u64;
        self.last_read = now;
        // Any sign of life answers a heartbeat.
        self.heartbeat.unanswered = None;
        self.heartbeat.missed = 0;
    }

    /// The next whole frame.
    pub(crate) fn next_frame(&mut self, now: Instant) -> Result<Option<Frame>, FrameError> {
        let frame = self.decoder.decode(&mut self.buffer)?;
        if frame.is_some() {
            self.proven = true;
            self.partial = None;
            self.holds_since = None;
        } else if self.buffer.is_empty() {
            // An idle connection holds no memory, and none of the frames handed out.
            self.buffer = BytesMut::new();
            self.allocated = 0;
        } else if self.partial.is_none() {
            self.partial = Some((now, self.bytes_in));
            self.holds_since = Some(now);
        }
        Ok(frame)
    }

    /// Keeps the request that the consumer handed back.
    pub(crate) fn park(&mut self, frame: RequestFrame, now: Instant) {
        self.parked = Some(frame);
        self.holds_since.get_or_insert(now);
    }

    /// Takes the request that the consumer handed back, to offer it again.
    pub(crate) fn unpark(&mut self) -> Option<RequestFrame> {
        self.parked.take()
    }

    /// Bytes of memory that wait for the rest of a frame or for the consumer: the allocation, which can be twice what was received.
    pub(crate) fn held(&self) -> usize {
        if self.parked.is_none() && self.buffer.is_empty() {
            0
        } else {
            self.allocated.max(self.buffer.capacity())
        }
    }

    /// Since when it holds what it holds.
    pub(crate) fn holds_since(&self) -> Option<Instant> {
        self.holds_since
    }

    /// Whether the peer opened it.
    pub(crate) fn is_inbound(&self) -> bool {
        self.role == Role::Inbound
    }

    /// Whether it belongs to a member: we opened it.
    pub(crate) fn is_member(&self) -> bool {
        self.role != Role::Inbound
    }

    /// Whether the consumer handed a request back.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Bytes of a frame that is not whole yet.
    pub(crate) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the connection did anything useful, so that a reconnect need not be slowed down.
    pub(crate) fn has_proven_itself(&self, now: Instant, options: &NetLoopOptions) -> bool {
        self.bytes_in > 0 || now.duration_since(self.opened) >= options.reconnect_backoff_max
    }

    /// When to look at the clock again, if nothing happens.
    pub(crate) fn deadline(&self, options: &NetLoopOptions) -> Instant {
        match self.role {
            Role::Connecting(_) => self.opened + options.connect_timeout,
            Role::Outbound(_) => match self.heartbeat.unanswered {
                Some(sent) => sent + options.heartbeat_ack_timeout,
                None => self.last_read.max(self.heartbeat.last) + options.heartbeat_interval,
            },
            Role::Inbound if !self.proven => match self.partial {
                Some((since, _)) => since + options.first_frame_deadline,
                None => self.opened + options.heartbeat_interval + options.first_frame_deadline,
            },
            Role::Inbound => {
                let idle = self.last_read + options.inbound_idle_limit;
                self.partial.map_or(idle, |(since, _)| idle.min(since + options.partial_frame_window))
            }
        }
    }

    /// Does what is overdue.
    pub(crate) fn check(&mut self, now: Instant, options: &NetLoopOptions) -> Due {
        if self.parked.is_some() || self.readable {
            // It is our turn to read, so silence says nothing about the peer.
            self.last_read = now;
            self.partial = self.partial.map(|_| (now, self.bytes_in));
            if !self.proven {
                self.opened = now;
            }
            return Due::Nothing;
        }
        if now < self.deadline(options) {
            return Due::Nothing;
        }
        match self.role {
            Role::Connecting(_) => Due::Close("connecting took too long"),
            Role::Outbound(_) => self.check_heartbeat(now, options),
            Role::Inbound if !self.proven => Due::Close("no whole frame within the time for the first one"),
            Role::Inbound if now >= self.last_read + options.inbound_idle_limit => {
                Due::Close("idle for too long")
            }
            Role::Inbound => self.check_partial(now, options.partial_frame_window),
        }
    }

    fn check_partial(&mut self, now: Instant, window: Duration) -> Due {
        let Some((_, before)) = self.partial else { return Due::Nothing };
        let rate = (self.buffer.len() as u64 / PARTIAL_SECONDS).clamp(MIN_PARTIAL_RATE, MAX_PARTIAL_RATE);
        let least = rate * window.as_millis() as u64 / 1000;
        if self.bytes_in - before < least {
            return Due::Close("a frame arrived too slowly");
        }
        self.partial = Some((now, self.bytes_in));
        Due::Nothing
    }

    fn check_heartbeat(&mut self, now: Instant, options: &NetLoopOptions) -> Due {
        if self.heartbeat.unanswered.take().is_some() {
            self.heartbeat.missed += 1;
            return Due::Nothing;
        }
        if self.heartbeat.missed >= options.heartbeat_max_missed {
            return Due::Close("the peer does not answer heartbeats");
        }
        Due::Heartbeat(self.next_heartbeat(now))
    }

    fn next_heartbeat(&mut self, now: Instant) -> u32 {
        let heartbeat = &mut self.heartbeat;
        let id = heartbeat.next_id;
        heartbeat.next_id = heartbeat.next_id.wrapping_add(1);
        heartbeat.last = now;
        heartbeat.unanswered = Some(now);
        id
    }
}

#[cfg(test)]
mod tests {
    use ringraft_proto::OutFrame;

    use super::*;
    use crate::Endpoint;
    use crate::hub::ConnectionId;
    use crate::outbox::{AtMeter, Meter, Outbox};

    fn peer(role: Role, now: Instant) -> Peer<()> {
        let outbox = Outbox::new(1, 1, Meter::new(1), AtMeter::Take);
        let id = ConnectionId { slot: 0, generation: 0 };
        let shared = Arc::new(Connection { id, peer: Endpoint("a:1".into()), socket: (), outbox });
        Peer::new(shared, role, now, &NetLoopOptions::default())
    }

    fn bytes(frame: &OutFrame) -> Vec<u8> {
        frame.parts.concat()
    }

    /// Begins a frame of 32 MiB with `first` bytes, brings `rate` bytes a second, and says when it is closed.
    fn lives(first: usize, rate: usize) -> Option<u64> {
        let options = NetLoopOptions::default();
        let start = Instant::now();
        let mut peer = peer(Role::Inbound, start);
        peer.received(&bytes(&ringraft_proto::encode_heartbeat(1)), start);
        assert!(peer.next_frame(start).unwrap().is_some());
        let mut frame = bytes(&ringraft_proto::encode_request(1, "test.Class", 1, b"", b""));
        frame[18..22].copy_from_slice(&(32u32 << 20).to_be_bytes());
        frame.resize(first, 0);
        peer.received(&frame, start);
        assert!(peer.next_frame(start).unwrap().is_none());
        let held = peer.held();
        assert!(held >= first);
        for second in 1..100 {
            let now = start + Duration::from_secs(second);
            if let Due::Close(_) = peer.check(now, &options) {
                return Some(second);
            }
            peer.received(&vec![0; rate], now);
            assert!(peer.next_frame(now).unwrap().is_none());
        }
        None
    }

    #[test]
    fn who_holds_more_must_bring_more() {
        assert_eq!(lives(1000, 900), Some(10));
        assert_eq!(lives(1000, 1200), Some(20), "a kilobyte a second is enough for little");
        assert_eq!(lives(4 << 20, 1200), Some(10), "not for megabytes");
        assert_eq!(lives(4 << 20, 60 << 10), Some(10));
        assert_eq!(lives(4 << 20, 72 << 10), None, "and no frame needs a quick line");
        assert_eq!(lives(256 << 10, 15 << 10), Some(10));
        assert_eq!(lives(256 << 10, 72 << 10), None);
    }

    #[test]
    fn a_connection_without_input_holds_nothing() {
        let now = Instant::now();
        let mut peer = peer(Role::Inbound, now);
        assert_eq!((peer.held(), peer.holds_since()), (0, None));
        let frame = bytes(&ringraft_proto::encode_request(1, "test.Class", 1, b"", &[7; 5000]));
        peer.received(&frame, now);
        assert!(peer.held() >= frame.len());
        let Ok(Some(Frame::Request(request))) = peer.next_frame(now) else { panic!("no request") };
        peer.park(request, now);
        assert!(peer.held() >= frame.len(), "what the consumer handed back is still here");
        assert_eq!(peer.holds_since(), Some(now));
        drop(peer.unpark());
        assert!(peer.next_frame(now).unwrap().is_none());
        assert_eq!(peer.held(), 0);
    }
}
