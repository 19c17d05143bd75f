//! Who pays when the bytes of others take too much memory: whoever holds it, never whoever happens to come next.

use std::time::Instant;

use super::Engine;
use crate::Inbound;
use crate::metrics::NetMetrics;
use crate::peer::{Counted, Peer};
use crate::socket::Socket;

/// Bytes that were received and not delivered, of all connections. Members and strangers have a budget each, so that nobody who
/// knows nothing but an address can have the members' bytes refused.
#[derive(Debug, Default)]
pub(super) struct Held {
    members: usize,
    strangers: usize,
}

impl Held {
    fn of(&mut self, member: bool) -> &mut usize {
        if member { &mut self.members } else { &mut self.strangers }
    }
}

impl<S: Socket> Engine<S> {
    /// Counts what the connection holds now.
    pub(super) fn count_held(&mut self, peer: &mut Peer<S>) {
        self.recount(peer, Counted { bytes: peer.held(), member: peer.is_member() });
    }

    /// The connection is about to go.
    pub(super) fn forget_held(&mut self, peer: &mut Peer<S>) {
        self.recount(peer, Counted::default());
    }

    fn recount(&mut self, peer: &mut Peer<S>, now: Counted) {
        let before = std::mem::replace(&mut peer.counted, now);
        if before == now {
            return;
        }
        *self.held.of(before.member) -= before.bytes;
        *self.held.of(now.member) += now.bytes;
        let metric = &self.hub.metrics.held_bytes;
        NetMetrics::add(metric, now.bytes as u64);
        NetMetrics::sub(metric, before.bytes as u64);
    }

    /// Closes connections until what is held fits its budget again. Rule X6: who holds most for longest pays. To be called after
    /// every read: input that is looked at only
    /// when a socket ran dry has no bound while the socket does not.
    pub(super) fn bound_held(&mut self, now: Instant, inbound: &mut dyn Inbound) {
        for member in [false, true] {
            let limit = match member {
                true => self.hub.options.max_member_buffered_bytes,
                false => self.hub.options.max_buffered_bytes,
            };
            while *self.held.of(member) > limit {
                let debtor = self
                    .peers()
                    .filter(|peer| peer.counted.member == member && peer.counted.bytes > 0)
                    .max_by_key(|peer| debt(peer, now))
                    .map(|peer| peer.shared.id);
                let Some(id) = debtor else { break };
                NetMetrics::add(&self.hub.metrics.evicted, 1);
                self.close(
                    id,
                    "incomplete frames take too much memory, and it has held most of it for longest",
                    now,
                    inbound,
                );
            }
        }
    }

    /// Answers that nobody reads take too much memory: closes the connections for which most wait.
    pub(super) fn bound_unread_answers(&mut self, now: Instant, inbound: &mut dyn Inbound) {
        while self.hub.answers.is_over() {
            let most = self
                .peers()
                .filter(|peer| peer.is_inbound())
                .map(|peer| (peer.shared.outbox.waiting(), peer.shared.id))
                .filter(|(waiting, _)| *waiting > 0)
                .max_by_key(|(waiting, _)| *waiting);
            let Some((_, id)) = most else { break };
            NetMetrics::add(&self.hub.metrics.evicted, 1);
            self.close(id, "unread answers take too much memory, and most of them wait for it", now, inbound);
        }
    }
}

/// Bytes times how long they have been held. Somebody who sends a large frame at full speed owes less than many who sit on theirs.
fn debt<S>(peer: &Peer<S>, now: Instant) -> u128 {
    // A second on top, so that among those who have just begun the largest one counts.
    let age = peer.holds_since().map_or(0, |since| now.saturating_duration_since(since).as_millis());
    peer.counted.bytes as u128 * (1000 + age)
}
