//! The links' connections: when they are opened, given up and opened again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Engine;
use crate::address::Address;
use crate::backoff::Retry;
use crate::hub::{ConnectionId, Link};
use crate::metrics::NetMetrics;
use crate::peer::{Peer, Role};
use crate::remote::Remote;
use crate::socket::Socket;
use crate::{Endpoint, Inbound, LinkId};

/// An attempt to connect that is older than this when its host is heard of is given up for a new one: what it sent was lost, and the
/// system repeats it after a second at the earliest.
const STALE_ATTEMPT: Duration = Duration::from_millis(200);

/// The loop's half of a link.
pub(super) struct Dial {
    pub(super) retry: Retry,
    state: State,
    remote: Arc<Remote>,
    /// Where its host lives, as far as is known.
    addresses: Vec<Address>,
    /// When an attempt was last brought forward because the host was heard.
    hurried: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    Connecting { id: ConnectionId, since: Instant },
    Up { id: ConnectionId },
}

impl Dial {
    fn new<S>(link: &Link<S>, now: Instant) -> Dial {
        Dial {
            retry: Retry::new(now),
            state: State::Down,
            remote: Arc::clone(&link.remote),
            addresses: vec![Address::of(&link.endpoint)],
            hurried: None,
        }
    }
}

impl<S: Socket> Engine<S> {
    /// Links that the transport has made: their hosts are known from now on.
    pub(super) fn add_links(&mut self, up_to: LinkId, now: Instant) {
        // Links are numbered in the order of their making, but notes may overtake each other.
        while self.dials.len() <= up_to.0 as usize {
            let Some(link) = self.hub.link_at(LinkId(self.dials.len() as u32)) else { return };
            self.dials.push(Dial::new(&link, now));
            self.know(Address::of(&link.endpoint));
        }
        self.sweep_by(now);
    }

    /// Whether a connection for the link is wanted: it has none, nor is one on its way.
    pub(crate) fn wants_connection(&self, link: LinkId) -> bool {
        self.dials.get(link.0 as usize).is_some_and(|dial| dial.state == State::Down)
    }

    /// The name of a link's host was looked up: it lives there.
    pub(crate) fn lives_at(&mut self, link: LinkId, addresses: impl Iterator<Item = Address>) {
        let addresses: Vec<Address> = addresses.collect();
        for address in &addresses {
            self.know(address.clone());
        }
        if let Some(dial) = self.dials.get_mut(link.0 as usize) {
            dial.addresses = addresses;
        }
    }

    pub(crate) fn add_connecting(
        &mut self,
        id: ConnectionId,
        link: LinkId,
        peer: Endpoint,
        socket: S,
        now: Instant,
    ) {
        if let Some(dial) = self.dials.get_mut(link.0 as usize) {
            dial.state = State::Connecting { id, since: now };
        }
        let shared = self.hub.outbound(id, peer, socket);
        let peer = Box::new(Peer::new(shared, Role::Connecting(link), now, &self.hub.options));
        self.sweep_by(peer.deadline(now, &self.hub.options));
        self.slots[id.slot as usize].peer = Some(peer);
    }

    /// The connection that was being opened is up: requests may go out. Returns its link.
    pub(crate) fn established(
        &mut self,
        id: ConnectionId,
        now: Instant,
        inbound: &mut dyn Inbound,
    ) -> Option<LinkId> {
        let hub = self.hub.clone();
        let peer = self.peer_mut(id)?;
        let Role::Connecting(link_id) = peer.role else { return None };
        let link = hub.link_at(link_id)?;
        let heartbeat = peer.established(link_id, link.clone(), now);
        let shared = peer.shared.clone();
        let deadline = peer.deadline(now, &hub.options);
        self.sweep_by(deadline);
        shared.socket.give_up_after(hub.user_timeout(&link.remote));
        self.send_heartbeat(&shared, heartbeat);
        link.state.lock().connection = Some(shared);
        let metrics = &self.hub.metrics;
        NetMetrics::add(&metrics.connected, 1);
        NetMetrics::add(&metrics.outbound_connections, 1);
        link.remote.links_down.fetch_sub(1, Ordering::Relaxed);
        let dial = &mut self.dials[link_id.0 as usize];
        dial.state = State::Up { id };
        dial.hurried = None;
        let retry = &mut dial.retry;
        NetMetrics::add(&metrics.reconnects, u64::from(retry.was_up));
        retry.was_up = true;
        if retry.reached() {
            tracing::info!(endpoint = %link.endpoint, class = ?link.class, "the host is reached again");
        } else {
            tracing::debug!(endpoint = %link.endpoint, class = ?link.class, "connected");
        }
        self.delivered += 1;
        inbound.on_connected(link_id, &link.endpoint, link.class);
        Some(link_id)
    }

