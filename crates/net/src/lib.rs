//! The network: connections by class, outboxes, request matching, and the event loops that drive them.
//!
//! [`Transport`] is what the engine sends through and [`Inbound`] what it receives with. [`tcp`] runs them over
//! sockets, [`inproc`] between the hosts of one process; both speak Bolt frames and share all code above the
//! byte stream. An [`EventLoop`] is driven by a thread of its own or by an owner thread between its batches.
#![deny(missing_docs)]

mod backoff;
mod engine;
mod event_loop;
mod hub;
pub mod inproc;
mod metrics;
mod options;
mod outbox;
mod peer;
mod pending;
mod socket;
pub mod tcp;
mod transport;

pub use event_loop::{EventLoop, LoopWaker, TurnReport};
pub use metrics::NetMetrics;
pub use options::{NetLoopOptions, NetOptionsError};
pub use transport::{
    Accept, ConnectionClass, Endpoint, Inbound, LinkId, ReplyHandle, RequestContext, SendError, Transport,
};
