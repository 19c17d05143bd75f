//! `ringraft admin`: members and leadership of a running group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use ringraft::{
    CliError, CliOptions, CliService, Configuration, PeerId, PeersChanged, RaftError, RpcClient,
    RpcClientOptions, RpcError, Status,
};
use ringraft_atomic::client::rejoin as client_rejoin;
use serde_json::{Map, Value, json};

use super::admin_error::{advice, exit_of, kind};
use super::rebalance::{self, Which};
use super::{Peers, parse_millis, parse_peers_once};
use crate::exit::Exit;

const EXAMPLE: &str = "Examples, with C=127.0.0.1:8081,127.0.0.1:8082,127.0.0.1:8083:
  ringraft admin get-leader --group atomic_0 --conf $C
  ringraft admin get-peers --alive --group atomic_0 --conf $C --json
  ringraft admin add-peer 127.0.0.1:8084 --group atomic_0 --conf $C
  ringraft admin remove-peer 127.0.0.1:8081 --group atomic_0 --conf $C
  ringraft admin change-peers 127.0.0.1:8082,127.0.0.1:8083,127.0.0.1:8084 --group atomic_0 --conf $C
  ringraft admin learner add 127.0.0.1:8085 --group atomic_0 --conf $C
  ringraft admin transfer --to 127.0.0.1:8082 --group atomic_0 --conf $C
  ringraft admin rebalance --conf $C
  ringraft admin rejoin --peer 127.0.0.1:8082 --group atomic_0 --conf $C

A new member must run before it is added: ringraft server --config its.toml --rejoin.
Each server hosts a replica of every group: do the same for atomic_1, atomic_2, ….
Exit status 3 means that nobody knows whether it was done: look with get-peers before you repeat it.";

/// How long followers may go on naming a leader that has handed over; longer, and it was elected again.
const SETTLING: Duration = Duration::from_secs(5);

/// Changes the members of a group, hands leadership over, and shows both
///
/// The named servers are asked for the leader, which carries the change out: a new voter catches up first, and voters change by joint
/// consensus, so that every step is safe whatever fails.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct AdminArgs {
    #[command(subcommand)]
    request: Request,
    /// Some or all members of the group, as ip:port,ip:port
    #[arg(long, global = true, value_name = "PEERS", value_parser = parse_peers_once)]
    conf: Option<Peers>,
    /// The group
    #[arg(long, global = true, value_name = "GROUP")]
    group: Option<String>,
    /// Only servers of the cluster with this id; else whatever cluster they belong to
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<String>,
    /// Only the life of the group with this creation number; else whatever life there is
    #[arg(long, global = true, value_name = "N", default_value_t = 0, hide_default_value = true)]
    creation: u64,
    /// How long to try, in milliseconds; a new member catches up within it
    #[arg(long, global = true, value_name = "MS", default_value = "30000", value_parser = parse_millis)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Request {
    /// Adds a voter; a learner becomes one
    AddPeer { peer: PeerId },
    /// Removes a voter; one that leads hands over
    RemovePeer { peer: PeerId },
    /// Makes exactly these the voters, in one change; learners stay
    ChangePeers {
        #[arg(value_parser = parse_peers_once)]
        peers: Peers,
    },
    /// Adds, removes or promotes learners, which get the log and do not vote
    Learner {
        #[command(subcommand)]
        change: LearnerChange,
    },
    /// Hands leadership over
    Transfer {
        /// The new leader; else the follower that has most of the log
        #[arg(long, value_name = "PEER")]
        to: Option<PeerId>,
    },
    /// Spreads the leaders of many groups: moves as few as it takes until no server leads more than its share
    Rebalance {
        /// Of the groups whose names begin so; else of every group that the servers have
        #[arg(long, value_name = "PREFIX", conflicts_with = "groups")]
        group_prefix: Option<String>,
        /// Of these groups
        #[arg(long, value_name = "GROUP,GROUP", value_delimiter = ',', value_parser = parse_group)]
        groups: Vec<String>,
    },
    /// UNSAFE: makes one server believe that these are the voters
    ///
    /// For when a majority is gone for good: it asks nobody. Writes that only the lost servers had are lost, and if one of those comes
    /// back with its disk, there are two groups. Wipe their disks first.
    ResetPeers {
        #[arg(value_parser = parse_peers_once)]
        peers: Peers,
        /// The server that is told; it must be among the voters to lead
        #[arg(long, value_name = "PEER")]
        peer: PeerId,
    },
    /// Has one server drop the log of its replica, which must have failed, and bring it back from the others
    ///
    /// For a replica whose log is damaged: ringraft describe says so. What only that replica held is gone; a majority of the other
    /// members must be up, and one of them must lead.
    Rejoin {
        /// The server
        #[arg(long, value_name = "PEER")]
        peer: PeerId,
    },
    /// Shows the leader
    GetLeader,
    /// Shows the members
    GetPeers {
        /// Only those from which the leader hears
        #[arg(long)]
        alive: bool,
    },
}

