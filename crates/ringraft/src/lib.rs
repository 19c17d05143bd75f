//! A multi-raft replication engine: hosts, lanes, pipeline handlers, node handles.
#![deny(missing_docs)]
