//! The mio loop: events to the engine, listeners, attempts to connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::TcpTransport;
use super::resolver::Resolver;
use crate::engine::Engine;
use crate::hub::{ConnectionId, Hub};
use crate::{Endpoint, EventLoop, Inbound, LinkId, LoopWaker, NetLoopOptions, NetMetrics, TurnReport};

/// Events taken from the poll at once.
const EVENTS: usize = 256;
/// Connections accepted in one turn before the open ones have theirs.
const ACCEPT_BUDGET: usize = 64;

// A connection's token is its generation (31 bits) and slot, so everything from 2^63 up is free for others.
const WAKER: Token = Token(usize::MAX);
const FIRST_LISTENER: usize = 1 << 63;

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another socket listens there.
    #[error("{0} is in use by another program; stop it or choose another port")]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {error}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

/// The TCP event loop: accepts, connects, reads, and finishes the writes that other threads began.
///
/// Drive it with [`run`](Self::run) on a thread of its own, or call [`turn`](EventLoop::turn) from a thread that has
/// other work too. Order of calls: [`new`](Self::new), [`listen`](Self::listen) as often as wanted, turns,
/// [`shutdown`](EventLoop::shutdown). Dropping it without a shutdown closes the sockets but tells no [`Inbound`].
pub struct NetLoop {
    poll: Poll,
    events: Events,
    engine: Engine<TcpStream>,
    waker: LoopWaker,
    resolver: Resolver,
    listeners: Vec<Listener>,
    /// No accepting before then.
    accept_after: Option<Instant>,
}

struct Listener {
    socket: TcpListener,
    /// The edge came and the backlog was not emptied since.
    ready: bool,
}

impl NetLoop {
    /// A loop without listeners, and the transport that sends through it.
    ///
    /// # Errors
    /// `InvalidInput` with the broken rule when the options do not validate; otherwise the system's error when it
    /// gives no poller.
    pub fn new(options: NetLoopOptions) -> io::Result<(Self, TcpTransport)> {
        options.validate().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let poll = Poll::new()?;
        let waker = LoopWaker::for_poll(mio::Waker::new(poll.registry(), WAKER)?);
        let hub = Arc::new(Hub::new(options, waker.clone()));
        let transport = TcpTransport::new(hub.clone());
        let engine = Engine::new(hub, Instant::now());
        let events = Events::with_capacity(EVENTS);
        let resolver = Resolver::new(waker.clone());
        let this = Self { poll, events, engine, waker, resolver, listeners: Vec::new(), accept_after: None };
        Ok((this, transport))
    }

    /// Accepts connections on `address` from the next turn on. Port 0 takes a free one. Returns the real address.
    ///
    /// # Errors
    /// [`ListenError`]; the loop is unchanged.
    pub fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(address),
            _ => ListenError::Io { address, error },
        };
        let mut socket = TcpListener::bind(address).map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?;
        let token = Token(FIRST_LISTENER + self.listeners.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE).map_err(failed)?;
        self.listeners.push(Listener { socket, ready: false });
        Ok(bound)
    }

    /// The counters of the loop and its transport.
    pub fn metrics(&self) -> &Arc<NetMetrics> {
        &self.engine.hub.metrics
    }

    /// Turns until `stop` is set (wake the loop after setting it), then shuts down.
    ///
    /// # Errors
    /// The poller failed. Everything was shut down then, too.
    pub fn run(mut self, inbound: &mut dyn Inbound, stop: &AtomicBool) -> io::Result<()> {
        let mut result = Ok(());
        while result.is_ok() && !stop.load(Ordering::Acquire) {
            result = self.turn(None, inbound).map(|_| ());
        }
        self.shutdown(inbound);
        result
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let sleeps = timeout != Some(Duration::ZERO) && self.waker.try_sleep();
        let timeout = if sleeps { timeout } else { Some(Duration::ZERO) };
        let polled = self.poll.poll(&mut self.events, timeout);
        self.waker.awake();
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn accept(&mut self, now: Instant) {
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        for listener in &mut self.listeners {
            let mut budget = ACCEPT_BUDGET;
            while listener.ready && budget > 0 {
                budget -= 1;
                match listener.socket.accept() {
                    Ok((stream, peer)) => admit(&mut self.engine, &self.poll, stream, peer, now),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                    // The peer gave up between its arrival and now.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        // Most likely no descriptors are left; trying at once would only burn time.
                        if let Some(left_out) = self.engine.hub.log.pass("accept") {
                            tracing::warn!(%error, left_out, "cannot accept; pausing");
                        }
                        self.accept_after = Some(now + self.engine.hub.options.accept_backoff);
                        return;
                    }
                }
            }
        }
    }

    /// How long the next poll may wait for the listeners' sake.
    fn accept_wait(&self, now: Instant) -> Option<Duration> {
        let waiting = self.listeners.iter().any(|listener| listener.ready);
        waiting
            .then(|| self.accept_after.map_or(Duration::ZERO, |after| after.saturating_duration_since(now)))
    }

    fn connect(&mut self, link: LinkId, now: Instant) {
        let Some(endpoint) = self.engine.hub.link_at(link).map(|link| link.endpoint.clone()) else { return };
        if let Some(address) = self.resolver.resolve(link, &endpoint) {
            self.connect_to(link, endpoint, address, now);
        }
    }

    fn connect_to(&mut self, link: LinkId, endpoint: Endpoint, address: SocketAddr, now: Instant) {
        let id = self.engine.reserve();
        let stream = TcpStream::connect(address).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, token(id), BOTH)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => self.engine.add_connecting(id, link, endpoint, stream, now),
            Err(error) => {
                self.engine.unreserve(id);
                self.engine.connect_failed(link, &error.to_string(), now);
            }
        }
    }

    fn take_resolved(&mut self, now: Instant) {
        while let Some((link, resolved)) = self.resolver.next() {
            if self.engine.hub.is_closed() {
                continue;
            }
            match resolved {
                Ok(address) => {
                    if let Some(endpoint) = self.engine.hub.link_at(link).map(|link| link.endpoint.clone()) {
                        self.connect_to(link, endpoint, address, now);
                    }
                }
                Err(reason) => self.engine.connect_failed(link, &reason, now),
            }
        }
    }
}

