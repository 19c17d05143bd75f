//! Deterministic worlds for ringraft: the golden-script language, its runner, and the cross-node safety checkers.
//!
//! A [`script::World`] holds a few [`NodeImpl`](ringraft_core::NodeImpl)s with explicit message queues, model disks
//! and virtual clocks; nothing moves unless it is told to. `docs/scripts.md` describes the language.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod checkers;
mod log_image;
mod model_disk;
pub mod script;

pub use log_image::{LogImage, LoggedEntry};
pub use model_disk::ModelDisk;
