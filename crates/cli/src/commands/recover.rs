//! `ringraft recover`: other members for a server that does not run.

use std::path::PathBuf;

use clap::Args;
use ringraft::{Configuration, GroupId, RecoverError, RecoveredGroup, StartMode, recover_cluster};
use ringraft_atomic::AtomicConfig;
use serde_json::{Value, json};

use super::{Peers, parse_peers_once};
use crate::exit::Exit;

const EXAMPLE: &str = "Example, when only the first of three servers is left, and does not run:
  ringraft recover 127.0.0.1:8081 --config s1.toml
  ringraft server --config s1.toml

The others come back blank: ringraft server --config s2.toml --rejoin, and ringraft admin add-peer for each group.";

/// UNSAFE: gives the groups of a server that does not run other voters, in its log
///
/// For when a majority is gone for good: it asks nobody. What only the lost servers had is lost though it was acknowledged, and what
/// stands in this server's log becomes committed though it may not have been acknowledged. Take the server with the most complete log, and
/// wipe the disks of the others first: if one of them comes back with it, there are two groups of one name.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct RecoverArgs {
    /// The new voters, as ip:port,ip:port; this server must be among them to lead
    #[arg(value_name = "PEERS", value_parser = parse_peers_once)]
    peers: Peers,
    /// The configuration file (TOML) of the server
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only this group; else every group that the server has
    #[arg(long, value_name = "GROUP")]
    group: Vec<GroupId>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Recovers and says what was done.
pub fn run(args: &RecoverArgs) -> Exit {
    let config = match AtomicConfig::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            return Exit::Usage.say(&format!("configuration {}: {error}", args.config.display()));
        }
    };
    let conf = Configuration::of_peers(args.peers.0.clone());
    match recover_cluster(config.host_options(StartMode::Existing), &args.group, &conf) {
        Ok(groups) => {
            tell(args, &conf, &groups);
            Exit::Fine
        }
        Err(error @ RecoverError::Storage(_)) => Exit::Unknown.say(&error.to_string()),
        Err(error) => Exit::Failed.say(&error.to_string()),
    }
}

fn tell(args: &RecoverArgs, conf: &Configuration, groups: &[RecoveredGroup]) {
    if args.json {
        let names = |conf: &Configuration| conf.peers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let group = |g: &RecoveredGroup| json!({"group": g.group.as_str(), "old": g.old.as_ref().map(names), "index": g.index, "term": g.term});
        let groups: Vec<Value> = groups.iter().map(group).collect();
        println!("{}", json!({"ok": true, "new": names(conf), "groups": groups}));
        return;
    }
    for g in groups {
        let old = g.old.as_ref().map_or("no members".to_owned(), ToString::to_string);
        println!("{}: {old} -> {conf}, entry {} of term {}", g.group.as_str(), g.index, g.term);
    }
}
