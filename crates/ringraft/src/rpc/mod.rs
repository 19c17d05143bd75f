//! Requests that arrive and answers that leave.

mod admission;
pub(crate) mod cli;
pub(crate) mod client;
pub(crate) mod flush;
pub(crate) mod group_state;
mod outbox;
mod processors;
mod routing;
mod unopened_groups;
pub(crate) mod user;
mod worker;

pub use outbox::Outbox;
pub(crate) use processors::Place;
pub use processors::{LaneSink, Processors, SinkRings, UserProcessors};
pub use routing::RoutingTable;
#[cfg(all(test, not(shuttle)))]
mod processors_tests;
