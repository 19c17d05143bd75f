//! The event loop of one in-process host, and its sending side.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringraft_proto::OutFrame;

use super::network::{HostExists, Network};
use super::pipe::{End, Event, Mailbox};
use crate::address::Address;
use crate::engine::Engine;
use crate::hub::Hub;
use crate::{
    ConnectionClass, Endpoint, EventLoop, Inbound, LinkId, LoopWaker, NetLoopOptions, NetMetrics,
    ReplyHandle, RequestContext, SendError, Transport, TurnReport,
};

/// The in-process event loop; the counterpart of [`NetLoop`](crate::tcp::NetLoop). Made by [`Network::host`].
pub struct InprocLoop {
    network: Network,
    endpoint: Endpoint,
    mailbox: Arc<Mailbox>,
    engine: Engine<End>,
    waker: LoopWaker,
}

impl Network {
    /// A new host: its loop, and the transport that sends as that host. It leaves when the loop is dropped.
    ///
    /// # Errors
    /// [`HostExists`]; nothing changed.
    pub fn host(
        &self,
        endpoint: &Endpoint,
        options: NetLoopOptions,
    ) -> Result<(InprocLoop, InprocTransport), HostExists> {
        options.validate()?;
        let (event_loop, transport, mailbox) = InprocLoop::create(self.clone(), endpoint.clone(), options);
        self.join(endpoint, mailbox)?;
        Ok((event_loop, transport))
    }
}

impl InprocLoop {
    fn create(
        network: Network,
        endpoint: Endpoint,
        options: NetLoopOptions,
    ) -> (Self, InprocTransport, Arc<Mailbox>) {
        let waker = LoopWaker::for_parker();
        let mailbox = Arc::new(Mailbox::new(waker.clone()));
        let hub = Arc::new(Hub::new(options, waker.clone()));
        let transport = InprocTransport { hub: hub.clone() };
        let engine = Engine::new(hub, Instant::now());
        let this = Self { network, endpoint, mailbox: mailbox.clone(), engine, waker };
        (this, transport, mailbox)
    }

    /// The counters of the loop and its transport.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.engine.hub.metrics
    }

    fn handle(&mut self, event: Event, now: Instant, inbound: &mut dyn Inbound) {
        match event {
            Event::Readable(id) => self.engine.on_readable(id, false),
            Event::Writable(id) => self.engine.on_writable(id),
            Event::NetworkChanged => self.engine.retry_now(now),
            Event::Incoming { from, end } => {
                // Dropping the end closes the connection.
                let address = Address::of(&from);
                if !self.engine.hub.is_closed() && self.engine.make_room(&address, now, inbound) {
                    let id = self.engine.reserve();
                    end.attach(&self.mailbox, id);
                    self.engine.add_inbound(id, from, address, end, now);
                    self.engine.on_readable(id, false);
                }
            }
        }
    }

    fn connect(&mut self, link: LinkId, now: Instant, inbound: &mut dyn Inbound) {
        if !self.engine.wants_connection(link) {
            return;
        }
        let Some(endpoint) = self.engine.hub.link_at(link).map(|link| link.endpoint.clone()) else { return };
        match self.network.connect(&self.endpoint, &endpoint) {
            Ok(end) => {
                let id = self.engine.reserve();
                end.attach(&self.mailbox, id);
                self.engine.add_connecting(id, link, endpoint, end, now);
                self.engine.established(id, now, inbound);
                self.engine.on_readable(id, false);
            }
            Err(reason) => self.engine.connect_failed(link, reason, now),
        }
    }
}

impl EventLoop for InprocLoop {
    fn turn(&mut self, timeout: Option<Duration>, inbound: &mut dyn Inbound) -> io::Result<TurnReport> {
        let timeout = [timeout, self.engine.wait_limit(Instant::now())].into_iter().flatten().min();
        if timeout != Some(Duration::ZERO) && self.waker.try_sleep() {
            self.waker.park(timeout);
        }
        self.waker.awake();
        let now = Instant::now();
        for event in self.mailbox.take() {
            self.handle(event, now, inbound);
        }
        for link in self.engine.work(now, inbound) {
            self.connect(link, now, inbound);
        }
        Ok(self.engine.finish(inbound))
    }

    fn waker(&self) -> LoopWaker {
        self.waker.clone()
    }

    fn shutdown(&mut self, inbound: &mut dyn Inbound) {
        self.network.leave(&self.endpoint, &self.mailbox);
        self.engine.shutdown(Instant::now(), inbound);
        // Connections that nobody accepted close with their ends.
        self.mailbox.take();
    }
}

impl Drop for InprocLoop {
    fn drop(&mut self) {
        self.network.leave(&self.endpoint, &self.mailbox);
        self.engine.abandon();
        self.mailbox.take();
    }
}

impl fmt::Debug for InprocLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InprocLoop").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Sends as one host of a [`Network`]. Cheap to clone.
#[derive(Clone)]
pub struct InprocTransport {
    hub: Arc<Hub<End>>,
}

impl InprocTransport {
    /// The counters of the loop and this transport.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.hub.metrics
    }
}

impl Transport for InprocTransport {
    fn link(&self, endpoint: &Endpoint, class: ConnectionClass) -> LinkId {
        self.hub.link(endpoint, class)
    }

    fn request(
        &self,
        link: LinkId,
        context: RequestContext,
        encode: &mut dyn FnMut(u32) -> OutFrame,
    ) -> Result<(), SendError> {
        self.hub.request(link, context, encode)
    }

    fn reply(&self, handle: ReplyHandle, frame: OutFrame) -> Result<(), SendError> {
        self.hub.reply(handle, frame)
    }

    fn member_spoke(
        &self,
        handle: ReplyHandle,
        announced: Option<bool>,
        member: &mut dyn FnMut() -> Option<Endpoint>,
    ) {
        self.hub.member_spoke(handle, announced, member);
    }

    fn is_answerable(&self, handle: ReplyHandle) -> bool {
        self.hub.is_answerable(handle)
    }

    fn extensions_announced(&self, endpoint: &Endpoint, announced: bool) {
        self.hub.extensions_announced(endpoint, announced);
    }

    fn set_max_inbound_connections(&self, max: usize) {
        self.hub.set_max_inbound_connections(max);
    }

    fn flush(&self, link: LinkId) {
        self.hub.flush(link);
    }

    fn flush_reply(&self, handle: ReplyHandle) {
        self.hub.flush_reply(handle);
    }
}

impl fmt::Debug for InprocTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InprocTransport").field("metrics", &self.hub.metrics).finish()
    }
}
