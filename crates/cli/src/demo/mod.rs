//! The demo: a cluster of processes, a load whose every answer is checked, faults, a verdict.

pub mod board;
pub mod checker;
pub mod cluster;
pub mod load;
pub mod members;
pub mod progress;
pub mod verdict;
