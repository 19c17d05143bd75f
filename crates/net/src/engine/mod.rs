//! The half of a loop that only its thread sees: reads, deliveries, deadlines, reconnects.
//!
//! Knows nothing of pollers. The TCP loop and the in-process loop tell it which connections became ready and open
//! the connections that it asks for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringraft_proto::{RequestFrame, ResponseFrame};

use crate::address::Address;
use crate::hub::{ConnectionId, Hub, ONE_WAY};
use crate::metrics::NetMetrics;
use crate::peer::{Peer, Role};
use crate::socket::Socket;
use crate::standing::Standing;
use crate::{Accept, ConnectionClass, Endpoint, Inbound, LinkId, ReplyHandle, RequestContext, TurnReport};

mod admission;
mod clock;
mod links;
mod memory;
mod serve;

/// Requests that were handed back and are offered again in one turn.
const PARKED_OFFERS: usize = 256;

pub(crate) struct Engine<S> {
    pub(crate) hub: Arc<Hub<S>>,
    slots: Vec<Slot<S>>,
    free: Vec<u32>,
    /// Connections with something to read, in the order of their turn.
    ready: VecDeque<ConnectionId>,
    /// Connections whose consumer was busy.
    parked: VecDeque<ConnectionId>,
    /// Socket reads land here first, so that an idle connection needs no buffer and a busy one a fitting one.
    scratch: Box<[u8]>,
    dials: Vec<links::Dial>,
    /// The earliest moment at which something may be overdue.
    next_sweep: Option<Instant>,
    next_expiry: Instant,
    delivered: usize,
    admission: admission::Admission,
    held: memory::Held,
}

struct Slot<S> {
    generation: u32,
    peer: Option<Box<Peer<S>>>,
}

impl<S: Socket> Engine<S> {
    pub(crate) fn new(hub: Arc<Hub<S>>, now: Instant) -> Self {
        let options = &hub.options;
        let scratch = vec![0; options.read_buffer_bytes].into_boxed_slice();
        let next_expiry = now + options.request_expiry / clock::EXPIRY_SWEEPS;
        Self {
            hub,
            slots: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            parked: VecDeque::new(),
            scratch,
            dials: Vec::new(),
            next_sweep: None,
            next_expiry,
            delivered: 0,
            admission: admission::Admission::default(),
            held: memory::Held::default(),
        }
    }

    // --- the life of connections ---

