//! The network: connections by class, outboxes, request matching, and the event loops that drive them.
//!
//! [`Transport`] is what the engine sends through and [`Inbound`] what it receives with. [`tcp`] runs them over
//! sockets, [`inproc`] between the hosts of one process; both speak Bolt frames and share all code above the
//! byte stream. An [`EventLoop`] is driven by a thread of its own or by an owner thread between its batches.
//!
//! ```
//! use std::time::Duration;
//! use ringraft_net::tcp::NetLoop;
//! use ringraft_net::*;
//! # use ringraft_proto::{RequestFrame, ResponseFrame};
//! # struct Host;
//! # impl Inbound for Host {
//! #     fn on_request(&mut self, _: ReplyHandle, _: RequestFrame) -> Accept { Accept::Taken }
//! #     fn on_response(&mut self, _: RequestContext, _: ResponseFrame) {}
//! #     fn on_request_failed(&mut self, _: RequestContext, _: &str) {}
//! #     fn on_connected(&mut self, _: LinkId, _: &Endpoint, _: ConnectionClass) {}
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mut host = Host;
//! let (mut event_loop, transport) = NetLoop::new(NetLoopOptions::default())?;
//! let address = event_loop.listen("127.0.0.1:0".parse()?)?;
//! let link = transport.link(&Endpoint(address.to_string().into()), ConnectionClass::Log);
//! # let mut rounds = 0;
//! loop {
//!     // An owner thread: its own work first, with `transport.request(link, ..)`, then one flush for all of it, then
//!     // the network. It waits here while it has nothing to do, and `event_loop.waker()` ends the wait.
//!     transport.flush(link);
//!     event_loop.turn(Some(Duration::from_millis(1)), &mut host)?;
//! #   rounds += 1;
//! #   if rounds == 10 { break }
//! }
//! event_loop.shutdown(&mut host);
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod address;
mod backoff;
mod engine;
mod event_loop;
mod hub;
pub mod inproc;
mod log_limit;
mod metrics;
mod options;
mod outbox;
mod peer;
mod pending;
mod remote;
mod socket;
mod standing;
pub mod tcp;
mod transport;
mod user_timeout;

pub use event_loop::{EventLoop, LoopWaker, TurnReport};
pub use log_limit::{LogLimiter, WireText};
pub use metrics::NetMetrics;
pub use options::{NetLoopOptions, NetOptionsError};
pub use transport::{
    Accept, ConnectionClass, Endpoint, Inbound, LinkId, ReplyHandle, RequestContext, SendError, Transport,
};
