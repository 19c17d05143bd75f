//! The mio event loop: connections, frames, request matching.
#![deny(missing_docs)]
