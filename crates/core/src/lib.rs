//! The raft state machine of ringraft, sans I/O.
#![deny(missing_docs)]
