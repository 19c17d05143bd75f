//! What the runs against real clusters share: `make hostile`, `make mixed` and `make power`. Each uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod bridge;
pub mod frames;
pub mod load;
pub mod sandbox;
pub mod servers;
pub mod verdict;
pub mod watch;
