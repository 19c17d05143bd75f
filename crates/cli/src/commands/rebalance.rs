//! `ringraft admin rebalance`: spreads the leaders of many groups.

use std::collections::BTreeMap;
use std::time::Duration;

use ringraft::{CliError, CliService, Configuration, PeerId, RaftError};
use ringraft_atomic::client::slots;
use serde_json::{Value, json};

use super::admin_error::{advice, exit_of, kind};
use super::exit_of as exit_of_client;
use crate::exit::Exit;

/// Of which groups the leaders are spread.
pub(super) enum Which<'a> {
    /// Those that the servers have, and whose names begin so.
    Prefix(&'a str),
    /// These.
    Named(&'a [String]),
}

/// A leader that was moved.
struct Move {
    group: String,
    from: PeerId,
    to: PeerId,
}

/// Finds the groups, spreads their leaders, and prints who leads how many.
pub(super) fn run(
    cli: &CliService,
    conf: &Configuration,
    which: &Which<'_>,
    cluster_id: Option<&str>,
    timeout: Duration,
    as_json: bool,
) -> Exit {
    let groups: Vec<String> = match which {
        Which::Named(groups) => groups.to_vec(),
        Which::Prefix(prefix) => match slots(&conf.peers, cluster_id, timeout) {
            Ok(slots) => {
                slots.into_iter().map(|slot| slot.group).filter(|group| group.starts_with(prefix)).collect()
            }
            Err(error) => {
                if as_json {
                    println!(
                        "{}",
                        json!({ "ok": false, "error": error.kind(), "moved": 0, "message": error.to_string() })
                    );
                }
                return exit_of_client(&error).say(&error.to_string());
            }
        },
    };
    let Some(first) = groups.first() else {
        let message = "no group has such a name; ringraft client slots shows those that there are";
        if as_json {
            println!("{}", json!({ "ok": false, "error": "refused", "moved": 0, "message": message }));
        }
        return Exit::Failed.say(message);
    };
    let mut moves: Vec<Move> = Vec::new();
    // `--conf` may name some of the members only, and each of them shall have its share.
    let (leaders, error) = match cli.get_peers(first, conf) {
        Ok(members) => {
            let done = cli.rebalance(&groups, &members, |group, from, to| {
                moves.push(Move { group: group.to_owned(), from: from.clone(), to: to.clone() });
            });
            (done.leaders, done.error)
        }
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let mut leads: BTreeMap<String, usize> = BTreeMap::new();
    leaders.values().for_each(|leader| *leads.entry(leader.to_string()).or_default() += 1);
    if as_json {
        println!("{}", to_json(&moves, &leads, error.as_ref()));
    } else {
        let each: Vec<String> =
            leads.iter().map(|(leader, count)| format!("{leader} leads {count}")).collect();
        println!("{} of {} leaders moved; {}", moves.len(), groups.len(), each.join(", "));
    }
    match error {
        None => Exit::Fine,
        Some(error) => exit_of(&error).say(&format!("{error}{}", advice(&error))),
    }
}

fn to_json(moves: &[Move], leads: &BTreeMap<String, usize>, error: Option<&CliError>) -> Value {
    let list: Vec<Value> = moves
        .iter()
        .map(|m| json!({ "group": m.group, "from": m.from.to_string(), "to": m.to.to_string() }))
        .collect();
    let mut object = json!({ "ok": error.is_none(), "error": error.map(kind), "moved": moves.len(), "moves": list, "leads": leads });
    if let Some(error) = error {
        object["code"] = json!(error.code().map(RaftError::name));
        object["message"] = json!(error.to_string());
    }
    object
}
