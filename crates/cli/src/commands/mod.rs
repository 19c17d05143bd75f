//! One file or folder a command.

pub mod admin;
mod admin_error;
pub mod bench;
pub mod client;
pub mod demo;
pub mod demo_members;
pub mod describe;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod rebalance;
pub mod recover;
pub mod script;
pub mod server;
pub mod sim;
mod start_error;

use std::time::Duration;

use ringraft::{Configuration, PeerId};
use ringraft_atomic::ClientError;

use crate::exit::Exit;

/// Reads `ip:port,ip:port,…`; for clap.
pub(crate) fn parse_peers(text: &str) -> Result<Vec<PeerId>, String> {
    let conf: Configuration = text.parse().map_err(|error| format!("{error}"))?;
    let peers: Vec<PeerId> = conf.peers.into_iter().chain(conf.learners).collect();
    if peers.is_empty() { Err("name at least one server as ip:port".to_owned()) } else { Ok(peers) }
}

/// One value for clap, which would take a list of servers for many values.
#[derive(Clone, Debug)]
pub(crate) struct Peers(pub(crate) Vec<PeerId>);

/// As [`parse_peers`], for one argument.
pub(crate) fn parse_peers_once(text: &str) -> Result<Peers, String> {
    parse_peers(text).map(Peers)
}

/// Reads a time in milliseconds, at least one; for clap.
pub(crate) fn parse_millis(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(ms @ 1..=86_400_000) => Ok(Duration::from_millis(ms)),
        _ => Err("give milliseconds between 1 and 86400000".to_owned()),
    }
}

/// The status that goes with an error of the client.
pub(crate) fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::Unknown(_) => Exit::Unknown,
        _ => Exit::Failed,
    }
}
