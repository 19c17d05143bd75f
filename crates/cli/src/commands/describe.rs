//! `ringraft describe`: the state of a running server.

use std::time::Duration;

use clap::Args;
use ringraft::PeerId;
use ringraft_atomic::client::describe;
use ringraft_atomic::{GroupDescription, ServerDescription};
use serde_json::{Value, json};

use super::{exit_of, parse_millis};
use crate::exit::Exit;

const EXAMPLE: &str = "Example:
  ringraft describe --addr 127.0.0.1:8081 --group atomic_0

Replicas of a group with equal fsm_index have equal fsm_hash; if not, they have diverged.";

/// Shows the state of a running server and its replicas
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct DescribeArgs {
    /// The server, as ip:port
    #[arg(long, value_name = "ADDR")]
    addr: PeerId,
    /// Only this group
    #[arg(long, default_value = "", hide_default_value = true)]
    group: String,
    /// How long to wait, in milliseconds
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = parse_millis)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub fn run(args: &DescribeArgs) -> Exit {
    let server = match describe(&args.addr, &args.group, args.timeout) {
        Ok(server) => server,
        Err(error) => return exit_of(&error).say(&error.to_string()),
    };
    if args.json {
        println!("{}", to_json(&server));
    } else {
        print_table(&server);
    }
    Exit::Fine
}

fn to_json(server: &ServerDescription) -> Value {
    let groups: Vec<Value> = server.groups.iter().map(group_to_json).collect();
    json!({
        "node": server.node,
        "cluster_id": if server.cluster_id.is_empty() { Value::Null } else { Value::from(&*server.cluster_id) },
        "threads": server.threads,
        "fds": server.fds,
        "rss_kb": server.rss_kb,
        "groups": groups,
    })
}

fn group_to_json(group: &GroupDescription) -> Value {
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    json!({
        "group": group.group,
        "state": group.state,
        "term": group.term,
        "leader": or_null(&group.leader),
        "last": group.last,
        "stable": group.stable,
        "commit": group.commit,
        "applied": group.applied,
        "conf": group.conf,
        "removed_at": if group.removed_at == 0 { Value::Null } else { Value::from(group.removed_at) },
        // In hexadecimal: a JSON number of 64 bits loses its last digits in many readers.
        "fsm_hash": format!("{:016x}", group.fsm_hash),
        "fsm_index": group.fsm_index,
        "keys": group.keys,
        "creation": if group.creation == 0 { Value::Null } else { Value::from(group.creation) },
        "error": or_null(&group.error),
    })
}

fn print_table(server: &ServerDescription) {
    let (threads, fds, rss) = (server.threads, server.fds, server.rss_kb);
    let cluster = if server.cluster_id.is_empty() { "unknown" } else { &server.cluster_id };
    println!("{}: cluster {cluster}, {threads} threads, {fds} files, {rss} KiB", server.node);
    println!(
        "{:<16} {:<10} {:>6} {:<22} {:>9} {:>9} {:>9} {:>9} {:>9}  fsm_hash",
        "group", "state", "term", "leader", "last", "stable", "commit", "applied", "keys"
    );
    for g in &server.groups {
        let leader = if g.leader.is_empty() { "unknown" } else { &g.leader };
        println!(
            "{:<16} {:<10} {:>6} {leader:<22} {:>9} {:>9} {:>9} {:>9} {:>9}  {:016x}@{}",
            g.group, g.state, g.term, g.last, g.stable, g.commit, g.applied, g.keys, g.fsm_hash, g.fsm_index
        );
        if g.removed_at > 0 {
            println!("  removed from the group by entry {}; its members: {}", g.removed_at, g.conf);
        }
        if g.creation > 0 {
            println!("  creation number {}", g.creation);
        }
        if !g.error.is_empty() {
            println!("  failed: {}", g.error);
        }
    }
}
