//! `ringraft recover`: a server that does not run becomes the sole voter of its groups.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use ringraft::{Configuration, GroupId, PeerId, RecoverGroups, RecoveredGroup, StartMode, recover_cluster};
use ringraft_atomic::AtomicConfig;
use serde_json::{Value, json};

use super::start_error;
use crate::exit::Exit;

const EXAMPLE: &str = "Example, when only the first of three servers is left, and does not run:
  ringraft recover --config s1.toml --all
  ringraft server --config s1.toml

The others come back blank: ringraft server --config s2.toml --rejoin, and ringraft admin add-peer for each group.";

/// UNSAFE: makes a server that does not run the sole voter of its groups, in its log
///
/// For when a majority is gone for good: it asks nobody. What only the others had is lost though it was acknowledged, and what
/// stands in this server's log becomes committed though it may not have been acknowledged. Do it on one server, that with the most complete
/// log, and wipe the data directories of all others first: else there are two groups of one name.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE, group(ArgGroup::new("which").required(true).args(["group", "all"])))]
pub struct RecoverArgs {
    /// The configuration file (TOML) of the server
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A group that has lost its majority; may be given more than once
    #[arg(long, value_name = "GROUP")]
    group: Vec<GroupId>,
    /// Every group of the server
    #[arg(long)]
    all: bool,
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
    let server = &config.server_address;
    let groups = if args.all { RecoverGroups::All } else { RecoverGroups::Named(args.group.clone()) };
    match recover_cluster(config.host_options(StartMode::Existing), &groups, server) {
        Ok(groups) => {
            tell(args, server, &groups);
            Exit::Fine
        }
        Err(error) => {
            let (exit, text) = start_error::of_recovery(&error, &config);
            exit.say(&text)
        }
    }
}

fn tell(args: &RecoverArgs, server: &PeerId, groups: &[RecoveredGroup]) {
    if args.json {
        let names = |conf: &Configuration| conf.peers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let group = |g: &RecoveredGroup| json!({"group": g.group.as_str(), "old": g.old.as_ref().map(names), "index": g.index, "term": g.term});
        let groups: Vec<Value> = groups.iter().map(group).collect();
        println!("{}", json!({"ok": true, "new": [server.to_string()], "groups": groups}));
        return;
    }
    for g in groups {
        let old = g.old.as_ref().map_or("no members".to_owned(), ToString::to_string);
        println!("{}: {old} -> {server}, entry {} of term {}", g.group.as_str(), g.index, g.term);
    }
}