#[derive(Subcommand, Debug)]
enum LearnerChange {
    /// Adds learners
    Add {
        #[arg(value_parser = parse_peers_once)]
        learners: Peers,
    },
    /// Removes learners
    Remove {
        #[arg(value_parser = parse_peers_once)]
        learners: Peers,
    },
    /// Makes exactly these the learners
    Reset {
        #[arg(value_parser = parse_peers_once)]
        learners: Peers,
    },
    /// Makes a learner a voter
    Promote { learner: PeerId },
}

/// What came out: for people, and the keys of the JSON object.
struct Outcome {
    text: String,
    json: Value,
}

fn parse_group(text: &str) -> Result<String, String> {
    text.parse::<ringraft::GroupId>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Asks and prints.
pub fn run(args: &AdminArgs) -> Exit {
    let conf = match (&args.request, &args.conf) {
        (_, Some(Peers(peers))) => Configuration::of_peers(peers.clone()),
        // Its request goes to the one server that it names.
        (Request::ResetPeers { peer, .. }, None) => Configuration::of_peers(vec![peer.clone()]),
        _ => {
            return Exit::Usage
                .say("--conf is missing; name members of the group, for example --conf 127.0.0.1:8081,127.0.0.1:8082");
        }
    };
    let client = match RpcClient::new(RpcClientOptions::default()) {
        Ok(client) => Arc::new(client),
        Err(error) => return Exit::Failed.say(&error.to_string()),
    };
    let options = CliOptions { timeout_ms: args.timeout.as_millis() as u64, ..CliOptions::default() };
    let cluster_id = args.cluster_id.as_deref();
    let cli = CliService::new(Arc::clone(&client), options)
        .in_cluster(cluster_id.unwrap_or_default())
        .of_life(args.creation);
    if let Request::Rebalance { group_prefix, groups } = &args.request {
        if args.group.is_some() {
            return Exit::Usage.say("--group names one group; rebalance takes --groups or --group-prefix");
        }
        let which = match group_prefix {
            Some(prefix) => Which::Prefix(prefix),
            None if groups.is_empty() => Which::Prefix(""),
            None => Which::Named(groups),
        };
        return rebalance::run(&cli, &conf, &which, cluster_id, args.timeout, args.json);
    }
    let Some(group) = &args.group else {
        return Exit::Usage.say("--group is missing; name the group, for example --group atomic_0");
    };
    if let Err(error) = parse_group(group) {
        return Exit::Usage.say(&format!("--group: {error}"));
    }
    let outcome = match &args.request {
        Request::Rejoin { peer } => {
            let cluster_id = cluster_id.unwrap_or_default();
            rejoin(&cli, group, &conf, peer, |peer| {
                client_rejoin(&client, peer, group, cluster_id, args.creation, args.timeout)
            })
        }
        request => ask(&cli, group, &conf, request),
    };
    if args.json {
        println!("{}", to_json(group, &outcome));
    }
    match outcome {
        Ok(outcome) => {
            if !args.json {
                println!("{}", outcome.text);
            }
            Exit::Fine
        }
        Err(error) => exit_of(&error).say(&format!("{error}{}", advice(&error))),
    }
}

fn ask(cli: &CliService, group: &str, conf: &Configuration, request: &Request) -> Result<Outcome, CliError> {
    match request {
        Request::AddPeer { peer } => cli.add_peer(group, conf, peer).map(|c| changed("voters", &c)),
        Request::RemovePeer { peer } => cli.remove_peer(group, conf, peer).map(|c| changed("voters", &c)),
        Request::ChangePeers { peers } => {
            cli.change_peers(group, conf, &peers.0).map(|c| changed("voters", &c))
        }
        Request::Learner { change } => match change {
            LearnerChange::Add { learners } => {
                cli.add_learners(group, conf, &learners.0).map(|c| changed("learners", &c))
            }
            LearnerChange::Remove { learners } => {
                cli.remove_learners(group, conf, &learners.0).map(|c| changed("learners", &c))
            }
            LearnerChange::Reset { learners } => {
                cli.reset_learners(group, conf, &learners.0).map(|c| changed("learners", &c))
            }
            LearnerChange::Promote { learner } => {
                cli.learner_to_follower(group, conf, learner).map(|c| changed("voters", &c))
            }
        },
        Request::Transfer { to } => {
            let before = cli.get_leader(group, conf)?;
            cli.transfer_leader(group, conf, to.as_ref())?;
            // The old leader's term is over, but a follower that has not heard of it yet still names that one.
            let deadline = Instant::now() + SETTLING;
            let stale = |leader: &PeerId| *leader == before && to.as_ref() != Some(&before);
            let mut leader = cli.get_leader(group, conf)?;
            while stale(&leader) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
                leader = cli.get_leader(group, conf)?;
            }
            let text = format!("{leader} leads");
            Ok(Outcome { text, json: json!({ "leader": leader.to_string() }) })
        }
        Request::ResetPeers { peers, peer } => {
            cli.reset_peer(group, peer, &peers.0)?;
            let new = list(&peers.0);
            let text = format!("{peer} takes these for the voters: {}", new.join(","));
            Ok(Outcome { text, json: json!({ "peer": peer.to_string(), "new": new }) })
        }
        // They ask otherwise, and have asked before.
        Request::Rebalance { .. } | Request::Rejoin { .. } => {
            Ok(Outcome { text: String::new(), json: Value::Null })
        }
        Request::GetLeader => {
            let leader = cli.get_leader(group, conf)?.to_string();
            Ok(Outcome { text: leader.clone(), json: json!({ "leader": leader }) })
        }
        Request::GetPeers { alive } => {
            let found = if *alive { cli.get_alive_peers(group, conf) } else { cli.get_peers(group, conf) };
            let found = found?;
            let json = json!({ "peers": list(&found.peers), "learners": list(&found.learners) });
            Ok(Outcome { text: found.to_string(), json })
        }
    }
}

