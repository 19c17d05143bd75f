//! What a bench measures, and the keys of its summary that say so.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::load::Reads;
use super::node::Store;

/// How the nodes reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// A process for each node, TCP on loopback
    #[default]
    Tcp,
    /// All nodes in this process, frames through memory
    Inproc,
}

/// Where the load comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// The leader's own process proposes
    #[default]
    Embedded,
    /// This process sends SETs to three AtomicServers through the routing client
    Remote,
}

const EXAMPLE: &str = "Examples:
  ringraft bench --window 1024                 throughput of one group, three processes, every commit fsynced
  ringraft bench --window 1                    latency of one write at a time
  ringraft bench --groups 512 --window 16      many groups on the same threads
  ringraft bench --store memory --transport inproc   what the pipeline costs without disk and sockets
  ringraft bench --reads log,quorum,lease,follower --window 1000   reads without an entry beside reads through the log

writes_per_s and CPU add up all nodes; the percentiles are those of the busiest one.";

/// Measures writes a second, latency and CPU of a cluster on this machine
#[derive(Args, Debug, Clone)]
#[command(after_help = EXAMPLE)]
pub struct BenchArgs {
    /// Raft groups
    #[arg(long, default_value_t = 1)]
    pub groups: usize,
    /// Bytes of each write (with --client remote the size of a SET)
    #[arg(long, default_value_t = 16)]
    pub payload: usize,
    /// Writes in flight a group
    #[arg(long, default_value_t = 1024)]
    pub window: usize,
    /// Seconds of measuring
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds before measuring
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Log store
    #[arg(long, value_enum, default_value_t)]
    pub store: Store,
    /// Transport between the nodes
    #[arg(long, value_enum, default_value_t)]
    pub transport: Transport,
    /// Replicas of each group, 1 to 7
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    pub nodes: u64,
    /// Where the load comes from
    #[arg(long, value_enum, default_value_t)]
    pub client: Client,
    /// Read instead of writing: these kinds, one after the other on the same cluster (window: reads in flight a group, and at
    /// each follower)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KINDS")]
    pub reads: Vec<Reads>,
    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,
}

/// The keys that every kind of run has in common.
pub fn summary(args: &BenchArgs, system: &str, parts: Value) -> Value {
    let mut all = json!({
        "system": system, "groups": args.groups, "payload": args.payload, "window": args.window,
    });
    if let (Some(all), Value::Object(parts)) = (all.as_object_mut(), parts) {
        all.extend(parts);
    }
    all
}
