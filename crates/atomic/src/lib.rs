//! AtomicServer: range groups of atomic counters, and its routing client.
#![deny(missing_docs)]
