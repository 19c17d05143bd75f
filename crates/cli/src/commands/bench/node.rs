//! `ringraft bench-node`: one process of a benched cluster, with the same flags and output as the peers' drivers.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ringraft::{
    Configuration, HostOptions, Iterator, Node, NodeOptions, PeerId, RaftGroupService, RaftHost,
    ReadOnlyOption, StartMode, StateMachine, StoreOptions,
};
use serde_json::{Value, json};

use super::load::{Load, Reads, Work};
use super::stages;
use crate::exit::Exit;

/// Which log store a bench uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// The segment log: every commit is fsynced by a majority.
    #[default]
    Segment,
    /// In memory: what the pipeline costs without a disk.
    Memory,
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Store::Segment => "segment",
            Store::Memory => "memory",
        })
    }
}

const EXAMPLE: &str = "Example, one of three processes:
  ringraft bench-node --id 0 --addrs 127.0.0.1:27001,127.0.0.1:27002,127.0.0.1:27003 --dir /tmp/bench

It prints one JSON line when it is done. `ringraft bench` starts all of them and adds up.";

/// One process of a benched cluster: what the drivers of the peers run
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLE)]
pub struct BenchNodeArgs {
    /// Which of the addresses is this process (0 is the first)
    #[arg(long)]
    pub id: usize,
    /// Addresses of all processes, as ip:port,ip:port,…
    #[arg(long)]
    pub addrs: String,
    /// Directory for the log; a sub-directory for each process is made in it
    #[arg(long)]
    pub dir: PathBuf,
    /// Raft groups, each with a replica in every process
    #[arg(long, default_value_t = 1)]
    pub groups: usize,
    /// Bytes of each proposal
    #[arg(long, default_value_t = 16)]
    pub payload: usize,
    /// Proposals in flight for each group that this process leads; 0 means idle
    #[arg(long, default_value_t = 1024)]
    pub window: usize,
    /// Seconds before measuring
    #[arg(long, default_value_t = 3.0)]
    pub warmup: f64,
    /// Seconds of measuring
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Log store
    #[arg(long, value_enum, default_value_t)]
    pub store: Store,
    /// Read instead of writing: these kinds, one after the other
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub reads: Vec<Reads>,
}

/// Counts what it applies and answers nothing.
#[derive(Default)]
pub struct CountingStateMachine {
    applied: u64,
}

impl StateMachine for CountingStateMachine {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while let Some(entries) = iter.next_chunk() {
            self.applied += entries.len() as u64;
        }
    }
}

/// Runs the process and prints one JSON line.
pub fn run(args: &BenchNodeArgs) -> Exit {
    match measure(args) {
        Ok(()) => Exit::Fine,
        Err(error) => Exit::Failed.say(&error.to_string()),
    }
}

fn measure(args: &BenchNodeArgs) -> Result<(), Box<dyn std::error::Error>> {
    let addrs: Vec<&str> = args.addrs.split(',').collect();
    let endpoint = *addrs.get(args.id).ok_or_else(|| {
        format!("--id {} names none of the {} addresses of --addrs; ids start at 0", args.id, addrs.len())
    })?;
    stages::install();
    let store = store_options(args.store, &args.dir.join(args.id.to_string()));
    let host = start_host(HostOptions::new(endpoint, store))?;
    let nodes = start_groups(&host, endpoint, &args.addrs, args.groups, &args.reads)?;
    wait_for_leaders(&nodes, Duration::from_secs(60));
    std::thread::sleep(Duration::from_millis(500));

    let times = Times { warmup: args.warmup, seconds: args.seconds };
    let (system, id) = (format!("ringraft-{}", args.store), args.id);
    if args.reads.is_empty() {
        // The others still measure when this one is done: the load keeps running a while.
        let mut line = measure_load(&nodes, args.window, Work::Propose(args.payload), times, Some(1.0));
        (line["system"], line["id"]) = (system.into(), id.into());
        println!("{line}");
    } else {
        let phases = measure_reads(&nodes, args.window, args.payload, &args.reads, times);
        println!("{}", json!({ "system": system, "id": id, "phases": phases }));
    }
    // Keep the quorum until the others are done.
    std::thread::sleep(Duration::from_secs(1));
    host.shutdown();
    Ok(())
}

/// Seconds of one measurement.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before it.
    pub warmup: f64,
    /// Of it.
    pub seconds: f64,
}

