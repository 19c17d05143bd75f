//! A connection as the loop sees it: what came in, and when something is overdue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringraft_proto::{Frame, FrameDecoder, FrameError, RequestFrame};

use crate::hub::{Connection, Link};
use crate::{LinkId, NetLoopOptions};

/// Bytes a second that a frame in parts must bring.
const MIN_PARTIAL_RATE: u64 = 1024;

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
    pub(crate) parked: Option<RequestFrame>,
    /// What the loop has counted of `buffer`.
    pub(crate) counted: usize,
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
            counted: 0,
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
        } else if self.buffer.is_empty() {
            // An idle connection holds no memory, and none of the frames handed out.
            self.buffer = BytesMut::new();
        } else if self.partial.is_none() {
            self.partial = Some((now, self.bytes_in));
        }
        Ok(frame)
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
        let least = MIN_PARTIAL_RATE * window.as_millis() as u64 / 1000;
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