    /// An attempt to connect failed, or did not even begin.
    pub(crate) fn connect_failed(&mut self, link: LinkId, reason: &str, now: Instant) {
        NetMetrics::add(&self.hub.metrics.connect_failures, 1);
        let options = &self.hub.options;
        let (min, max) = (options.reconnect_backoff_min, options.reconnect_backoff_max);
        let Some(dial) = self.dials.get_mut(link.0 as usize) else { return };
        dial.state = State::Down;
        dial.retry.failed(now, min, max);
        let (due, report) = (dial.retry.due, dial.retry.report());
        if let Some(due) = due {
            self.sweep_by(due);
        }
        if let Some(link) = self.hub.link_at(link) {
            if report {
                tracing::warn!(endpoint = %link.endpoint, class = ?link.class, reason,
                    "cannot connect; trying again in the background");
            } else {
                tracing::debug!(endpoint = %link.endpoint, class = ?link.class, reason, "cannot connect");
            }
        }
    }

    /// The socket of a connection that is being opened.
    pub(crate) fn connecting(&self, id: ConnectionId) -> Option<&S> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let peer = slot.peer.as_ref()?;
        matches!(peer.role, Role::Connecting(_)).then_some(&peer.shared.socket)
    }

    /// The connection of a link is gone: what waits on it fails.
    pub(super) fn link_down(
        &mut self,
        id: LinkId,
        proven: bool,
        reason: &str,
        now: Instant,
        inbound: &mut dyn Inbound,
    ) {
        let options = &self.hub.options;
        let (min, max) = (options.reconnect_backoff_min, options.reconnect_backoff_max);
        let dial = &mut self.dials[id.0 as usize];
        dial.state = State::Down;
        dial.remote.links_down.fetch_add(1, Ordering::Relaxed);
        if proven {
            dial.retry.proven();
        }
        dial.retry.failed(now, min, max);
        if let Some(due) = dial.retry.due {
            self.sweep_by(due);
        }
        let Some(link) = self.hub.link_at(id) else { return };
        let failed = {
            let mut state = link.state.lock();
            state.connection = None;
            state.pending.drain()
        };
        tracing::debug!(endpoint = %link.endpoint, class = ?link.class, reason, failed = failed.len(), "link is down");
        for context in failed {
            self.delivered += 1;
            inbound.on_request_failed(context, reason);
        }
    }

    /// A request of this host came in while a link to it is down: it can be reached again, so it is tried at once.
    pub(super) fn heard(&mut self, remote: &Arc<Remote>, now: Instant, inbound: &mut dyn Inbound) {
        remote.noted.store(false, Ordering::Relaxed);
        self.hurry(now, inbound, |dial| Arc::ptr_eq(&dial.remote, remote));
    }

    /// Somebody at this address has begun to speak: perhaps it is the host that could not be reached.
    pub(super) fn heard_from(&mut self, address: &Address, now: Instant, inbound: &mut dyn Inbound) {
        self.hurry(now, inbound, |dial| dial.addresses.contains(address));
    }

    fn hurry(&mut self, now: Instant, inbound: &mut dyn Inbound, which: impl Fn(&Dial) -> bool) {
        let pause = self.hub.options.reconnect_backoff_max;
        for index in 0..self.dials.len() {
            let dial = &mut self.dials[index];
            if !which(dial) || dial.hurried.is_some_and(|at| now < at + pause) {
                continue;
            }
            match dial.state {
                State::Up { .. } => continue,
                State::Connecting { since, .. } if now < since + STALE_ATTEMPT => continue,
                State::Connecting { id, .. } => {
                    dial.hurried = Some(now);
                    self.close(id, "its host was heard meanwhile; it is tried anew", now, inbound);
                }
                State::Down => dial.hurried = Some(now),
            }
            self.dials[index].retry.due = Some(now);
            self.sweep_by(now);
        }
    }

    /// What is known of a host has changed, and with it how long its connections may be silent.
    pub(super) fn retime(&mut self, remote: &Arc<Remote>) {
        let limit = self.hub.user_timeout(remote);
        for dial in self.dials.iter().filter(|dial| Arc::ptr_eq(&dial.remote, remote)) {
            if let State::Up { id } = dial.state
                && let Some(peer) = self.slots[id.slot as usize].peer.as_deref()
            {
                peer.shared.socket.give_up_after(limit);
            }
        }
    }

    /// Has every link that is down tried in the next turn.
    pub(crate) fn retry_now(&mut self, now: Instant) {
        for dial in &mut self.dials {
            if let Some(due) = &mut dial.retry.due {
                *due = now;
            }
        }
        self.sweep_by(now);
    }
}
