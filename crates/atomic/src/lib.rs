//! AtomicServer: range groups of atomic counters, and its routing client (SOFAJRaft's `jraft-test`).
//!
//! A server hosts one replica of every range group. A key belongs to the group whose range holds its
//! [hash](ranges::key_hash). [`AtomicServer`] runs the replicas of one process; [`AtomicClient`] finds the ranges, sends each
//! request to the leader of its group, and tells a request that was certainly not carried out from one whose outcome is
//! unknown.
#![deny(missing_docs)]

pub mod client;
mod command;
pub mod config;
mod counters;
mod describe;
mod process;
pub mod ranges;
mod reply;
mod server;
mod state_machine;

pub use client::{AtomicClient, ClientError, ClientOptions, Outcome, SlotInfo};
pub use command::{Answer, Command, InvalidCommand, MAX_KEY_BYTES, ReadFrom, ReadMode};
pub use config::{AtomicConfig, ConfigError, Store};
pub use counters::Counters;
pub use describe::{GroupDescription, ServerDescription};
pub use ranges::{Ranges, key_hash};
pub use server::{AtomicServer, ServerError};
pub use state_machine::{AtomicStateMachine, Replica};
