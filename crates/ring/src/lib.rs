//! A bounded ring buffer: many producers, one consumer, batches, blocking wait.
#![deny(missing_docs)]
