//! The TCP transport: one mio poll, listeners, and the connections of [`Transport`](crate::Transport) links.

mod accept;
mod net_loop;
mod resolver;
mod token;
mod transport;

pub use net_loop::{ListenError, NetLoop};
pub use transport::TcpTransport;
