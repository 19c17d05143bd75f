//! Listeners, and the connections that come through them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Poll;
use mio::net::{TcpListener, TcpStream};

use super::token::{BOTH, token};
use crate::address::Address;
use crate::engine::Engine;
use crate::{Endpoint, Inbound};

/// Connections accepted in one turn before the open ones have theirs.
const ACCEPT_BUDGET: usize = 64;

/// All listeners of a loop.
#[derive(Default)]
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    /// No accepting before then.
    accept_after: Option<Instant>,
}

struct Listener {
    socket: TcpListener,
    /// The edge came and the backlog was not emptied since.
    ready: bool,
}

impl Listeners {
    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }

    pub(super) fn add(&mut self, socket: TcpListener) {
        self.listeners.push(Listener { socket, ready: false });
    }

    /// Somebody waits at a listener.
    pub(super) fn on_ready(&mut self, number: usize) {
        if let Some(listener) = self.listeners.get_mut(number) {
            listener.ready = true;
        }
    }

    pub(super) fn close(&mut self) {
        self.listeners.clear();
    }

    pub(super) fn addresses(&self) -> Vec<Option<SocketAddr>> {
        self.listeners.iter().map(|listener| listener.socket.local_addr().ok()).collect()
    }

    /// How long the next poll may wait for the listeners' sake.
    pub(super) fn wait_limit(&self, now: Instant) -> Option<Duration> {
        let waiting = self.listeners.iter().any(|listener| listener.ready);
        waiting
            .then(|| self.accept_after.map_or(Duration::ZERO, |after| after.saturating_duration_since(now)))
    }

    /// Takes in who waits, as far as there is room.
    pub(super) fn accept(
        &mut self,
        engine: &mut Engine<TcpStream>,
        poll: &Poll,
        now: Instant,
        inbound: &mut dyn Inbound,
    ) {
        if self.accept_after.is_some_and(|after| now < after) {
            return;
        }
        self.accept_after = None;
        for listener in &mut self.listeners {
            let mut budget = ACCEPT_BUDGET;
            while listener.ready && budget > 0 {
                budget -= 1;
                match listener.socket.accept() {
                    Ok((stream, peer)) => admit(engine, poll, stream, peer, now, inbound),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => listener.ready = false,
                    // The peer gave up between its arrival and now.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        if is_out_of_descriptors(&error) && engine.spare_descriptor(now, inbound) {
                            continue;
                        }
                        // Trying at once would only burn time. Whoever waits is still there after the pause.
                        if let Some(left_out) = engine.hub.log.pass("accept") {
                            tracing::warn!(%error, left_out, "cannot accept; pausing");
                        }
                        self.accept_after = Some(now + engine.hub.options.accept_backoff);
                        return;
                    }
                }
            }
        }
    }
}

/// Whether the process or the machine has no descriptors left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Makes an accepted socket a connection, or closes it because there is no room.
fn admit(
    engine: &mut Engine<TcpStream>,
    poll: &Poll,
    mut stream: TcpStream,
    peer: SocketAddr,
    now: Instant,
    inbound: &mut dyn Inbound,
) {
    let address = Address::of_ip(peer.ip());
    if !engine.make_room(&address, now, inbound) {
        tracing::debug!(%peer, "too many connections; closed at once");
        return;
    }
    let id = engine.reserve();
    let prepared =
        stream.set_nodelay(true).and_then(|()| poll.registry().register(&mut stream, token(id), BOTH));
    match prepared {
        Ok(()) => {
            engine.add_inbound(id, Endpoint(peer.to_string().into()), address, stream, now);
            // What it asks is mostly here already. It is looked at before this one could have to give way to the next.
            engine.on_readable(id, false);
        }
        Err(error) => {
            engine.unreserve(id);
            tracing::debug!(%peer, %error, "accepted connection is unusable");
        }
    }
}
