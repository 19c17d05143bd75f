//! The half of a loop that every thread sees: links, connections to answer on, queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Mutex, RwLock};
use ringraft_proto::OutFrame;
use rustc_hash::FxHashMap;

use crate::metrics::NetMetrics;
use crate::outbox::{Outbox, PushError};
use crate::pending::PendingTable;
use crate::socket::Socket;
use crate::{
    ConnectionClass, Endpoint, LinkId, LoopWaker, NetLoopOptions, ReplyHandle, RequestContext, SendError,
    Transport,
};

/// Names one life of a connection slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    pub(crate) slot: u32,
    /// Below 2^31: the top bit of a reply handle's generation says that the request was one-way.
    pub(crate) generation: u32,
}

/// Marks the handle of a one-way request, which is never answered.
pub(crate) const ONE_WAY: u32 = 1 << 31;

/// A connection as its writers see it.
pub(crate) struct Connection<S> {
    pub(crate) id: ConnectionId,
    /// Who is at the other end.
    pub(crate) peer: Endpoint,
    pub(crate) socket: S,
    pub(crate) outbox: Outbox,
}

/// A path to a peer host. It outlives its connections.
pub(crate) struct Link<S> {
    pub(crate) endpoint: Endpoint,
    pub(crate) class: ConnectionClass,
    pub(crate) state: Mutex<LinkState<S>>,
}

/// One lock for both: a request is in the table and in the outbox of the same connection, or in neither.
pub(crate) struct LinkState<S> {
    pub(crate) connection: Option<Arc<Connection<S>>>,
    pub(crate) pending: PendingTable,
}

type Answering<S> = RwLock<Vec<(u32, Option<Arc<Connection<S>>>)>>;

/// What other threads left for the loop.
pub(crate) struct Notes {
    /// Connections to close, and why.
    pub(crate) broken: Vec<(ConnectionId, String)>,
    /// Links to connect.
    pub(crate) new_links: Vec<LinkId>,
    /// Links that have room again.
    pub(crate) rooms: Vec<LinkId>,
}

/// What the transport and the loop share.
pub(crate) struct Hub<S> {
    pub(crate) options: NetLoopOptions,
    pub(crate) metrics: Arc<NetMetrics>,
    pub(crate) waker: LoopWaker,
    /// Ticks with each sweep for overdue requests; the age of a request is counted in these.
    pub(crate) epoch: AtomicU32,
    links: RwLock<Vec<Arc<Link<S>>>>,
    by_name: Mutex<FxHashMap<(Endpoint, ConnectionClass), LinkId>>,
    new_links: Mutex<Vec<LinkId>>,
    /// Inbound connections by slot.
    answering: Answering<S>,
    broken: Mutex<Vec<(ConnectionId, String)>>,
    rooms: Mutex<Vec<LinkId>>,
    /// There is something in `new_links`, `broken` or `rooms`.
    notes: AtomicBool,
    closed: AtomicBool,
}

