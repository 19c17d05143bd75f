//! SOFAJRaft's messages, Bolt frames and the hot-path codec.
#![deny(missing_docs)]
