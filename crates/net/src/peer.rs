//! A connection as the loop sees it: what came in, and when something is overdue.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringraft_proto::{Frame, FrameDecoder, FrameError, RequestFrame};

use crate::hub::{Connection, Link};
use crate::standing::Standing;
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

/// What a connection holds, as it was last counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) bytes: usize,
    /// It counts against the budget of members.
    pub(crate) member: bool,
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
    /// Sent at least one whole frame, be it a heartbeat.
    greeted: bool,
    /// When a request of it was last served.
    last_served: Instant,
    /// Of an inbound connection.
    standing: Option<Standing>,
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
            greeted: false,
            last_served: now,
            standing: None,
            partial: None,
            heartbeat: Heartbeat { last: now, unanswered: None, missed: 0, next_id: 1 },
        }
    }

    /// A connection that the peer opened.
    pub(crate) fn inbound(
        shared: Arc<Connection<S>>,
        standing: Standing,
        now: Instant,
        options: &NetLoopOptions,
    ) -> Self {
        Self { standing: Some(standing), ..Self::new(shared, Role::Inbound, now, options) }
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
        if let Some(link) = &self.link {
            link.remote.answers(now);
        }
    }

    /// The next whole frame.
    pub(crate) fn next_frame(&mut self, now: Instant) -> Result<Option<Frame>, FrameError> {
        let frame = self.decoder.decode(&mut self.buffer)?;
        if frame.is_some() {
            self.greeted = true;
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

    /// What is known of whoever opened it; `None` of one that we opened.
    pub(crate) fn standing(&self) -> Option<&Standing> {
        self.standing.as_ref()
    }

    /// Notes something about whoever opened it; `false` when we did.
    pub(crate) fn learn(&mut self, what: impl FnOnce(&mut Standing)) -> bool {
        self.standing.as_mut().map(what).is_some()
    }

    /// A request of it was served.
    pub(crate) fn served(&mut self, now: Instant) {
        self.last_served = now;
        self.learn(|standing| standing.served = true);
    }

    /// Whether it sent a whole frame.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// When a request of it was last served; until then, when it came.
    pub(crate) fn last_of_use(&self) -> Instant {
        self.last_served
    }

    /// Whether nobody would miss it now: nothing came that is not looked at yet, and if it was ever served, then nothing is under way and
    /// was asked for `limit`.
    pub(crate) fn is_idle(&self, now: Instant, limit: Duration) -> bool {
        let served = self.standing.as_ref().is_some_and(|standing| standing.served);
        let at_work = self.partial.is_some()
            || self.shared.unanswered.load(Ordering::Relaxed) > 0
            || now.saturating_duration_since(self.last_served) < limit;
        let waits = self.readable || self.queued || self.parked.is_some();
        !(waits || served && at_work)
    }

    /// Whether it belongs to a member: we opened it, or it carries raft requests in a member's name.
    pub(crate) fn is_member(&self) -> bool {
        self.standing.as_ref().is_none_or(|standing| standing.member)
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
    pub(crate) fn deadline(&self, now: Instant, options: &NetLoopOptions) -> Instant {
        match self.role {
            Role::Connecting(_) => self.opened + options.connect_timeout,
            Role::Outbound(_) => {
                let due = self.heartbeat_due(options);
                // Others send requests on it, after which it must not be silent for long.
                if self.is_judged() { due.min(now + options.silence_probe) } else { due }
            }
            Role::Inbound if !self.greeted => match self.partial {
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
            if !self.greeted {
                self.opened = now;
            }
            return Due::Nothing;
        }
        if let Role::Outbound(_) = self.role {
            return self.check_heartbeat(now, options);
        }
        if now < self.deadline(now, options) {
            return Due::Nothing;
        }
        match self.role {
            Role::Connecting(_) => Due::Close("connecting took too long"),
            Role::Inbound if !self.greeted => Due::Close("no whole frame within the time for the first one"),
            Role::Inbound if now >= self.last_read + options.inbound_idle_limit => {
                Due::Close("idle for too long")
            }
            Role::Inbound => self.check_partial(now, options.partial_frame_window),
            Role::Outbound(_) => Due::Nothing,
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

    /// Whether silence can close the connection: not towards a Java node. One that follows never goes on with a leader whose connection
    /// was closed with entries on it, so there only the system's own verdict counts, see
    /// [`foreign_user_timeout`](NetLoopOptions::foreign_user_timeout).
    fn is_judged(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.remote.is_extended())
    }

    /// When the heartbeat that is under way has been for too long, or the next one is due.
    fn heartbeat_due(&self, options: &NetLoopOptions) -> Instant {
        if let Some(sent) = self.heartbeat.unanswered {
            return sent + options.heartbeat_ack_timeout;
        }
        let waits = |link: &Arc<Link<S>>| link.state.lock().pending.len() > 0;
        let urgent = self.is_judged() && (self.heartbeat.missed > 0 || self.link.as_ref().is_some_and(waits));
        let pause = match urgent {
            true => options.silence_probe.min(options.heartbeat_interval),
            false => options.heartbeat_interval,
        };
        self.last_read.max(self.heartbeat.last) + pause
    }

    fn check_heartbeat(&mut self, now: Instant, options: &NetLoopOptions) -> Due {
        if now < self.heartbeat_due(options) {
            return Due::Nothing;
        }
        if self.heartbeat.unanswered.take().is_some() {
            self.heartbeat.missed += 1;
            if self.heartbeat.missed >= options.heartbeat_max_missed
                && self.is_judged()
                && !self.is_merely_held_up(now, options)
            {
                return Due::Close("the peer does not answer heartbeats");
            }
            if now < self.heartbeat_due(options) {
                return Due::Nothing;
            }
        }
        Due::Heartbeat(self.next_heartbeat(now))
    }

    /// Whether the host answers on another link, so that this one stands still because what it carries finds no room there. That may take
    /// longer, but not for ever: the path of one connection can be dead alone.
    fn is_merely_held_up(&self, now: Instant, options: &NetLoopOptions) -> bool {
        let lately = options.heartbeat_ack_timeout * options.heartbeat_max_missed;
        now.saturating_duration_since(self.last_read) < options.heartbeat_interval
            && self.link.as_ref().is_some_and(|link| link.remote.answered_within(lately, now))
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
mod tests;