/// Who drops a log must be able to get another, and counts for nothing until it has it: somebody else must lead, and have a majority without
/// it. Nothing overrides that: what only this replica holds may be what the group has acknowledged.
fn rejoin(
    cli: &CliService,
    group: &str,
    conf: &Configuration,
    peer: &PeerId,
    ask: impl FnOnce(&PeerId) -> Result<(), RpcError>,
) -> Result<Outcome, CliError> {
    let mut others = conf.clone();
    others.peers.retain(|other| other.endpoint() != peer.endpoint());
    let leader = cli.get_leader(group, &others)?;
    if leader.endpoint() == peer.endpoint() {
        // A follower names the leader that it had until it misses it.
        let reasons = format!("the others still name {peer}, whose log is to be dropped");
        return Err(CliError::NoLeader { group: group.to_owned(), reasons });
    }
    let (voters, alive) = (cli.get_peers(group, &others)?.peers, cli.get_alive_peers(group, &others)?.peers);
    left_without(group, &voters, &alive, peer)?;
    ask(peer)?;
    let text = format!("{peer} has dropped its log and rejoins {leader}");
    Ok(Outcome { text, json: json!({ "peer": peer.to_string(), "leader": leader.to_string() }) })
}

/// Whether the voters from which the leader hears are a majority without this one.
fn left_without(group: &str, voters: &[PeerId], alive: &[PeerId], peer: &PeerId) -> Result<(), CliError> {
    let answer =
        voters.iter().filter(|voter| voter.endpoint() != peer.endpoint() && alive.contains(voter)).count();
    if answer > voters.len() / 2 {
        return Ok(());
    }
    let message = format!(
        "without {peer} only {answer} of the {} voters of group {group} answer, which is no majority, and what {peer} holds may be needed; \
         bring others up first",
        voters.len()
    );
    Err(CliError::Refused(Status::new(RaftError::NotPermitted, message)))
}

fn list(peers: &[PeerId]) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}

fn changed(who: &str, change: &PeersChanged) -> Outcome {
    let (old, new) = (list(&change.old), list(&change.new));
    let none = |list: &[String]| if list.is_empty() { "none".to_owned() } else { list.join(",") };
    let text = format!("{who}: {} (before: {})", none(&new), none(&old));
    Outcome { text, json: json!({ "old": old, "new": new }) }
}

fn to_json(group: &str, outcome: &Result<Outcome, CliError>) -> Value {
    let mut object = Map::new();
    object.insert("ok".to_owned(), outcome.is_ok().into());
    object.insert("group".to_owned(), group.into());
    match outcome {
        Ok(outcome) => {
            object.insert("error".to_owned(), Value::Null);
            if let Value::Object(more) = &outcome.json {
                object.extend(more.clone());
            }
        }
        Err(error) => {
            let code = error.code().map(RaftError::name);
            object.insert("error".to_owned(), kind(error).into());
            object.insert("code".to_owned(), code.map_or(Value::Null, Value::from));
            object.insert("message".to_owned(), error.to_string().into());
        }
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_dropped_only_where_a_majority_answers_without_it() {
        let Peers(all) = parse_peers_once("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3").unwrap();
        let fits = |voters: &[PeerId], alive: &[PeerId]| left_without("g", voters, alive, &all[2]);
        assert!(fits(&all, &all).is_ok());
        assert!(fits(&all, &all[..2]).is_ok(), "it does not answer, as one that has failed");
        let refusal = fits(&all, &all[1..]).unwrap_err();
        assert!(refusal.to_string().contains("only 1 of the 3"), "{refusal}");
        assert!(fits(&all[1..], &all[1..]).is_err(), "of two");
        assert!(fits(&all[2..], &all[2..]).is_err(), "alone");
        assert!(fits(&all[..2], &all[..2]).is_ok(), "a learner");
    }
}
