//! `ringraft client`: one request through the routing client.

use std::time::Duration;

use clap::{Args, Subcommand};
use ringraft_atomic::client::slots;
use ringraft_atomic::{
    AtomicClient, ClientError, ClientOptions, Command, Outcome, ReadFrom, ReadMode, SlotInfo,
};
use serde_json::{Value, json};

use super::{Peers, exit_of, parse_millis, parse_peers_once};
use crate::exit::Exit;

const EXAMPLE: &str = "Examples:
  ringraft client inc visits --conf 127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083
  ringraft client cas visits 1 10 --conf 127.0.0.1:8081 --json
  ringraft client get visits --conf 127.0.0.1:8081
  ringraft client get visits --conf 127.0.0.1:8081 --quorum --any   linearizable, without an entry in the log, by any replica

A request that fails with `unknown` may have been carried out: read the counter before sending it again.";

/// Sends one request through the routing client
///
/// The client asks the named servers for the ranges, finds the leader of the key's group, follows redirects and repeats what is safe to
/// repeat.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct ClientArgs {
    #[command(subcommand)]
    request: Request,
    /// Some or all servers, as ip:port,ip:port
    #[arg(long, global = true, value_name = "PEERS", value_parser = parse_peers_once)]
    conf: Option<Peers>,
    /// Only servers of the cluster with this id; else those of the cluster of the first that answers
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<String>,
    /// How long to try, in milliseconds
    #[arg(long, global = true, value_name = "MS", default_value = "5000", value_parser = parse_millis)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Request {
    /// Reads a counter
    Get {
        #[arg(value_parser = parse_key)]
        key: String,
        /// What some server has applied, which may be old; otherwise the read goes through the log
        #[arg(long, conflicts_with = "quorum")]
        local: bool,
        /// Without an entry in the log: a quorum confirms the leader, and the answer has everything that was acknowledged before
        #[arg(long)]
        quorum: bool,
        /// The leader's lease may stand for the quorum (where the servers have lease_reads)
        #[arg(long, requires = "quorum")]
        lease: bool,
        /// Any replica may answer, not only the leader
        #[arg(long, requires = "quorum")]
        any: bool,
    },
    /// Sets a counter
    Set {
        #[arg(value_parser = parse_key)]
        key: String,
        #[arg(allow_negative_numbers = true)]
        value: i64,
        /// Send it again when its outcome is unknown; right only when nobody else sets the counter
        #[arg(long)]
        retry_unknown: bool,
    },
    /// Adds to a counter and prints the sum
    Inc {
        #[arg(value_parser = parse_key)]
        key: String,
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        delta: i64,
    },
    /// Sets a counter if it has the expected value (exit status 1 if it has not)
    Cas {
        #[arg(value_parser = parse_key)]
        key: String,
        #[arg(allow_negative_numbers = true)]
        expect: i64,
        #[arg(allow_negative_numbers = true)]
        new_value: i64,
    },
    /// Lists the ranges of hashes, their groups and leaders
    Slots,
}

fn parse_key(text: &str) -> Result<String, String> {
    let command = Command::Get { key: text.to_owned() };
    command.validate().map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Sends the request and prints its outcome.
pub fn run(args: &ClientArgs) -> Exit {
    let Some(Peers(peers)) = &args.conf else {
        return Exit::Usage
            .say("--conf is missing; name the servers, for example --conf 127.0.0.1:8081,127.0.0.1:8082");
    };
    let (command, mode, retry_unknown_sets) = match &args.request {
        Request::Slots => return print_slots(args, slots(peers, args.cluster_id.as_deref(), args.timeout)),
        Request::Get { key, local, quorum, lease, any } => {
            let from = if *any { ReadFrom::AnyReplica } else { ReadFrom::Leader };
            let mode = match (local, quorum) {
                (true, _) => ReadMode::Local,
                (_, true) => ReadMode::Quorum { from, lease: *lease },
                _ => ReadMode::ThroughLog,
            };
            (Command::Get { key: key.clone() }, mode, false)
        }
        Request::Set { key, value, retry_unknown } => {
            (Command::Set { key: key.clone(), value: *value }, ReadMode::default(), *retry_unknown)
        }
        Request::Inc { key, delta } => {
            (Command::IncrementAndGet { key: key.clone(), delta: *delta }, ReadMode::default(), false)
        }
        Request::Cas { key, expect, new_value } => {
            let (expect, new_value) = (*expect, *new_value);
            (Command::CompareAndSet { key: key.clone(), expect, new_value }, ReadMode::default(), false)
        }
    };
    let (timeout, cluster_id) = (args.timeout, args.cluster_id.clone());
    let options = ClientOptions { timeout, cluster_id, retry_unknown_sets, ..ClientOptions::default() };
    let outcome =
        AtomicClient::connect(peers, options).and_then(|client| client.execute(command.clone(), mode));
    print_outcome(args, &command, outcome)
}

fn print_outcome(args: &ClientArgs, command: &Command, outcome: Result<Outcome, ClientError>) -> Exit {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return print_error(args, &error, json!({})),
    };
    let changed = outcome.changed();
    let value = match command {
        Command::Set { value, .. } => Some(*value),
        Command::CompareAndSet { new_value, .. } => changed.filter(|changed| *changed).map(|_| *new_value),
        _ => outcome.value(),
    };
    let ok = changed != Some(false);
    if args.json {
        let (group, index) = (&outcome.group, outcome.index);
        println!("{}", json!({ "ok": ok, "value": value, "error": null, "group": group, "index": index }));
    } else {
        match value {
            Some(value) => println!("{value}"),
            None if ok => println!("never set"),
            None => println!("not changed: the counter has another value"),
        }
    }
    if ok { Exit::Fine } else { Exit::Failed }
}

fn print_slots(args: &ClientArgs, slots: Result<Vec<SlotInfo>, ClientError>) -> Exit {
    let slots = match slots {
        Ok(slots) => slots,
        Err(error) => return print_error(args, &error, json!({ "slots": [] })),
    };
    if args.json {
        let list = slots.iter().map(|slot| {
            json!({ "start": slot.start, "group": slot.group, "peers": slot.peers, "leader": slot.leader })
        });
        let list: Vec<Value> = list.collect();
        let object =
            json!({ "ok": true, "value": null, "error": null, "group": null, "index": 0, "slots": list });
        println!("{object}");
    } else {
        println!("{:>20}  {:<16} {:<22} peers", "from hash", "group", "leader");
        for slot in &slots {
            let leader = if slot.leader.is_empty() { "unknown" } else { &slot.leader };
            println!("{:>20}  {:<16} {leader:<22} {}", slot.start, slot.group, slot.peers.join(","));
        }
    }
    Exit::Fine
}

fn print_error(args: &ClientArgs, error: &ClientError, more: Value) -> Exit {
    if args.json {
        let mut object =
            json!({ "ok": false, "value": null, "error": error.kind(), "group": null, "index": 0 });
        if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
            object.extend(more);
        }
        println!("{object}");
    }
    exit_of(error).say(&error.to_string())
}
