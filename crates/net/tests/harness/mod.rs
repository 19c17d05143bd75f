//! Hosts that are driven by hand, over TCP or in one process.
#![allow(dead_code)]

pub(crate) mod raw;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringraft_net::inproc::Network;
use ringraft_net::tcp::NetLoop;
use ringraft_net::{
    Accept, ConnectionClass, Endpoint, EventLoop, Inbound, LinkId, NetLoopOptions, NetMetrics, ReplyHandle,
    RequestContext, SendError, Transport,
};
use ringraft_proto::{
    OutFrame, RequestFrame, ResponseFrame, ResponseStatus, encode_request_shared, encode_response_shared,
};

/// Longer than any of this may take on a busy machine; reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A class that the decoder does not know.
pub(crate) const CLASS: &str = "net.test.Message";

/// Keeps everything it is told.
pub(crate) struct Recorder {
    pub(crate) requests: Vec<(ReplyHandle, RequestFrame)>,
    pub(crate) responses: Vec<(RequestContext, ResponseFrame)>,
    pub(crate) failed: Vec<(RequestContext, String)>,
    pub(crate) connected: Vec<(LinkId, Endpoint, ConnectionClass)>,
    pub(crate) turn_ends: usize,
    /// How many more requests are taken; all when `None`.
    pub(crate) room: Option<usize>,
    /// Requests that are taken in one turn; all when `None`.
    pub(crate) share: Option<usize>,
    taken: usize,
    /// Which requests are of a kind that is served.
    pub(crate) serves: fn(&RequestFrame) -> bool,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            requests: Vec::new(),
            responses: Vec::new(),
            failed: Vec::new(),
            connected: Vec::new(),
            turn_ends: 0,
            room: None,
            share: None,
            taken: 0,
            serves: |_| true,
        }
    }
}

impl Inbound for Recorder {
    fn on_request(&mut self, handle: ReplyHandle, frame: RequestFrame) -> Accept {
        if self.share.is_some_and(|share| self.taken >= share) {
            return Accept::Later(frame);
        }
        self.taken += 1;
        match &mut self.room {
            Some(0) => return Accept::Busy(frame),
            Some(room) => *room -= 1,
            None => {}
        }
        let served = (self.serves)(&frame);
        self.requests.push((handle, frame));
        if served { Accept::Taken } else { Accept::Refused }
    }

    fn on_response(&mut self, context: RequestContext, frame: ResponseFrame) {
        self.responses.push((context, frame));
    }

    fn on_request_failed(&mut self, context: RequestContext, reason: &str) {
        self.failed.push((context, reason.to_owned()));
    }

    fn on_connected(&mut self, link: LinkId, endpoint: &Endpoint, class: ConnectionClass) {
        self.connected.push((link, endpoint.clone(), class));
    }

    fn on_turn_end(&mut self) {
        self.turn_ends += 1;
        self.taken = 0;
    }
}

/// One host under test.
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) event_loop: Box<dyn EventLoop>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) metrics: Arc<NetMetrics>,
    pub(crate) seen: Recorder,
}

impl Host {
    pub(crate) fn turn(&mut self, timeout: Duration) {
        self.event_loop.turn(Some(timeout), &mut self.seen).unwrap();
    }

    pub(crate) fn send(&self, link: LinkId, ticket: u64, content: Bytes) -> Result<(), SendError> {
        self.transport.request(link, context(ticket), &mut |id| request(id, content.clone()))
    }

    pub(crate) fn reply(&self, handle: ReplyHandle, content: Bytes) -> Result<(), SendError> {
        self.transport.reply(handle, response(handle, content))
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.metrics.values().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no metric {name}")).1
    }

    pub(crate) fn tickets(&self) -> Vec<u64> {
        self.seen.responses.iter().map(|(context, _)| context.ticket).collect()
    }
}

pub(crate) fn context(ticket: u64) -> RequestContext {
    RequestContext { lane: 1, kind: 2, slot: 3, generation: 4, ticket }
}

pub(crate) fn request(id: u32, content: Bytes) -> OutFrame {
    encode_request_shared(id, CLASS, 5000, &[], content)
}

