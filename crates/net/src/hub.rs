//! The half of a loop that every thread sees: links, connections to answer on, queues.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ringraft_proto::OutFrame;
use rustc_hash::FxHashMap;

use crate::metrics::NetMetrics;
use crate::outbox::{AtMeter, Meter, Outbox, PushError};
use crate::pending::PendingTable;
use crate::remote::{Remote, Remotes};
use crate::socket::Socket;
use crate::{
    ConnectionClass, Endpoint, LinkId, LogLimiter, LoopWaker, NetLoopOptions, ReplyHandle, RequestContext,
    SendError, Transport,
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
    /// Requests that were taken and not answered yet.
    pub(crate) unanswered: AtomicI32,
    /// The member in whose name raft requests came on it.
    member: OnceLock<Arc<Remote>>,
}

impl<S> Connection<S> {
    pub(crate) fn new(id: ConnectionId, peer: Endpoint, socket: S, outbox: Outbox) -> Self {
        Self { id, peer, socket, outbox, unanswered: AtomicI32::new(0), member: OnceLock::new() }
    }
}

/// A path to a peer host. It outlives its connections.
pub(crate) struct Link<S> {
    pub(crate) endpoint: Endpoint,
    pub(crate) class: ConnectionClass,
    pub(crate) remote: Arc<Remote>,
    pub(crate) state: Mutex<LinkState<S>>,
}

/// One lock for both: a request is in the table and in the outbox of the same connection, or in neither.
pub(crate) struct LinkState<S> {
    pub(crate) connection: Option<Arc<Connection<S>>>,
    pub(crate) pending: PendingTable,
}

type Answering<S> = RwLock<Vec<(u32, Option<Arc<Connection<S>>>)>>;

/// What other threads left for the loop.
#[derive(Default)]
pub(crate) struct Notes {
    /// Connections to close, and why.
    pub(crate) broken: Vec<(ConnectionId, String)>,
    /// Links to connect.
    pub(crate) new_links: Vec<LinkId>,
    /// Hosts of members that were heard of for the first time.
    pub(crate) new_remotes: Vec<Arc<Remote>>,
    /// Inbound connections that turned out to be a member's.
    pub(crate) members: Vec<ConnectionId>,
    /// Hosts that announced extensions, or stopped to.
    pub(crate) announced: Vec<Arc<Remote>>,
    /// Hosts that were heard while a link to them is down.
    pub(crate) heard: Vec<Arc<Remote>>,
    /// Links that have room again.
    pub(crate) rooms: Vec<LinkId>,
}

/// What the transport and the loop share.
pub(crate) struct Hub<S> {
    pub(crate) options: NetLoopOptions,
    pub(crate) metrics: Arc<NetMetrics>,
    pub(crate) log: LogLimiter,
    /// Bytes of requests, and of answers, that wait to be sent.
    requests: Arc<Meter>,
    pub(crate) answers: Arc<Meter>,
    pub(crate) waker: LoopWaker,
    /// Ticks with each sweep for overdue requests; the age of a request is counted in these.
    pub(crate) epoch: AtomicU32,
    links: RwLock<Vec<Arc<Link<S>>>>,
    by_name: Mutex<FxHashMap<(Endpoint, ConnectionClass), LinkId>>,
    remotes: Remotes,
    /// Inbound connections by slot.
    answering: Answering<S>,
    notes: Mutex<Notes>,
    /// There is something in `notes`, or too much in `answers`.
    noted: AtomicBool,
    closed: AtomicBool,
    max_inbound_connections: AtomicUsize,
}

