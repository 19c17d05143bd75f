//! A host's side of the simulated network: what the engine sends through (`Transport`), until the world carries it away.

use std::collections::BTreeMap;

use bytes::BytesMut;
use parking_lot::Mutex;
use ringraft_net::{ConnectionClass, Endpoint, LinkId, ReplyHandle, RequestContext, SendError, Transport};
use ringraft_proto::{Frame, FrameDecoder, FrameLimits, OutFrame};

/// Names a connection of the world; never used twice.
pub(super) type ConnectionId = u32;

struct Link {
    endpoint: Endpoint,
    class: ConnectionClass,
    connection: Option<ConnectionId>,
    queue: Vec<OutFrame>,
    waiting: BTreeMap<u32, (u64, RequestContext)>,
    next_id: u32,
    /// It has refused a request since it had room last.
    refused: bool,
}

#[derive(Default)]
struct State {
    links: Vec<Link>,
    /// Links that the world has not looked at yet.
    fresh: Vec<LinkId>,
    /// Connections of others to this host, with answers that wait for a flush.
    inbound: BTreeMap<ConnectionId, Vec<OutFrame>>,
    outgoing: Vec<(ConnectionId, bool, OutFrame)>,
    outbox: usize,
    now: u64,
}

/// One process's transport; a process that is started again gets a new one.
pub(super) struct SimTransport {
    state: Mutex<State>,
}

impl SimTransport {
    pub(super) fn new(outbox: usize) -> SimTransport {
        SimTransport { state: Mutex::new(State { outbox, ..State::default() }) }
    }

    /// Links that were asked for since the last call.
    pub(super) fn take_fresh(&self, now: u64) -> Vec<(LinkId, Endpoint, ConnectionClass)> {
        let mut state = self.state.lock();
        state.now = now;
        let fresh = std::mem::take(&mut state.fresh);
        fresh
            .into_iter()
            .map(|id| {
                let link = &state.links[id.0 as usize];
                (id, link.endpoint.clone(), link.class)
            })
            .collect()
    }

    /// What time it is, for requests that are sent from now on.
    pub(super) fn set_now(&self, now: u64) {
        self.state.lock().now = now;
    }

    /// Frames that were flushed: connection, whether they are requests, frame.
    pub(super) fn take_outgoing(&self) -> Vec<(ConnectionId, bool, OutFrame)> {
        std::mem::take(&mut self.state.lock().outgoing)
    }

    pub(super) fn connected(&self, link: LinkId, connection: ConnectionId) {
        self.state.lock().links[link.0 as usize].connection = Some(connection);
    }

    /// The link is down; gives the requests that nobody will answer.
    pub(super) fn disconnected(&self, link: LinkId) -> Vec<RequestContext> {
        let link = &mut self.state.lock().links[link.0 as usize];
        link.connection = None;
        link.queue.clear();
        std::mem::take(&mut link.waiting).into_values().map(|(_, context)| context).collect()
    }

    pub(super) fn accepted(&self, connection: ConnectionId) {
        self.state.lock().inbound.insert(connection, Vec::new());
    }

    pub(super) fn inbound_closed(&self, connection: ConnectionId) {
        self.state.lock().inbound.remove(&connection);
    }

    /// The request that an answer belongs to, once.
    pub(super) fn answered(&self, link: LinkId, id: u32) -> Option<RequestContext> {
        self.state.lock().links[link.0 as usize].waiting.remove(&id).map(|(_, context)| context)
    }

    /// Links that have room again after they refused something.
    pub(super) fn take_rooms(&self) -> Vec<(LinkId, Endpoint, ConnectionClass)> {
        let mut state = self.state.lock();
        let half = state.outbox / 2;
        let rooms =
            (0..).zip(&mut state.links).filter(|(_, link)| link.refused && link.waiting.len() <= half);
        rooms
            .map(|(at, link)| {
                link.refused = false;
                (LinkId(at), link.endpoint.clone(), link.class)
            })
            .collect()
    }

    /// What a request that waits for its answer was sent with.
    pub(super) fn context(&self, link: LinkId, id: u32) -> Option<RequestContext> {
        self.state.lock().links.get(link.0 as usize)?.waiting.get(&id).map(|(_, context)| *context)
    }

    /// Requests that were sent before `limit` and are given up.
    pub(super) fn expire(&self, limit: u64) -> Vec<RequestContext> {
        let mut expired = Vec::new();
        for link in &mut self.state.lock().links {
            link.waiting.retain(|_, (sent, context)| {
                let keep = *sent >= limit;
                if !keep {
                    expired.push(*context);
                }
                keep
            });
        }
        expired
    }

    /// Requests that were sent at `since` or later and wait for an answer.
    pub(super) fn waiting(&self, since: u64) -> usize {
        let links = &self.state.lock().links;
        links.iter().flat_map(|link| link.waiting.values()).filter(|(sent, _)| *sent >= since).count()
    }
}

impl Transport for SimTransport {
    fn link(&self, endpoint: &Endpoint, class: ConnectionClass) -> LinkId {
        let mut state = self.state.lock();
        if let Some(at) = state.links.iter().position(|l| l.endpoint == *endpoint && l.class == class) {
            return LinkId(at as u32);
        }
        let id = LinkId(state.links.len() as u32);
        state.links.push(Link {
            endpoint: endpoint.clone(),
            class,
            connection: None,
            queue: Vec::new(),
            waiting: BTreeMap::new(),
            next_id: 1,
            refused: false,
        });
        state.fresh.push(id);
        id
    }

    fn request(
        &self,
        link: LinkId,
        context: RequestContext,
        encode: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        let mut state = self.state.lock();
        let (outbox, now) = (state.outbox, state.now);
        let link = state.links.get_mut(link.0 as usize).ok_or(SendError::Closed)?;
        if link.connection.is_none() {
            return Err(SendError::NotConnected(link.endpoint.clone()));
        }
        if link.waiting.len() >= outbox {
            link.refused = true;
            return Err(SendError::Full(link.endpoint.clone()));
        }
        let id = link.next_id;
        link.next_id += 1;
        link.waiting.insert(id, (now, context));
        link.queue.push(encode(id));
        Ok(())
    }

    fn reply(&self, handle: ReplyHandle, frame: OutFrame) -> Result<(), SendError> {
        match self.state.lock().inbound.get_mut(&handle.connection) {
            Some(queue) => queue.push(frame),
            None => return Err(SendError::Closed),
        }
        Ok(())
    }

    fn flush(&self, link: LinkId) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(link) = state.links.get_mut(link.0 as usize) else { return };
        if let Some(connection) = link.connection {
            state.outgoing.extend(link.queue.drain(..).map(|frame| (connection, true, frame)));
        }
    }

    fn flush_reply(&self, handle: ReplyHandle) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(queue) = state.inbound.get_mut(&handle.connection) {
            let connection = handle.connection;
            state.outgoing.extend(queue.drain(..).map(|frame| (connection, false, frame)));
        }
    }
}

/// The frame as a receiver decodes it.
///
/// # Errors
/// What the decoder says; a frame of ours must decode.
pub(super) fn decode(frame: &OutFrame) -> Result<Frame, String> {
    let mut bytes = BytesMut::with_capacity(frame.len());
    frame.parts.iter().for_each(|part| bytes.extend_from_slice(part));
    match FrameDecoder::new(FrameLimits::default()).decode(&mut bytes) {
        Ok(Some(frame)) if bytes.is_empty() => Ok(frame),
        Ok(_) => Err("a frame was not decoded as a whole".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
