//! The TCP transport: one mio poll, listeners, and the connections of [`Transport`](crate::Transport) links.

mod net_loop;
mod resolver;
mod transport;

pub use net_loop::{ListenError, NetLoop};
pub use transport::TcpTransport;
