//! SOFAJRaft's messages, Bolt frames and the hot-path codec. Bytes in, values out; no sockets.
#![deny(missing_docs)]

mod frame;

pub use frame::{Frame, OutFrame, RequestFrame, ResponseFrame, ResponseStatus};
