//! `ringraft demo`: three processes, load, kill -9 (or new members), verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use ringraft_atomic::{AtomicClient, ClientOptions, ServerDescription};
use serde_json::json;

use super::demo_members;
use crate::demo::board::Board;
use crate::demo::cluster::{Cluster, ClusterOptions, PATIENCE, SERVERS};
use crate::demo::load::{Load, LoadOptions};
use crate::demo::progress::{Progress, Watch};
use crate::demo::verdict::{Report, differences, is_quiet};
use crate::exit::Exit;
use crate::signals::Interrupted;

const EXAMPLE: &str = "Examples:
  ringraft demo
  ringraft demo --kills 50            # kill -9 in a loop, with short election time-outs
  ringraft demo --members             # grows to five servers, moves its leaders ten times, shrinks to three others
  ringraft demo --dir /tmp/d --json   # keeps the servers' files and logs";

/// Counters to which all sessions add.
const TALLIES: usize = 32;

/// Shows a cluster that survives a killed leader
///
/// Starts three server processes on loopback, each with a replica of every range group, runs a mixed load through the routing client,
/// kills the process that leads most groups with SIGKILL, restarts it, and checks that every acknowledged write is there
/// and that the replicas are equal.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct DemoArgs {
    /// Range groups
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    groups: u32,
    /// Seconds of load; a loop of kills takes as long as it takes
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Decides what is sent
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the servers' files here (otherwise in a temporary directory that is removed in the end)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How many times a server is killed and restarted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// Requests a second, 0 for as many as there are answers (0; 2000 in a loop of kills)
    #[arg(long)]
    rate: Option<u64>,
    /// Election time-out of the servers in milliseconds (1000; 300 in a loop of kills)
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(50..=60_000))]
    election_timeout_ms: Option<u32>,
    /// Instead of killing: two blank servers join every group, leaders move ten times, and the servers that led first leave for good
    #[arg(long, conflicts_with = "kills")]
    members: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the demo and prints its verdict.
pub fn run(args: &DemoArgs) -> Exit {
    let interrupted = match Interrupted::listen() {
        Ok(interrupted) => interrupted,
        Err(error) => return Exit::Failed.say(&format!("cannot install a signal handler: {error}")),
    };
    let (dir, temporary) = match directory(args.dir.as_deref()) {
        Ok(dir) => dir,
        Err(error) => return Exit::Usage.say(&error),
    };
    let progress = Progress::new();
    let outcome = demonstrate(args, &dir, interrupted, &progress);
    progress.finish();
    let ok = outcome.as_ref().is_ok_and(Report::ok);
    match (ok, temporary) {
        (false, Some(temporary)) => {
            let kept = temporary.keep();
            eprintln!("the servers' files and logs are kept in {}", kept.display());
        }
        (_, temporary) => drop(temporary),
    }
    match outcome {
        Ok(report) => {
            if args.json {
                eprintln!("{report}");
                println!("{}", report.to_json());
            } else {
                println!("{report}");
            }
            if ok { Exit::Fine } else { Exit::Failed }
        }
        Err(message) => {
            if args.json {
                println!("{}", json!({ "ok": false, "error": message }));
            }
            Exit::Failed.say(&message)
        }
    }
}