    /// A name for a connection that is about to be added.
    pub(crate) fn reserve(&mut self) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, peer: None });
            self.slots.len() as u32 - 1
        });
        ConnectionId { slot, generation: self.slots[slot as usize].generation }
    }

    /// Gives a reserved name back unused.
    pub(crate) fn unreserve(&mut self, id: ConnectionId) {
        self.free.push(id.slot);
    }

    /// Adds a connection that the peer opened, after [`make_room`](Self::make_room) has said that there is room.
    pub(crate) fn add_inbound(
        &mut self,
        id: ConnectionId,
        peer: Endpoint,
        address: Address,
        socket: S,
        now: Instant,
    ) {
        let known = self.admission.knows(&address);
        let standing = Standing { address, known, served: false, member: false };
        let shared = self.hub.inbound(id, peer, socket);
        let peer = Box::new(Peer::inbound(shared.clone(), standing, now, &self.hub.options));
        self.enter(&peer);
        self.sweep_by(peer.deadline(now, &self.hub.options));
        self.slots[id.slot as usize].peer = Some(peer);
        self.hub.set_answering(id, Some(shared));
        NetMetrics::add(&self.hub.metrics.accepted, 1);
        NetMetrics::add(&self.hub.metrics.inbound_connections, 1);
    }

    pub(crate) fn close(&mut self, id: ConnectionId, reason: &str, now: Instant, inbound: &mut dyn Inbound) {
        if self.peer_mut(id).is_some()
            && let Some(peer) = self.slots[id.slot as usize].peer.take()
        {
            self.bury(peer, reason, now, inbound);
        }
    }

    fn bury(&mut self, mut peer: Box<Peer<S>>, reason: &str, now: Instant, inbound: &mut dyn Inbound) {
        self.forget_held(&mut peer);
        self.leave(&peer);
        let shared = &peer.shared;
        let id = shared.id;
        shared.outbox.close();
        shared.socket.shutdown();
        let slot = &mut self.slots[id.slot as usize];
        slot.generation = (slot.generation + 1) % ONE_WAY;
        self.free.push(id.slot);
        let metrics = self.hub.metrics.clone();
        match peer.role {
            Role::Connecting(link) => self.connect_failed(link, reason, now),
            Role::Inbound => {
                self.hub.set_answering(id, None);
                NetMetrics::sub(&metrics.inbound_connections, 1);
                NetMetrics::add(&metrics.closed, 1);
                tracing::debug!(peer = %shared.peer, reason, "inbound connection closed");
            }
            Role::Outbound(link_id) => {
                NetMetrics::sub(&metrics.outbound_connections, 1);
                NetMetrics::add(&metrics.closed, 1);
                self.link_down(link_id, peer.has_proven_itself(now, &self.hub.options), reason, now, inbound);
            }
        }
    }

    fn peers(&self) -> impl Iterator<Item = &Peer<S>> {
        self.slots.iter().filter_map(|slot| slot.peer.as_deref())
    }

    fn peer_mut(&mut self, id: ConnectionId) -> Option<&mut Peer<S>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation { slot.peer.as_deref_mut() } else { None }
    }

    // --- readiness ---

    pub(crate) fn on_readable(&mut self, id: ConnectionId, hangup: bool) {
        let Some(peer) = self.peer_mut(id) else { return };
        peer.readable = true;
        peer.hangup |= hangup;
        // A parked one reads on when its consumer has room.
        if !peer.queued && !peer.is_parked() {
            peer.queued = true;
            self.ready.push_back(id);
        }
    }

    pub(crate) fn on_writable(&mut self, id: ConnectionId) {
        let hub = self.hub.clone();
        let Some(peer) = self.peer_mut(id) else { return };
        let connection = &peer.shared;
        if let Err(error) = connection.outbox.on_writable(&connection.socket, &hub.metrics) {
            hub.break_connection(connection, format!("write failed: {error}"));
        }
        if let Role::Outbound(link) = peer.role {
            hub.tell_of_room(link, connection);
        }
    }

    // --- a turn ---

    /// Whether there is work that needs no event, or until when to wait at most.
    pub(crate) fn wait_limit(&self, now: Instant) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let sweep = self.next_sweep.map(|at| at.saturating_duration_since(now));
        let retry = (!self.parked.is_empty()).then_some(self.hub.options.busy_retry);
        match (sweep, retry) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Does everything that is due and delivers what is ready. Returns the links that want a connection.
    pub(crate) fn work(&mut self, now: Instant, inbound: &mut dyn Inbound) -> Vec<LinkId> {
        // In turn, and not all at once: thousands that wait for one slow consumer must not cost as much as if they were served.
        for _ in 0..self.parked.len().min(PARKED_OFFERS) {
            let Some(id) = self.parked.pop_front() else { break };
            if let Some(peer) = self.peer_mut(id) {
                peer.queued = true;
                self.ready.push_back(id);
            }
        }
        // Only what is ready now: who has more comes again next turn, after the others.
        for _ in 0..self.ready.len() {
            if let Some(id) = self.ready.pop_front() {
                self.serve(id, now, inbound);
            }
        }
        if let Some(notes) = self.hub.take_notes() {
            for (id, reason) in notes.broken {
                self.close(id, &reason, now, inbound);
            }
            self.bound_unread_answers(now, inbound);
            for remote in notes.new_remotes {
                self.know(Address::of(&remote.endpoint));
            }
            for id in notes.members {
                self.promote(id);
            }
            for remote in notes.announced {
                self.retime(&remote);
            }
            for remote in notes.heard {
                self.heard(&remote, now, inbound);
            }
            for id in notes.rooms {
                if let Some(link) = self.hub.link_at(id) {
                    self.delivered += 1;
                    inbound.on_room(id, &link.endpoint, link.class);
                }
            }
            let new_links = if self.hub.is_closed() { Vec::new() } else { notes.new_links };
            for id in new_links {
                self.add_links(id, now);
            }
        }
        if self.next_sweep.is_some_and(|at| at <= now) { self.sweep(now, inbound) } else { Vec::new() }
    }

    /// Ends a turn.
    pub(crate) fn finish(&mut self, inbound: &mut dyn Inbound) -> TurnReport {
        let delivered = std::mem::take(&mut self.delivered);
        if delivered > 0 {
            inbound.on_turn_end();
        }
        TurnReport { delivered, more: !self.ready.is_empty(), busy: self.parked.len() }
    }

    /// Closes every connection and fails every waiting request.
    pub(crate) fn shutdown(&mut self, now: Instant, inbound: &mut dyn Inbound) {
        self.hub.close();
        for slot in 0..self.slots.len() {
            if let Some(peer) = self.slots[slot].peer.take() {
                self.bury(peer, "the loop was shut down", now, inbound);
            }
        }
        self.ready.clear();
        self.parked.clear();
        self.dials.clear();
        self.next_sweep = None;
        self.finish(inbound);
    }

    /// Closes every connection without telling anybody; for a loop that is dropped.
    pub(crate) fn abandon(&mut self) {
        struct Nobody;
        impl Inbound for Nobody {
            fn on_request(&mut self, _: ReplyHandle, _: RequestFrame) -> Accept {
                Accept::Taken
            }
            fn on_response(&mut self, _: RequestContext, _: ResponseFrame) {}
            fn on_request_failed(&mut self, _: RequestContext, _: &str) {}
            fn on_connected(&mut self, _: LinkId, _: &Endpoint, _: ConnectionClass) {}
        }
        self.shutdown(Instant::now(), &mut Nobody);
    }
}
