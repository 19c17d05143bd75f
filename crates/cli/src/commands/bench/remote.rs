//! `ringraft bench --client remote`: SETs from this process to three AtomicServers, through the routing client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use ringraft_atomic::{AtomicClient, ClientOptions, Command, ReadMode};
use serde_json::{Value, json};

use super::args::{BenchArgs, summary};
use super::node::cpu_seconds;
use crate::demo::cluster::{Cluster, ClusterOptions, SERVERS};
use crate::signals::Interrupted;

/// Sends again as soon as it is answered; the number of such chains is the window.
struct Load {
    client: AtomicClient,
    keys: Vec<String>,
    state: Mutex<State>,
}

struct State {
    measuring: bool,
    stop: bool,
    ops: u64,
    errors: u64,
    latency_us: Histogram<u64>,
}

fn send(load: &Arc<Load>, key: usize, value: i64) {
    let next = Arc::clone(load);
    let sent = Instant::now();
    let command = Command::Set { key: load.keys[key].clone(), value };
    load.client.submit(command, ReadMode::default(), Duration::from_secs(10), move |outcome| {
        let mut state = next.state.lock();
        if state.measuring {
            match &outcome {
                Ok(_) => {
                    state.ops += 1;
                    state.latency_us.saturating_record(sent.elapsed().as_micros() as u64);
                }
                Err(_) => state.errors += 1,
            }
        }
        let stop = state.stop;
        drop(state);
        if !stop {
            send(&next, key, value + 1);
        }
    });
}

/// Starts the servers, loads them, and adds up.
pub fn measure(args: &BenchArgs) -> Result<Value, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let options = ClusterOptions {
        dir: dir.path().to_owned(),
        groups: args.groups,
        election_timeout_ms: 1000,
        max_election_delay_ms: 1000,
        seed: u64::from(std::process::id()),
        spare: 0,
    };
    let mut cluster = Cluster::start(&options, Interrupted::listen()?)?;
    let groups = args.groups;
    cluster.wait_until("leaders of every group", Duration::from_secs(30), |cluster| {
        let leads = |server| {
            let described = cluster.describe(server);
            described.map_or(0, |d| d.groups.iter().filter(|g| g.state == "LEADER").count())
        };
        (0..SERVERS).map(leads).sum::<usize>() >= groups
    })?;
    let client = AtomicClient::connect(&cluster.peers(), ClientOptions::default())?;
    let load = Arc::new(Load {
        client,
        keys: (0..args.window * groups).map(|n| format!("key{n}")).collect(),
        state: Mutex::new(State {
            measuring: false,
            stop: false,
            ops: 0,
            errors: 0,
            latency_us: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        }),
    });
    (0..load.keys.len()).for_each(|key| send(&load, key, 0));
    cluster.sleep(Duration::from_secs_f64(args.warmup))?;
    let servers: Vec<String> =
        (0..SERVERS).filter_map(|server| cluster.pid(server)).map(|pid| pid.to_string()).collect();
    let cpu = || servers.iter().map(|pid| cpu_seconds(pid)).sum::<f64>();
    let (begun, cpu_before) = (Instant::now(), cpu());
    load.state.lock().measuring = true;
    cluster.sleep(Duration::from_secs_f64(args.seconds))?;
    let (ops, errors, latency_us) = {
        let mut state = load.state.lock();
        (state.measuring, state.stop) = (false, true);
        (state.ops, state.errors, state.latency_us.clone())
    };
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu() - cpu_before);
    let described: Vec<_> = (0..SERVERS).filter_map(|server| cluster.describe(server)).collect();
    load.client.shutdown();
    let leads =
        |groups: &[ringraft_atomic::GroupDescription]| groups.iter().filter(|g| g.state == "LEADER").count();
    Ok(summary(
        args,
        "ringraft-atomic-remote",
        json!({
            "writes_per_s": (ops as f64 / seconds).round(), "p50_us": latency_us.value_at_quantile(0.5),
            "p99_us": latency_us.value_at_quantile(0.99), "p999_us": latency_us.value_at_quantile(0.999),
            "errors": errors, "leads": described.iter().map(|d| leads(&d.groups)).collect::<Vec<_>>(),
            "cpu_us_per_write": if ops > 0 { json!(cpu * 1e6 / ops as f64) } else { Value::Null },
            "cpu_cores": cpu / seconds, "rss_mb": described.iter().map(|d| d.rss_kb / 1024).collect::<Vec<_>>(),
            "threads": described.iter().map(|d| d.threads).collect::<Vec<_>>(),
            // The servers do not report these over the wire yet.
            "fsyncs_per_s": Value::Null, "stages_us": Value::Null,
        }),
    ))
}
