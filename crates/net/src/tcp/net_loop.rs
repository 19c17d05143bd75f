//! The mio loop: events to the engine, listeners, attempts to connect.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustc_hash::FxHashMap;

use super::TcpTransport;
use super::accept::Listeners;
use super::resolver::Resolver;
use super::token::{BOTH, FIRST_LISTENER, WAKER, connection_id, token};
use crate::address::Address;
use crate::engine::Engine;
use crate::hub::Hub;
use crate::{EventLoop, Inbound, LinkId, LoopWaker, NetLoopOptions, NetMetrics, TurnReport};

/// Events taken from the poll at once.
const EVENTS: usize = 256;

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
    /// Addresses of a link's host that are still to be tried before its name is looked up again.
    untried: FxHashMap<LinkId, VecDeque<SocketAddr>>,
    listeners: Listeners,
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
        let this = Self {
            poll,
            events,
            engine,
            waker,
            resolver,
            untried: FxHashMap::default(),
            listeners: Listeners::default(),
        };
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
        self.listeners.add(socket);
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

    fn connect(&mut self, link: LinkId, now: Instant) {
        if let Some(address) = self.untried.get_mut(&link).and_then(VecDeque::pop_front) {
            return self.connect_to(link, address, now);
        }
        let Some(endpoint) = self.engine.hub.link_at(link).map(|link| link.endpoint.clone()) else { return };
        if let Some(address) = self.resolver.resolve(link, &endpoint) {
            self.connect_to(link, address, now);
        }
    }

    fn connect_to(&mut self, link: LinkId, address: SocketAddr, now: Instant) {
        // Two look-ups of one name may have been under way.
        if !self.engine.wants_connection(link) {
            return;
        }
        let Some(endpoint) = self.engine.hub.link_at(link).map(|link| link.endpoint.clone()) else { return };
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
                Ok(addresses) => {
                    self.engine.lives_at(link, addresses.iter().map(|address| Address::of_ip(address.ip())));
                    self.untried.insert(link, addresses.into());
                    self.connect(link, now);
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
            [timeout, self.engine.wait_limit(now), self.listeners.wait_limit(now)]
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
                    self.listeners.on_ready(n - FIRST_LISTENER);
                }
                Token(n) => {
                    let id = connection_id(n);
                    if let Some(stream) = self.engine.connecting(id) {
                        match connected(stream) {
                            Ok(true) => {
                                if let Some(link) = self.engine.established(id, now, inbound) {
                                    self.untried.remove(&link);
                                }
                            }
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
        self.listeners.accept(&mut self.engine, &self.poll, now, inbound);
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
        self.listeners.close();
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
        f.debug_struct("NetLoop").field("listeners", &self.listeners.addresses()).finish_non_exhaustive()
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

#[cfg(test)]
mod tests {
    use ringraft_proto::{RequestFrame, ResponseFrame};

    use super::*;
    use crate::{Accept, ConnectionClass, Endpoint, ReplyHandle, RequestContext, Transport};

    #[derive(Default)]
    struct Connected(bool);

    impl Inbound for Connected {
        fn on_request(&mut self, _: ReplyHandle, _: RequestFrame) -> Accept {
            Accept::Refused
        }
        fn on_response(&mut self, _: RequestContext, _: ResponseFrame) {}
        fn on_request_failed(&mut self, _: RequestContext, _: &str) {}
        fn on_connected(&mut self, _: LinkId, _: &Endpoint, _: ConnectionClass) {
            self.0 = true;
        }
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        let closed = |listener: std::net::TcpListener| listener.local_addr().unwrap();
        let dead = closed(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let options = NetLoopOptions {
            reconnect_backoff_min: Duration::from_millis(1),
            reconnect_backoff_max: Duration::from_millis(5),
            ..NetLoopOptions::default()
        };
        let (mut event_loop, transport) = NetLoop::new(options).unwrap();
        // What a look-up of the name would have found; the name itself leads nowhere.
        let link = transport.link(&Endpoint("nobody.invalid:1".into()), ConnectionClass::Log);
        event_loop.untried.insert(link, [dead, dead, listener.local_addr().unwrap()].into());
        let mut connected = Connected::default();
        let start = Instant::now();
        while !connected.0 {
            assert!(start.elapsed() < Duration::from_secs(20), "the third address is not reached");
            event_loop.turn(Some(Duration::from_millis(1)), &mut connected).unwrap();
        }
        assert!(event_loop.untried.is_empty());
    }
}