pub(crate) fn response(handle: ReplyHandle, content: Bytes) -> OutFrame {
    encode_response_shared(handle.request, 1, ResponseStatus::Success, CLASS, content)
}

/// Bytes of an encoded frame.
pub(crate) fn bytes_of(frame: &OutFrame) -> Vec<u8> {
    frame.parts.concat()
}

/// Recognisable content.
pub(crate) fn pattern(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Turns all hosts until the condition holds.
#[track_caller]
pub(crate) fn drive(hosts: &mut [&mut Host], what: &str, mut done: impl FnMut(&mut [&mut Host]) -> bool) {
    let start = Instant::now();
    while !done(hosts) {
        assert!(start.elapsed() < PATIENCE, "not reached: {what}");
        for host in hosts.iter_mut() {
            host.turn(Duration::from_millis(1));
        }
    }
}

/// A way to make hosts.
pub(crate) trait World {
    fn new() -> Self;

    /// A host under a new name.
    fn host(&self, options: NetLoopOptions) -> Host;

    /// A host under the name of one that was dropped.
    fn host_at(&self, endpoint: &Endpoint, options: NetLoopOptions) -> Host;

    /// A name under which nobody listens.
    fn nobody(&self) -> Endpoint;
}

/// Options whose pauses are short, so that tests need not wait.
pub(crate) fn quick() -> NetLoopOptions {
    NetLoopOptions {
        reconnect_backoff_min: Duration::from_millis(1),
        reconnect_backoff_max: Duration::from_millis(20),
        ..NetLoopOptions::default()
    }
}

pub(crate) struct Tcp;

impl Tcp {
    fn listen(address: &str, options: NetLoopOptions) -> Host {
        let (mut event_loop, transport) = NetLoop::new(options).unwrap();
        let bound = event_loop.listen(address.parse().unwrap()).unwrap();
        Host {
            endpoint: Endpoint(bound.to_string().into()),
            metrics: transport.metrics().clone(),
            event_loop: Box::new(event_loop),
            transport: Arc::new(transport),
            seen: Recorder::default(),
        }
    }
}

impl World for Tcp {
    fn new() -> Self {
        Tcp
    }

    fn host(&self, options: NetLoopOptions) -> Host {
        Self::listen("127.0.0.1:0", options)
    }

    fn host_at(&self, endpoint: &Endpoint, options: NetLoopOptions) -> Host {
        Self::listen(&endpoint.0, options)
    }

    fn nobody(&self) -> Endpoint {
        // Bound and closed again: free, and not handed out to others soon.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Endpoint(listener.local_addr().unwrap().to_string().into())
    }
}

pub(crate) struct Inproc {
    pub(crate) network: Network,
    names: std::cell::Cell<u32>,
}

impl World for Inproc {
    fn new() -> Self {
        Inproc { network: Network::new(), names: std::cell::Cell::new(0) }
    }

    fn host(&self, options: NetLoopOptions) -> Host {
        let endpoint = self.nobody();
        self.host_at(&endpoint, options)
    }

    fn host_at(&self, endpoint: &Endpoint, options: NetLoopOptions) -> Host {
        let (event_loop, transport) = self.network.host(endpoint, options).unwrap();
        Host {
            endpoint: endpoint.clone(),
            metrics: transport.metrics().clone(),
            event_loop: Box::new(event_loop),
            transport: Arc::new(transport),
            seen: Recorder::default(),
        }
    }

    fn nobody(&self) -> Endpoint {
        self.names.set(self.names.get() + 1);
        Endpoint(format!("host-{}:1", self.names.get()).into())
    }
}

/// Two hosts, the first with a link to the second that is up.
pub(crate) fn linked<W: World>(world: &W, options: NetLoopOptions) -> (Host, Host, LinkId) {
    let mut client = world.host(options.clone());
    let mut server = world.host(options);
    let link = client.transport.link(&server.endpoint, ConnectionClass::Log);
    drive(&mut [&mut client, &mut server], "the link comes up", |hosts| {
        !hosts[0].seen.connected.is_empty() && hosts[1].metric("inbound_connections") == 1
    });
    (client, server, link)
}
