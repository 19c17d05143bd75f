//! Requests that arrive and answers that leave.

pub(crate) mod cli;
pub(crate) mod client;
pub(crate) mod flush;
mod outbox;
mod processors;
mod routing;
pub(crate) mod user;

pub use outbox::Outbox;
pub use processors::{LaneSink, Processors, SinkRings, UserProcessors};
pub use routing::RoutingTable;