impl<S: Socket> Hub<S> {
    pub(crate) fn new(options: NetLoopOptions, waker: LoopWaker) -> Self {
        let meter = || Meter::new(options.max_total_outbound_bytes);
        Self {
            requests: meter(),
            answers: meter(),
            max_inbound_connections: AtomicUsize::new(options.max_inbound_connections),
            options,
            metrics: Arc::default(),
            log: LogLimiter::new(),
            waker,
            epoch: AtomicU32::new(0),
            links: RwLock::default(),
            by_name: Mutex::default(),
            remotes: Remotes::default(),
            answering: RwLock::default(),
            notes: Mutex::default(),
            noted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn link_at(&self, id: LinkId) -> Option<Arc<Link<S>>> {
        self.links.read().get(id.0 as usize).cloned()
    }

    /// A connection that answers go out on.
    pub(crate) fn inbound(&self, id: ConnectionId, peer: Endpoint, socket: S) -> Arc<Connection<S>> {
        self.connection(id, peer, socket, &self.answers, AtMeter::Take)
    }

    /// A connection that requests go out on.
    pub(crate) fn outbound(&self, id: ConnectionId, peer: Endpoint, socket: S) -> Arc<Connection<S>> {
        self.connection(id, peer, socket, &self.requests, AtMeter::Refuse)
    }

    fn connection(
        &self,
        id: ConnectionId,
        peer: Endpoint,
        socket: S,
        meter: &Arc<Meter>,
        at_meter: AtMeter,
    ) -> Arc<Connection<S>> {
        let (bytes, frames) = (self.options.max_outbound_bytes, self.options.max_outbound_frames);
        let outbox = Outbox::new(bytes, frames, meter.clone(), at_meter);
        Arc::new(Connection::new(id, peer, socket, outbox))
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
        self.note(|notes| notes.broken.push((connection.id, reason)));
    }

    /// Has the loop look at what others left for it.
    fn note(&self, what: impl FnOnce(&mut Notes)) {
        what(&mut self.notes.lock());
        self.noted.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Has the loop say that a link has room again, if it has refused something before.
    pub(crate) fn tell_of_room(&self, link: LinkId, connection: &Connection<S>) {
        if connection.outbox.take_room() {
            self.note(|notes| notes.rooms.push(link));
        }
    }

    /// What came in since the last look.
    pub(crate) fn take_notes(&self) -> Option<Notes> {
        if !self.noted.load(Ordering::Relaxed) || !self.noted.swap(false, Ordering::Acquire) {
            return None;
        }
        Some(std::mem::take(&mut *self.notes.lock()))
    }

    /// Open inbound connections at most, from now on; what is above it leaves as others come.
    pub(crate) fn set_max_inbound_connections(&self, max: usize) {
        let max = max.clamp(1, self.options.max_inbound_connections);
        self.max_inbound_connections.store(max, Ordering::Relaxed);
    }

    pub(crate) fn max_inbound_connections(&self) -> usize {
        self.max_inbound_connections.load(Ordering::Relaxed)
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

    fn set_extended(&self, remote: &Arc<Remote>, announced: bool) {
        if remote.is_extended() != announced
            && remote.extended.swap(announced, Ordering::Relaxed) != announced
        {
            self.note(|notes| notes.announced.push(remote.clone()));
        }
    }

    /// How long what was sent to a host may go unacknowledged by its system.
    pub(crate) fn user_timeout(&self, remote: &Remote) -> Duration {
        match remote.is_extended() {
            true => self.options.peer_user_timeout,
            false => self.options.foreign_user_timeout,
        }
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
        let (remote, _) = self.remotes.get(endpoint);
        remote.links_down.fetch_add(1, Ordering::Relaxed);
        links.push(Arc::new(Link { endpoint: endpoint.clone(), class, remote, state }));
        by_name.insert((endpoint.clone(), class), id);
        drop(links);
        self.note(|notes| notes.new_links.push(id));
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
        let pushed = self.push(&connection, frame);
        connection.unanswered.fetch_sub(1, Ordering::Relaxed);
        if self.answers.is_over() {
            self.note(|_| ());
        }
        pushed.map_err(|error| match error {
            PushError::Full => {
                // An answer cannot be left out, and the peer does not read: let it begin anew.
                self.break_connection(&connection, "the outbound queue is full of unread answers".to_owned());
                SendError::Full(connection.peer.clone())
            }
            PushError::Closed => SendError::Closed,
        })
    }

    fn member_spoke(
        &self,
        handle: ReplyHandle,
        announced: Option<bool>,
        member: &mut dyn FnMut() -> Option<Endpoint>,
    ) {
        let Some(connection) = self.answering(handle) else { return };
        let remote = match connection.member.get() {
            Some(remote) => remote,
            None => {
                let Some(endpoint) = member() else { return };
                let (remote, is_new) = self.remotes.get(&endpoint);
                if connection.member.set(remote.clone()).is_ok() {
                    self.note(|notes| {
                        notes.members.push(connection.id);
                        notes.new_remotes.extend(is_new.then_some(remote.clone()));
                    });
                }
                &{ remote }
            }
        };
        if let Some(announced) = announced {
            self.set_extended(remote, announced);
        }
        if remote.links_down.load(Ordering::Relaxed) > 0 && !remote.noted.swap(true, Ordering::Relaxed) {
            self.note(|notes| notes.heard.push(remote.clone()));
        }
    }

    fn is_answerable(&self, handle: ReplyHandle) -> bool {
        self.answering(handle).is_some()
    }

    fn extensions_announced(&self, endpoint: &Endpoint, announced: bool) {
        let (remote, _) = self.remotes.get(endpoint);
        self.set_extended(&remote, announced);
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