impl<S: Socket> Hub<S> {
    pub(crate) fn new(options: NetLoopOptions, waker: LoopWaker) -> Self {
        Self {
            options,
            metrics: Arc::default(),
            waker,
            epoch: AtomicU32::new(0),
            links: RwLock::default(),
            by_name: Mutex::default(),
            new_links: Mutex::default(),
            answering: RwLock::default(),
            broken: Mutex::default(),
            rooms: Mutex::default(),
            notes: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn link_at(&self, id: LinkId) -> Option<Arc<Link<S>>> {
        self.links.read().get(id.0 as usize).cloned()
    }

    pub(crate) fn connection(&self, id: ConnectionId, peer: Endpoint, socket: S) -> Arc<Connection<S>> {
        let outbox = Outbox::new(self.options.max_outbound_bytes, self.options.max_outbound_frames);
        Arc::new(Connection { id, peer, socket, outbox })
    }

    /// Queues a frame on a connection.
    pub(crate) fn push(&self, connection: &Connection<S>, frame: OutFrame) -> Result<(), PushError> {
        connection.outbox.push(frame).inspect_err(|error| {
            if *error == PushError::Full {
                NetMetrics::add(&self.metrics.outbox_full, 1);
            }
        })
    }

    /// Sends what the connection's outbox holds; a failure reaches the loop as a broken connection.
    pub(crate) fn send(&self, connection: &Connection<S>) {
        if let Err(error) = connection.outbox.flush(&connection.socket, &self.metrics) {
            self.break_connection(connection, format!("write failed: {error}"));
        }
    }

    /// Has the loop close the connection.
    pub(crate) fn break_connection(&self, connection: &Connection<S>, reason: String) {
        connection.outbox.close();
        self.broken.lock().push((connection.id, reason));
        self.notes.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Has the loop say that a link has room again, if it has refused something before.
    pub(crate) fn tell_of_room(&self, link: LinkId, connection: &Connection<S>) {
        if connection.outbox.take_room() {
            self.rooms.lock().push(link);
            self.notes.store(true, Ordering::Release);
            self.waker.wake();
        }
    }

    /// What came in since the last look.
    pub(crate) fn take_notes(&self) -> Option<Notes> {
        if !self.notes.load(Ordering::Relaxed) || !self.notes.swap(false, Ordering::Acquire) {
            return None;
        }
        let broken = std::mem::take(&mut *self.broken.lock());
        let new_links = std::mem::take(&mut *self.new_links.lock());
        let rooms = std::mem::take(&mut *self.rooms.lock());
        Some(Notes { broken, new_links, rooms })
    }

    /// Makes an inbound connection answerable, or (`None`) not any more.
    pub(crate) fn set_answering(&self, id: ConnectionId, connection: Option<Arc<Connection<S>>>) {
        let mut answering = self.answering.write();
        let slot = id.slot as usize;
        if answering.len() <= slot {
            answering.resize_with(slot + 1, || (0, None));
        }
        answering[slot] = (id.generation, connection);
    }

    fn answering(&self, handle: ReplyHandle) -> Option<Arc<Connection<S>>> {
        let answering = self.answering.read();
        let (generation, connection) = answering.get(handle.connection as usize)?;
        if *generation == handle.generation & !ONE_WAY { connection.clone() } else { None }
    }

    /// Nothing can be sent any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl<S: Socket> Transport for Hub<S> {
    fn link(&self, endpoint: &Endpoint, class: ConnectionClass) -> LinkId {
        let mut by_name = self.by_name.lock();
        if let Some(id) = by_name.get(&(endpoint.clone(), class)) {
            return *id;
        }
        let mut links = self.links.write();
        let id = LinkId(links.len() as u32);
        let pending = PendingTable::new(self.options.max_inflight_requests as u32);
        let state = Mutex::new(LinkState { connection: None, pending });
        links.push(Arc::new(Link { endpoint: endpoint.clone(), class, state }));
        by_name.insert((endpoint.clone(), class), id);
        drop(links);
        self.new_links.lock().push(id);
        self.notes.store(true, Ordering::Release);
        self.waker.wake();
        id
    }

    fn request(
        &self,
        link: LinkId,
        context: RequestContext,
        encode: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        // Held throughout instead of cloning the link: nobody takes this lock while holding a link's.
        let links = self.links.read();
        let Some(link) = links.get(link.0 as usize) else { return Err(SendError::Closed) };
        let mut state = link.state.lock();
        let state = &mut *state;
        let Some(connection) = &state.connection else {
            return Err(if self.is_closed() {
                SendError::Closed
            } else {
                SendError::NotConnected(link.endpoint.clone())
            });
        };
        let Some(id) = state.pending.insert(context, self.epoch.load(Ordering::Relaxed)) else {
            NetMetrics::add(&self.metrics.inflight_full, 1);
            return Err(SendError::Full(link.endpoint.clone()));
        };
        self.push(connection, encode(id)).map_err(|error| {
            state.pending.take(id);
            match error {
                PushError::Full => SendError::Full(link.endpoint.clone()),
                // It broke a moment ago and the loop is about to see it.
                PushError::Closed => SendError::NotConnected(link.endpoint.clone()),
            }
        })
    }

    fn reply(&self, handle: ReplyHandle, frame: OutFrame) -> Result<(), SendError> {
        if handle.generation & ONE_WAY != 0 {
            return Ok(());
        }
        let Some(connection) = self.answering(handle) else { return Err(SendError::Closed) };
        self.push(&connection, frame).map_err(|error| match error {
            PushError::Full => {
                // An answer cannot be left out, and the peer does not read: let it begin anew.
                self.break_connection(&connection, "the outbound queue is full of unread answers".to_owned());
                SendError::Full(connection.peer.clone())
            }
            PushError::Closed => SendError::Closed,
        })
    }

    fn flush(&self, id: LinkId) {
        let Some(link) = self.link_at(id) else { return };
        let connection = link.state.lock().connection.clone();
        if let Some(connection) = connection {
            self.send(&connection);
            self.tell_of_room(id, &connection);
        }
    }

    fn flush_reply(&self, handle: ReplyHandle) {
        if let Some(connection) = self.answering(handle) {
            self.send(&connection);
        }
    }
}