/// Where the servers' files go, and what removes them.
fn directory(wanted: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), String> {
    let Some(dir) = wanted else {
        let temporary = tempfile::Builder::new().prefix("ringraft-demo-").tempdir();
        let temporary =
            temporary.map_err(|error| format!("cannot make a temporary directory: {error}; give --dir"))?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    let used =
        (1..=SERVERS + demo_members::SPARE).map(|i| dir.join(format!("server{i}"))).find(|dir| dir.exists());
    match used {
        Some(used) => {
            Err(format!("{} is there from an earlier demo; give --dir a new directory", used.display()))
        }
        None => Ok((dir.to_owned(), None)),
    }
}

fn demonstrate(
    args: &DemoArgs,
    dir: &Path,
    interrupted: Interrupted,
    progress: &Progress,
) -> Result<Report, String> {
    // Much happens in a row, so that the load is limited to what leaves time for it.
    let (groups, looped) = (args.groups as usize, args.kills > 1 || args.members);
    let election_timeout_ms = args.election_timeout_ms.map_or(if looped { 300 } else { 1000 }, u64::from);
    let options = ClusterOptions {
        dir: dir.to_owned(),
        groups,
        election_timeout_ms,
        max_election_delay_ms: election_timeout_ms,
        seed: args.seed,
        spare: if args.members { demo_members::SPARE } else { 0 },
    };
    progress.say(&format!(
        "starting {SERVERS} servers with a replica of each of {groups} groups, files in {}",
        dir.display()
    ));
    let mut cluster = Cluster::start(&options, interrupted)?;
    cluster.wait_until("a leader of every group", PATIENCE, |cluster| cluster.leaders(groups).is_some())?;
    let started = cluster.describe_all().ok_or("a server does not answer")?;
    progress.say(&format!("every group has a leader; {}", threads_of(&started)));

    let client = AtomicClient::connect(&cluster.peers()[..SERVERS], ClientOptions::default())
        .map_err(|error| error.to_string())?;
    let board = Arc::new(Board::new(groups, TALLIES));
    let endpoints = cluster.peers().iter().map(ringraft::PeerId::endpoint).collect();
    let rate = args.rate.unwrap_or(if looped { 2000 } else { 0 });
    let load_options =
        LoadOptions { workers: 2, sessions: 32, rate, seed: args.seed, quorum_reads: args.members };
    let load_start = Instant::now();
    let load = Load::start(client, Arc::clone(&board), endpoints, &load_options);
    let watch = Watch::start(progress, &board, SERVERS + options.spare);

    let mut report = Report { groups, ..Report::default() };
    let share = if looped {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(u64::from(args.seconds)).mul_f64(0.3)
    };
    cluster.sleep(share)?;
    if args.members {
        report.members = Some(demo_members::change_all(&mut cluster, &board, &load, groups, progress)?);
    }
    let kills = if args.members { 0 } else { args.kills };
    for round in 1..=kills {
        let pause = if looped { Duration::ZERO } else { share };
        kill_and_restart(&mut cluster, &board, &load, groups, pause, progress, &mut report)
            .map_err(|error| format!("kill {round}: {error}"))?;
    }
    let end = Duration::from_secs(u64::from(args.seconds));
    cluster.sleep(if looped { share } else { end.saturating_sub(load_start.elapsed()) })?;

    progress.say("stopping the load");
    let mut finished = load.stop()?;
    report.load_time = load_start.elapsed();
    drop(watch);
    if let Some(members) = &mut report.members {
        members.hand_overs = finished.failovers();
        members.reads_leaderless = board.reads_leaderless.load(Ordering::Relaxed);
        members.reads_failed = board.reads_failed.load(Ordering::Relaxed);
    }
    check(&mut cluster, &board, &mut finished, progress, &mut report)?;
    Ok(report)
}

/// Checks every acknowledged write, and that the replicas are equal.
fn check(
    cluster: &mut Cluster,
    board: &Board,
    finished: &mut crate::demo::load::Finished,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), String> {
    progress.say("reading every counter through the log");
    report.counters = finished.verify(|done, total| {
        if done % 5000 == 0 || done == total {
            progress.tell(&format!("{done} of {total} counters read"));
        }
    })?;
    progress.say("comparing the replicas");
    let mut last = Vec::new();
    let mut failed = None;
    cluster.wait_until("the replicas to have applied the same", PATIENCE, |cluster| {
        let Some(servers) = cluster.describe_all() else { return false };
        let quiet = is_quiet(&servers);
        last = servers;
        match quiet {
            Ok(quiet) => quiet,
            Err(message) => {
                failed = Some(message);
                true
            }
        }
    })?;
    if let Some(message) = failed {
        return Err(message);
    }
    let differences = differences(&last);
    report.diverged = differences.len() as u64;
    report.threads = last.iter().map(|server| server.threads).max().unwrap_or(0);
    progress.say(&threads_of(&last));
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    (report.acked, report.unknown, report.failed) =
        (load(&board.acked), load(&board.unknown), load(&board.failed));
    (report.reads, report.lost) = (load(&board.reads), load(&board.lost));
    let latency = finished.latency_us();
    (report.p50_us, report.p99_us) = (latency.value_at_quantile(0.5), latency.value_at_quantile(0.99));
    report.failovers = finished.failovers();
    report.first_difference = board.first_difference().or_else(|| differences.into_iter().next());
    report.first_failure = board.first_failure();
    Ok(())
}

/// Kills the server that leads most groups, waits until others lead them, restarts it, waits until it has caught up.
fn kill_and_restart(
    cluster: &mut Cluster,
    board: &Board,
    load: &Load,
    groups: usize,
    pause: Duration,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), String> {
    let mut found = None;
    cluster.wait_until("a leader of every group", PATIENCE, |cluster| {
        found = cluster.leaders(groups);
        found.is_some()
    })?;
    let leaders = found.unwrap_or_default();
    let count = |server| leaders.iter().filter(|leader| **leader == server).count();
    let victim = (0..SERVERS).max_by_key(|server| count(*server)).unwrap_or(0);
    let before = load.failovers().len();
    let moved = board.killed(victim, |group| leaders[group] == victim);
    let pid = cluster.pid(victim).unwrap_or(0);
    cluster.kill(victim)?;
    report.kills += 1;
    progress.say(&format!("kill -9 {pid}: server {} led {} of {groups} groups", victim + 1, moved.len()));

    cluster.wait_until("the groups to go on under other leaders", PATIENCE, |_| {
        moved.iter().all(|group| !board.is_out(*group))
    })?;
    report.groups_moved += moved.len();
    let out = load.failovers().split_off(before);
    let longest = out.iter().max().map_or(0, Duration::as_millis);
    let names: Vec<String> = moved
        .iter()
        .map(|group| format!("{group}→s{}", board.leader(*group).map_or(0, |leader| leader + 1)))
        .collect();
    progress.say(&format!("new leaders: {}; the longest outage took {longest} ms", names.join(" ")));
    cluster.sleep(pause)?;

    let goal = applied_by_others(cluster, victim);
    let restart = Instant::now();
    cluster.restart(victim)?;
    cluster.wait_until("the restarted server to catch up", PATIENCE, |cluster| {
        let Some(server) = cluster.describe(victim) else { return false };
        server.groups.len() == groups
            && server.groups.iter().zip(&goal).all(|(group, goal)| group.applied >= *goal)
    })?;
    report.catch_ups.push(restart.elapsed());
    let entries: u64 = goal.iter().sum();
    let took = restart.elapsed().as_millis();
    progress.say(&format!(
        "server {} is back and has caught up with {entries} entries after {took} ms",
        victim + 1
    ));
    Ok(())
}

/// The highest applied index of each group on the servers other than `victim`.
fn applied_by_others(cluster: &Cluster, victim: usize) -> Vec<u64> {
    let others =
        (0..SERVERS).filter(|server| *server != victim).filter_map(|server| cluster.describe(server));
    others.fold(Vec::new(), |mut goal, server| {
        goal.resize(server.groups.len().max(goal.len()), 0);
        for (goal, group) in goal.iter_mut().zip(&server.groups) {
            *goal = group.applied.max(*goal);
        }
        goal
    })
}

fn threads_of(servers: &[ServerDescription]) -> String {
    let each: Vec<String> = servers.iter().map(|server| server.threads.to_string()).collect();
    format!("threads of the servers: {}", each.join(", "))
}
