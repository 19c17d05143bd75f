//! Three hosts in this process, one group, a window of proposals in flight: writes a second and their latency.
//!
//! `cargo run --release -p ringraft --example throughput -- [inproc|tcp] [memory|DIR] [window] [seconds] [payload]`
//!
//! All three hosts share this machine's cores, so that this is for comparing changes and for profiles. Numbers to quote come from
//! three processes (`ringraft bench`).

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use ringraft::inproc::Network;
use ringraft::{
    Applied, ApplyError, Completion, CompletionSink, Configuration, HostOptions, Iterator, Node, NodeOptions,
    RaftGroupService, RaftHost, SinkId, StartMode, StateMachine, StoreOptions, Task, TransportOptions,
};

struct Count(u64);

impl StateMachine for Count {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while let Some(entries) = iter.next_chunk() {
            self.0 += entries.len() as u64;
        }
    }
}

/// Counts outcomes, and lets the proposer know how many it may send again.
struct Window {
    start: Instant,
    done: AtomicU64,
    failed: AtomicU64,
    latencies: Mutex<Vec<u32>>,
    proposer: std::thread::Thread,
}

impl CompletionSink for Window {
    fn complete(&self, tag: u64, outcome: Result<&Applied, &ApplyError>) {
        if outcome.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.done.fetch_add(1, Ordering::Release);
        let took = (self.start.elapsed().as_nanos() as u64).saturating_sub(tag);
        self.latencies.lock().push((took / 1000) as u32);
    }

    fn batch_end(&self) {
        self.proposer.unpark();
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |position: usize, default: &str| {
        arguments.get(position).cloned().unwrap_or_else(|| default.to_owned())
    };
    let (transport, store) = (argument(0, "inproc"), argument(1, "memory"));
    let number = |position, default: &str| -> u64 { argument(position, default).parse().expect("a number") };
    let (window, seconds, payload) = (number(2, "1024"), number(3, "5"), number(4, "16"));

    let network = Network::new();
    let listeners: Vec<TcpListener> =
        (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    let endpoints: Vec<String> =
        listeners.iter().map(|listener| listener.local_addr().expect("bound").to_string()).collect();
    drop(listeners);
    let conf: Configuration = endpoints.join(",").parse().expect("a configuration");
    let hosts: Vec<(RaftHost, Node)> = endpoints
        .iter()
        .map(|endpoint| {
            let store = match store.as_str() {
                "memory" => StoreOptions::Memory,
                dir => StoreOptions::segment(PathBuf::from(dir).join(endpoint.replace(':', "_"))),
            };
            let mut options = HostOptions::new(endpoint, store);
            options.start_mode = StartMode::Bootstrap;
            options.bootstrap_ask_ms = 0;
            if transport == "inproc" {
                options.transport = TransportOptions::Inproc(network.clone());
            }
            let host = RaftHost::start(options).expect("the host starts");
            let server = endpoint.parse().expect("a peer id");
            let service = RaftGroupService::new(
                "bench",
                server,
                NodeOptions::with_initial_conf(conf.clone()),
                Count(0),
            );
            let node = service.start(&host).expect("the group starts");
            (host, node)
        })
        .collect();
    let leader = loop {
        match hosts.iter().find(|(_, node)| node.is_leader()) {
            Some((_, node)) => break node.clone(),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let sink = Arc::new(Window {
        start: Instant::now(),
        done: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        latencies: Mutex::default(),
        proposer: std::thread::current(),
    });
    let id = SinkId::register(sink.clone());
    let data = Bytes::from(vec![7; payload as usize]);
    let (mut sent, mut tasks) = (0, Vec::new());
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    while begin.elapsed() < Duration::from_secs(seconds) {
        let room = window - (sent - sink.done.load(Ordering::Acquire));
        if room == 0 {
            std::thread::park_timeout(Duration::from_millis(100));
            continue;
        }
        let now = sink.start.elapsed().as_nanos() as u64;
        tasks.extend((0..room).map(|_| Task::new(data.clone(), Completion::sink(id, now))));
        sent += leader.apply_batch(&mut tasks).expect("the host runs") as u64;
        tasks.clear();
    }
    let (elapsed, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let done = sink.done.load(Ordering::Acquire);
    let mut latencies = std::mem::take(&mut *sink.latencies.lock());
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "{transport} {store} window {window} payload {payload}: {:.0} writes/s, p50 {} us, p99 {} us, {:.2} us cpu a write, {} failed",
        done as f64 / elapsed,
        at(0.5),
        at(0.99),
        cpu * 1e6 / done as f64,
        sink.failed.load(Ordering::Relaxed)
    );
    hosts.iter().for_each(|(host, _)| host.shutdown());
}

/// Processor time of this process so far, in seconds; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |position| -> f64 {
        after_name.split_whitespace().nth(position).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}
