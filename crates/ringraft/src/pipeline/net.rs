//! The network loop: on a thread of its own, or driven by an owner.

use std::time::Duration;

#[cfg(not(shuttle))]
pub(crate) use ringraft_net::LoopWaker as NetWaker;
#[cfg(not(shuttle))]
use ringraft_net::{EventLoop, inproc::InprocLoop, tcp::NetLoop};

use crate::pipeline::Running;
#[cfg(shuttle)]
pub(crate) use crate::pipeline::scripted_net::{HostLoop, NetWaker};
use crate::rpc::Processors;
use crate::rpc::flush::{flush_now, gather_flushes};

/// One of the event loops that a host can run.
#[cfg(not(shuttle))]
pub(crate) enum HostLoop {
    Tcp(Box<NetLoop>),
    Inproc(Box<InprocLoop>),
}

#[cfg(not(shuttle))]
impl HostLoop {
    pub(crate) fn waker(&self) -> NetWaker {
        match self {
            HostLoop::Tcp(event_loop) => event_loop.waker(),
            HostLoop::Inproc(event_loop) => event_loop.waker(),
        }
    }

    /// One turn. The poller failing leaves the host without a network and without a way to say so to its groups.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>, inbound: &mut Processors) {
        let turned = match self {
            HostLoop::Tcp(event_loop) => event_loop.turn(timeout, inbound),
            HostLoop::Inproc(event_loop) => event_loop.turn(timeout, inbound),
        };
        if let Err(error) = turned {
            panic!("the event loop cannot go on: {error}");
        }
    }

    pub(crate) fn shutdown(&mut self, inbound: &mut Processors) {
        match self {
            HostLoop::Tcp(event_loop) => event_loop.shutdown(inbound),
            HostLoop::Inproc(event_loop) => event_loop.shutdown(inbound),
        }
    }
}

/// How often a full lane ring is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// The network loop on a thread of its own.
pub(crate) struct NetThread {
    pub(crate) event_loop: HostLoop,
    pub(crate) processors: Processors,
    /// The stages whose answers the loop carries.
    pub(crate) running: Running,
}

impl NetThread {
    pub(crate) fn run(mut self) {
        gather_flushes();
        while !self.running.is_over() {
            let timeout = self.processors.retry().then_some(RETRY);
            self.event_loop.turn(timeout, &mut self.processors);
            flush_now();
        }
        end(self.event_loop, self.processors);
    }
}

/// Ends the network once nobody has anything to say any more.
pub(crate) fn end(mut event_loop: HostLoop, mut processors: Processors) {
    processors.set_room(0);
    // What the kernel did not take at once.
    event_loop.turn(Some(Duration::ZERO), &mut processors);
    event_loop.shutdown(&mut processors);
}
