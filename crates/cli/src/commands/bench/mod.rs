//! `ringraft bench`: starts the nodes, loads them, adds up.

mod args;
mod load;
pub mod node;
mod reads;
mod remote;
mod stages;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringraft::{HostOptions, PeerId, RaftHost, TransportOptions};
use ringraft_net::inproc::Network;
use serde_json::{Value, json};

use self::args::{Client, Transport, summary};
use self::load::Work;
use self::node::{
    Times, measure_load, measure_reads, start_groups, start_host, store_options, wait_for_leaders,
};
use crate::demo::cluster::free_ports;
use crate::exit::Exit;

pub use self::args::BenchArgs;

/// Runs the bench and prints what came out.
pub fn run(args: &BenchArgs) -> Exit {
    if args.client == Client::Remote && (args.transport == Transport::Inproc || args.nodes != 3) {
        return Exit::Usage.say("--client remote goes with --transport tcp and --nodes 3");
    }
    if args.client == Client::Remote && !args.reads.is_empty() {
        return Exit::Usage.say("--reads goes with --client embedded");
    }
    if !args.reads.is_empty() && args.window == 0 {
        return Exit::Usage.say("--reads needs a --window of at least 1");
    }
    let result = match (args.client, args.transport) {
        (Client::Remote, _) => remote::measure(args),
        (Client::Embedded, Transport::Tcp) => processes(args),
        (Client::Embedded, Transport::Inproc) => in_process(args),
    };
    match result {
        Ok(summary) if args.reads.is_empty() => print(args, &summary),
        Ok(summary) => reads::print(args, &summary),
        Err(error) => Exit::Failed.say(&error.to_string()),
    }
}

/// Prints the summary; a run without a single write has failed.
fn print(args: &BenchArgs, summary: &Value) -> Exit {
    if args.json {
        println!("{summary}");
    } else {
        for (key, value) in summary.as_object().into_iter().flatten() {
            println!("{key:>18}  {value}");
        }
    }
    let idle = args.window > 0 && summary["writes_per_s"].as_f64().unwrap_or(0.0) == 0.0;
    if idle { Exit::Failed.say("no write was done; see the errors above") } else { Exit::Fine }
}

/// Kills what is left of the processes, whatever happens.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn processes(args: &BenchArgs) -> Result<Value, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let ports = free_ports(args.nodes as usize, u64::from(std::process::id()))?;
    let addrs: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    let program = std::env::current_exe()?;
    let mut children = Processes(Vec::new());
    for id in 0..addrs.len() {
        let child = Command::new(&program)
            .arg("bench-node")
            .args(["--id", &id.to_string(), "--addrs", &addrs.join(",")])
            .arg("--dir")
            .arg(dir.path())
            .args(["--groups", &args.groups.to_string(), "--payload", &args.payload.to_string()])
            .args(["--window", &args.window.to_string(), "--store", &args.store.to_string()])
            .args(["--warmup", &args.warmup.to_string(), "--seconds", &args.seconds.to_string()])
            .args(args.reads.iter().map(|kind| format!("--reads={kind}")))
            .stdout(Stdio::piped())
            .spawn()?;
        children.0.push(child);
    }
    let mut rows = Vec::new();
    for child in &mut children.0 {
        let output = child.stdout.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
        child.wait()?;
        let line = output.lines().rfind(|l| l.starts_with('{')).ok_or("a node ended without a result")?;
        rows.push(serde_json::from_str::<Value>(line)?);
    }
    Ok(if args.reads.is_empty() { add_up(args, &rows) } else { reads::add_up(args, &rows) })
}

/// One summary of the lines of all nodes.
fn add_up(args: &BenchArgs, rows: &[Value]) -> Value {
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(0.0);
    let sum = |key: &str| rows.iter().map(|r| number(r, key)).sum::<f64>();
    let list = |key: &str| rows.iter().map(|r| r[key].clone()).collect::<Vec<_>>();
    let rate: f64 = rows.iter().map(|r| number(r, "ops") / number(r, "seconds").max(1e-9)).sum();
    let busiest = rows.iter().max_by(|a, b| number(a, "ops").total_cmp(&number(b, "ops")));
    let of_busiest = |key: &str| busiest.map_or(Value::Null, |r| r[key].clone());
    let ops = sum("ops");
    let rss: Vec<u64> = rows.iter().map(|r| number(r, "rss_kb") as u64 / 1024).collect();
    summary(
        args,
        rows[0]["system"].as_str().unwrap_or("ringraft"),
        json!({
            "writes_per_s": rate.round(), "p50_us": of_busiest("p50_us"), "p99_us": of_busiest("p99_us"),
            "p999_us": of_busiest("p999_us"), "errors": sum("errors"), "leads": list("leads"),
            "cpu_us_per_write": if ops > 0.0 { json!(sum("cpu_s") * 1e6 / ops) } else { Value::Null },
            "cpu_cores": sum("cpu_s") / args.seconds, "rss_mb": rss, "threads": list("threads"),
            "fsyncs_per_s": sum("fsyncs") / args.seconds, "batch_entries": of_busiest("batch_entries"),
            "stages_us": of_busiest("stages_us"),
        }),
    )
}

fn in_process(args: &BenchArgs) -> Result<Value, Box<dyn std::error::Error>> {
    stages::install();
    let dir = tempfile::tempdir()?;
    let network = Network::new();
    let addrs: Vec<String> = (1..=args.nodes).map(|n| format!("node{n}:{n}")).collect();
    let mut hosts: Vec<RaftHost> = Vec::new();
    let mut nodes = Vec::new();
    for addr in &addrs {
        let peer: PeerId = addr.parse()?;
        let store = store_options(args.store, &Path::new(dir.path()).join(peer.ip()));
        let mut options = HostOptions::new(addr, store);
        options.transport = TransportOptions::Inproc(network.clone());
        let host = start_host(options)?;
        nodes.extend(start_groups(&host, addr, &addrs.join(","), args.groups, &args.reads)?);
        hosts.push(host);
    }
    wait_for_leaders(&nodes, Duration::from_secs(60));
    let times = Times { warmup: args.warmup, seconds: args.seconds };
    let system = format!("ringraft-{}-inproc", args.store);
    let summary = if args.reads.is_empty() {
        let mut row = measure_load(&nodes, args.window, Work::Propose(args.payload), times, None);
        row["system"] = system.into();
        add_up(args, &[row])
    } else {
        let phases = measure_reads(&nodes, args.window, args.payload, &args.reads, times);
        reads::add_up(args, &[json!({ "system": system, "phases": phases })])
    };
    hosts.iter().for_each(RaftHost::shutdown);
    Ok(summary)
}