impl EventLoop for NetLoop {
    fn turn(&mut self, timeout: Option<Duration>, inbound: &mut dyn Inbound) -> io::Result<TurnReport> {
        let timeout = if timeout == Some(Duration::ZERO) {
            timeout
        } else {
            let now = Instant::now();
            [timeout, self.engine.wait_limit(now), self.accept_wait(now)]
                .into_iter()
                .flatten()
                .min()
                .map(round_up)
        };
        self.poll(timeout)?;
        let now = Instant::now();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                WAKER => {}
                Token(n) if n >= FIRST_LISTENER => {
                    if let Some(listener) = self.listeners.get_mut(n - FIRST_LISTENER) {
                        listener.ready = true;
                    }
                }
                Token(n) => {
                    let id = connection_id(n);
                    if let Some(stream) = self.engine.connecting(id) {
                        match connected(stream) {
                            Ok(true) => self.engine.established(id, now, inbound),
                            Ok(false) => continue,
                            Err(error) => {
                                self.engine.close(id, &error.to_string(), now, inbound);
                                continue;
                            }
                        }
                    }
                    if event.is_writable() {
                        self.engine.on_writable(id);
                    }
                    let hangup = event.is_read_closed() || event.is_error();
                    if event.is_readable() || hangup {
                        self.engine.on_readable(id, hangup);
                    }
                }
            }
        }
        events.clear();
        self.events = events;
        self.accept(now);
        self.take_resolved(now);
        for link in self.engine.work(now, inbound) {
            self.connect(link, now);
        }
        let report = self.engine.finish(inbound);
        Ok(report)
    }

    fn waker(&self) -> LoopWaker {
        self.waker.clone()
    }

    fn shutdown(&mut self, inbound: &mut dyn Inbound) {
        self.listeners.clear();
        self.engine.shutdown(Instant::now(), inbound);
    }
}

impl Drop for NetLoop {
    fn drop(&mut self) {
        self.engine.hub.close();
        self.engine.abandon();
    }
}

impl fmt::Debug for NetLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listeners: Vec<_> =
            self.listeners.iter().map(|listener| listener.socket.local_addr().ok()).collect();
        f.debug_struct("NetLoop").field("listeners", &listeners).finish_non_exhaustive()
    }
}

/// Makes an accepted socket a connection, or closes it because a cap is reached.
fn admit(engine: &mut Engine<TcpStream>, poll: &Poll, mut stream: TcpStream, peer: SocketAddr, now: Instant) {
    if !engine.admits() {
        tracing::debug!(%peer, "too many connections; closed at once");
        return;
    }
    let id = engine.reserve();
    let prepared =
        stream.set_nodelay(true).and_then(|()| poll.registry().register(&mut stream, token(id), BOTH));
    match prepared {
        Ok(()) => engine.add_inbound(id, Endpoint(peer.to_string().into()), stream, now),
        Err(error) => {
            engine.unreserve(id);
            tracing::debug!(%peer, %error, "accepted connection is unusable");
        }
    }
}

/// Whether the socket that was being connected is: `Ok(false)` means not yet.
fn connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let peer = match stream.peer_addr() {
        Ok(peer) => peer,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
        Err(error) => return Err(error),
    };
    // On one machine a port that nobody listens on can be drawn as the local port of the attempt itself. That
    // connects the socket to itself, and takes the port from the server that is about to start there.
    if stream.local_addr()? == peer {
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens there"));
    }
    stream.set_nodelay(true)?;
    Ok(true)
}

/// The poll counts in milliseconds; rounded down, the last one before a deadline would be spent spinning.
fn round_up(wait: Duration) -> Duration {
    if wait.is_zero() { wait } else { Duration::from_millis(wait.as_micros().div_ceil(1000) as u64) }
}

fn token(id: ConnectionId) -> Token {
    Token(((id.generation as usize) << 32) | id.slot as usize)
}

fn connection_id(token: usize) -> ConnectionId {
    ConnectionId { slot: token as u32, generation: (token >> 32) as u32 }
}