/// Measures one kind of read after the other.
pub fn measure_reads(
    nodes: &[Node],
    window: usize,
    payload: usize,
    kinds: &[Reads],
    times: Times,
) -> Vec<Value> {
    let measure = |kind: &Reads| {
        let phase = measure_load(nodes, window, Work::reads(*kind, payload), times, None);
        // What was on its way is over before the next kind begins.
        std::thread::sleep(Duration::from_millis(500));
        phase
    };
    kinds.iter().map(measure).collect()
}

/// Runs a load and measures it, and what this process used; it goes on for `linger` seconds after that.
pub fn measure_load(nodes: &[Node], window: usize, work: Work, times: Times, linger: Option<f64>) -> Value {
    let load = Load::start(nodes.to_vec(), window, work);
    std::thread::sleep(Duration::from_secs_f64(times.warmup));
    let (begun, cpu, before) = (Instant::now(), cpu_seconds("self"), stages::recorded());
    load.begin();
    std::thread::sleep(Duration::from_secs_f64(times.seconds));
    let measured = load.end();
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds("self") - cpu);
    let recorded = stages::between(&before, &stages::recorded());
    let of = |name: &str| recorded.get(name).copied().unwrap_or_default();
    let leads = nodes.iter().filter(|n| n.is_leader()).count();
    let line = json!({
        "leads": leads, "ops": measured.ops,
        "seconds": seconds, "errors": measured.errors, "p50_us": measured.latency_us.value_at_quantile(0.5),
        "p99_us": measured.latency_us.value_at_quantile(0.99),
        "p999_us": measured.latency_us.value_at_quantile(0.999), "cpu_s": cpu, "rss_kb": status_kb("VmRSS:"),
        "threads": status_kb("Threads:"), "fsyncs": of("append-logs").count,
        "heartbeats": of("heartbeat-times").count,
        "batch_entries": of("append-logs-count").mean(),
        "stages_us": {
            "append-logs": of("append-logs").mean() * 1000.0,
            "fsm-apply-tasks": of("fsm-apply-tasks").mean() * 1000.0,
        },
    });
    std::thread::sleep(Duration::from_secs_f64(linger.unwrap_or(0.0)));
    load.stop();
    line
}

/// The store of one process.
pub fn store_options(store: Store, dir: &Path) -> StoreOptions {
    match store {
        Store::Segment => StoreOptions::segment(dir),
        Store::Memory => StoreOptions::Memory,
    }
}

/// Starts a host on a blank store.
pub fn start_host(mut options: HostOptions) -> Result<RaftHost, Box<dyn std::error::Error>> {
    options.start_mode = StartMode::Bootstrap;
    options.bootstrap_ask_ms = 0;
    Ok(RaftHost::start(options)?)
}

/// Starts `groups` groups with a replica at each of the addresses, with leases if they are to be read by them.
pub fn start_groups(
    host: &RaftHost,
    endpoint: &str,
    addrs: &str,
    groups: usize,
    reads: &[Reads],
) -> Result<Vec<Node>, Box<dyn std::error::Error>> {
    let conf: Configuration = addrs.parse()?;
    let server_id: PeerId = endpoint.parse()?;
    let start = |group| {
        let mut options = NodeOptions { initial_conf: conf.clone(), ..NodeOptions::default() };
        if reads.contains(&Reads::Lease) {
            options.raft_options.read_only_options = ReadOnlyOption::LeaseBased;
        }
        let name = format!("bench_{group}");
        let service =
            RaftGroupService::new(name, server_id.clone(), options, CountingStateMachine::default());
        Ok(service.start(host)?)
    };
    (0..groups).map(start).collect()
}

/// Waits until every group has a leader, or the time is over.
pub fn wait_for_leaders(nodes: &[Node], limit: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < limit && nodes.iter().any(|n| n.leader_id().is_none()) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// CPU time of a process (`self` or its id), user and system, in seconds.
pub fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |s| s.1);
    let fields: Vec<f64> =
        after_name.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    // Linux reports in ticks of 10 ms on every platform that matters here.
    fields.iter().sum::<f64>() / 100.0
}

/// A number of `/proc/self/status`; 0 when it is not there.
pub fn status_kb(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()).and_then(|v| v.parse().ok()).unwrap_or(0)
}
