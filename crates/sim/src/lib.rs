//! Deterministic worlds for ringraft: the golden-script language, its runner, the cross-node safety checkers, and the
//! simulator of whole clusters.
//!
//! A [`script::World`] holds a few [`NodeImpl`](ringraft_core::NodeImpl)s with explicit message queues, model disks
//! and virtual clocks; nothing moves unless it is told to. `docs/scripts.md` describes the language.
//!
//! [`cluster::run`] simulates hosts with all of their stages, network and disks from one seed; `docs/testing.md` says how.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod checkers;
pub mod cluster;
pub mod linearizability;
mod log_image;
mod model_disk;
pub mod script;

pub use log_image::{LogImage, LoggedEntry};
pub use model_disk::ModelDisk;
