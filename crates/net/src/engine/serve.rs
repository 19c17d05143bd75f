//! Reading a connection and delivering what came.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ringraft_proto::{Frame, FrameError, RequestFrame, encode_heartbeat_ack};

use super::Engine;
use crate::hub::{ConnectionId, ONE_WAY};
use crate::metrics::NetMetrics;
use crate::peer::{Peer, Role};
use crate::socket::Socket;
use crate::{Accept, Inbound, ReplyHandle};

/// What became of a frame.
enum Offered {
    Taken,
    /// The consumer is full, and has it back.
    Busy,
    /// The consumer wants it in the next turn, and has it back.
    Later,
}

/// How the service of one connection ended.
enum Served {
    /// Nothing more to read.
    Idle,
    /// The turn's share is used up.
    More,
    /// The consumer is full.
    Busy,
    Closed(String),
}

impl<S: Socket> Engine<S> {
    pub(super) fn serve(&mut self, id: ConnectionId, now: Instant, inbound: &mut dyn Inbound) {
        if self.peer_mut(id).is_none() {
            return;
        }
        let Some(mut peer) = self.slots[id.slot as usize].peer.take() else { return };
        peer.queued = false;
        let (greeted, standing) = (peer.is_greeted(), peer.standing().cloned());
        let mut frames = 0;
        let served = self.read(&mut peer, &mut frames, now, inbound);
        NetMetrics::add(&self.hub.metrics.frames_in, frames as u64);
        if std::mem::take(&mut peer.answered) {
            self.hub.send(&peer.shared);
        }
        self.restand(&peer, standing.as_ref());
        if peer.role == Role::Inbound && peer.is_greeted() && !greeted {
            let deadline = peer.deadline(now, &self.hub.options);
            self.sweep_by(deadline);
        }
        self.count_held(&mut peer);
        match served {
            Served::Closed(reason) => return self.bury(peer, &reason, now, inbound),
            Served::Idle => {
                if peer.role == Role::Inbound && peer.buffered() > 0 {
                    let deadline = peer.deadline(now, &self.hub.options);
                    self.sweep_by(deadline);
                }
            }
            Served::More => {
                peer.queued = true;
                self.ready.push_back(id);
            }
            Served::Busy => self.parked.push_back(id),
        }
        let neighbour =
            (!greeted && peer.is_greeted()).then(|| peer.standing().filter(|s| s.known).cloned()).flatten();
        self.slots[id.slot as usize].peer = Some(peer);
        if let Some(standing) = neighbour {
            self.heard_from(&standing.address, now, inbound);
        }
        self.bound_held(now, inbound);
    }

    /// Reads and delivers until the socket is empty or the share is used up; counts the frames.
    fn read(
        &mut self,
        peer: &mut Peer<S>,
        frames: &mut usize,
        now: Instant,
        inbound: &mut dyn Inbound,
    ) -> Served {
        let mut bytes = self.hub.options.read_budget_bytes;
        if let Some(frame) = peer.unpark() {
            match self.offer(peer, frame, now, inbound) {
                Offered::Taken => {}
                Offered::Busy => return Served::Busy,
                Offered::Later => return Served::More,
            }
        }
        loop {
            loop {
                let frame = match peer.next_frame(now) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(error) => {
                        NetMetrics::add(&self.hub.metrics.malformed_frames, 1);
                        self.log_malformed(peer, &error);
                        // Rule X5: where the next frame begins nobody knows.
                        return Served::Closed(format!("malformed frame: {error}"));
                    }
                };
                *frames += 1;
                match self.dispatch(peer, frame, now, inbound) {
                    Offered::Taken => {}
                    Offered::Busy => return Served::Busy,
                    Offered::Later => return Served::More,
                }
                if *frames == self.hub.options.read_budget_frames {
                    return Served::More;
                }
            }
            if !peer.readable {
                return Served::Idle;
            }
            if bytes == 0 {
                return Served::More;
            }
            let n = match peer.shared.socket.read(&mut self.scratch) {
                Ok(0) if peer.buffered() > 0 => {
                    return Served::Closed(format!(
                        "closed by the peer after {} bytes of a frame",
                        peer.buffered()
                    ));
                }
                Ok(0) => return Served::Closed("closed by the peer".to_owned()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    peer.readable = false;
                    return Served::Idle;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Served::Closed(format!("read failed: {error}")),
            };
            NetMetrics::add(&self.hub.metrics.bytes_in, n as u64);
            bytes = bytes.saturating_sub(n);
            // A short read emptied the socket: what comes later comes with its own edge.
            if n < self.scratch.len() && !peer.hangup {
                peer.readable = false;
            }
            peer.received(&self.scratch[..n], now);
        }
    }

    fn dispatch(
        &mut self,
        peer: &mut Peer<S>,
        frame: Frame,
        now: Instant,
        inbound: &mut dyn Inbound,
    ) -> Offered {
        match (frame, peer.role) {
            (Frame::Request(frame), Role::Inbound) => return self.offer(peer, frame, now, inbound),
            (Frame::Response(frame), Role::Outbound(_)) => {
                let link = peer.link.as_deref();
                match link.and_then(|link| link.state.lock().pending.take(frame.id)) {
                    Some(context) => {
                        self.delivered += 1;
                        inbound.on_response(context, frame);
                    }
                    None => NetMetrics::add(&self.hub.metrics.unexpected_frames, 1),
                }
            }
            (Frame::Heartbeat { id }, _) => {
                // When the outbox is full the peer does not read and would not see the answer either.
                peer.answered |= self.hub.push(&peer.shared, encode_heartbeat_ack(id)).is_ok();
            }
            // That it came is all that matters, and `received` has noted it.
            (Frame::HeartbeatAck { .. }, Role::Outbound(_)) => {}
            _ => NetMetrics::add(&self.hub.metrics.unexpected_frames, 1),
        }
        Offered::Taken
    }

    fn offer(
        &mut self,
        peer: &mut Peer<S>,
        frame: RequestFrame,
        now: Instant,
        inbound: &mut dyn Inbound,
    ) -> Offered {
        let id = peer.shared.id;
        let generation = if frame.one_way { id.generation | ONE_WAY } else { id.generation };
        let handle = ReplyHandle { connection: id.slot, generation, request: frame.id };
        // Before it is taken: the answer may leave on another thread at once.
        let counts = i32::from(!frame.one_way);
        peer.shared.unanswered.fetch_add(counts, Ordering::Relaxed);
        match inbound.on_request(handle, frame) {
            Accept::Taken => {
                self.delivered += 1;
                peer.served(now);
                Offered::Taken
            }
            Accept::Refused => {
                self.delivered += 1;
                Offered::Taken
            }
            Accept::Busy(frame) => {
                peer.shared.unanswered.fetch_sub(counts, Ordering::Relaxed);
                NetMetrics::add(&self.hub.metrics.busy, 1);
                peer.park(frame, now);
                Offered::Busy
            }
            Accept::Later(frame) => {
                peer.shared.unanswered.fetch_sub(counts, Ordering::Relaxed);
                peer.park(frame, now);
                // Without a pause only when the turn had something: else the loop would never rest.
                if self.delivered > 0 { Offered::Later } else { Offered::Busy }
            }
        }
    }

    fn log_malformed(&self, peer: &Peer<S>, error: &FrameError) {
        if let Some(left_out) = self.hub.log.pass("malformed frame") {
            let peer = &peer.shared.peer;
            tracing::warn!(%peer, %error, left_out, "malformed frame; the connection is closed");
        }
    }
}
