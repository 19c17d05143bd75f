//! What happens because time passed: deadlines, heartbeats, reconnects, overdue requests.

use std::sync::atomic::Ordering;
use std::time::Instant;

use ringraft_proto::encode_heartbeat;

use super::Engine;
use crate::hub::Connection;
use crate::metrics::NetMetrics;
use crate::peer::Due;
use crate::socket::Socket;
use crate::{Inbound, LinkId};

/// Sweeps for overdue requests within one expiry time.
pub(super) const EXPIRY_SWEEPS: u32 = 8;

impl<S: Socket> Engine<S> {
    pub(super) fn sweep_by(&mut self, at: Instant) {
        self.next_sweep = Some(self.next_sweep.map_or(at, |next| next.min(at)));
    }

    /// Looks at every connection and link, and finds out when to do so again. Deadlines move on without a trace, so
    /// this runs about once in the shortest of them, not once an event.
    pub(super) fn sweep(&mut self, now: Instant, inbound: &mut dyn Inbound) -> Vec<LinkId> {
        self.next_sweep = None;
        let hub = self.hub.clone();
        for slot in 0..self.slots.len() {
            let Some(peer) = self.slots[slot].peer.as_deref_mut() else { continue };
            let due = peer.check(now, &hub.options);
            let deadline = peer.deadline(now, &hub.options);
            let shared = peer.shared.clone();
            match due {
                Due::Close(reason) => {
                    self.close(shared.id, reason, now, inbound);
                    continue;
                }
                Due::Heartbeat(id) => {
                    self.send_heartbeat(&shared, id);
                }
                Due::Nothing => {}
            }
            self.sweep_by(deadline);
        }
        let mut due = Vec::new();
        for index in 0..self.dials.len() {
            match self.dials[index].retry.due {
                Some(at) if at <= now => {
                    self.dials[index].retry.due = None;
                    due.push(LinkId(index as u32));
                }
                Some(at) => self.sweep_by(at),
                None => {}
            }
        }
        if !self.dials.is_empty() {
            self.expire(now, inbound);
            self.sweep_by(self.next_expiry);
        }
        due
    }

    pub(super) fn send_heartbeat(&self, connection: &Connection<S>, id: u32) {
        // With a full outbox none can be sent; it counts as unanswered then, rightly.
        if self.hub.push(connection, encode_heartbeat(id)).is_ok() {
            NetMetrics::add(&self.hub.metrics.heartbeats_sent, 1);
            self.hub.send(connection);
        }
    }

    fn expire(&mut self, now: Instant, inbound: &mut dyn Inbound) {
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + self.hub.options.request_expiry / EXPIRY_SWEEPS;
        let epoch = self.hub.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        for index in 0..self.dials.len() {
            let Some(link) = self.hub.link_at(LinkId(index as u32)) else { continue };
            // One more than the full number, since the first epoch of a request was cut short.
            let overdue = link.state.lock().pending.drain_expired(epoch, EXPIRY_SWEEPS + 1);
            NetMetrics::add(&self.hub.metrics.expired_requests, overdue.len() as u64);
            for context in overdue {
                self.delivered += 1;
                inbound.on_request_failed(context, "nobody answered within the limit");
            }
        }
    }
}
