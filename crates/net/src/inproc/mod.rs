//! The in-process transport: hosts of one process joined by byte pipes, with cuts for tests.
//!
//! Everything above the byte stream is the code of the TCP transport: frames are encoded, cut into reads, decoded,
//! bounded and pushed back in the same way.

mod in_loop;
mod network;
mod pipe;

pub use in_loop::{InprocLoop, InprocTransport};
pub use network::{HostExists, Network};
