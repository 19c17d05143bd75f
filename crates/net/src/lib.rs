//! The mio event loop: listeners, connections by class, outboxes, request matching.
#![deny(missing_docs)]

mod transport;

pub use transport::{
    Accept, ConnectionClass, Endpoint, Inbound, LinkId, ReplyHandle, RequestContext, SendError, Transport,
};
