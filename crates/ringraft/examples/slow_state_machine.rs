//! One group's state machine stands still under a flood of writes: what do the writes of another group, on another worker, feel?
//!
//! `cargo run --release -p ringraft --example slow_state_machine -- [seconds of sleep] [tasks a second]`
//!
//! Three hosts in this process, first with one lane each, then with two. Prints for each the latency of the other group's writes when
//! all is quiet, under the flood, and while the flooded group's state machines sleep, and the leaders that fell meanwhile. Wanted: at
//! most twice the quiet p99, and none. It ends with code 1 if a leader fell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringraft::inproc::Network;
use ringraft::{
    Completion, Configuration, HostOptions, Iterator, Node, NodeOptions, PeerId, RaftGroupService, RaftHost,
    StartMode, StateMachine, StoreOptions, Task, TransportOptions,
};

/// Sleeps when it is told to.
struct Sleeper(Duration);

impl StateMachine for Sleeper {
    fn on_apply(&mut self, iter: &mut Iterator<'_>) {
        while let Some(entry) = iter.next() {
            if entry.data == b"sleep" {
                thread::sleep(self.0);
            }
        }
    }
}

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let sleep = Duration::from_secs(arguments.first().copied().unwrap_or(10));
    let rate = arguments.get(1).copied().unwrap_or(4000).max(1);
    let fell: Vec<bool> = [1, 2].into_iter().map(|lanes| leaders_fall(lanes, sleep, rate)).collect();
    std::process::exit(i32::from(fell.contains(&true)));
}

/// Measures with so many lanes a host; says whether a leader fell.
fn leaders_fall(lanes: usize, sleep: Duration, rate: u64) -> bool {
    let network = Network::new();
    let conf: Configuration = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3".parse().expect("a configuration");
    let start_host = |peer: &PeerId| {
        let mut options = HostOptions::new(peer.endpoint(), StoreOptions::Memory);
        options.start_mode = StartMode::Bootstrap;
        options.transport = TransportOptions::Inproc(network.clone());
        (options.lanes, options.fsm_workers, options.fuse_net) = (lanes, 2, lanes == 1);
        RaftHost::start(options).expect("the host starts")
    };
    let hosts: Vec<RaftHost> = conf.peers.iter().map(start_host).collect();
    // The first is pinned to worker 0, the second to worker 1 (and with two lanes to another lane).
    let start_group = |name: &str| -> Vec<Node> {
        let replica = |(host, peer): (&RaftHost, &PeerId)| {
            let options = NodeOptions::with_initial_conf(conf.clone());
            let service = RaftGroupService::new(name, peer.clone(), options, Sleeper(sleep));
            service.start(host).expect("the group starts")
        };
        hosts.iter().zip(&conf.peers).map(replica).collect()
    };
    let (slow, other) = (start_group("slow"), start_group("other"));
    let (slow_leader, leader) = (leader_of(&slow), leader_of(&other));
    let terms = || (slow_leader.term(), leader.term());
    let before = terms();
    println!("{lanes} lane(s) a host, {rate} tasks a second into the slow group:");
    measure(&leader, "quiet", Duration::from_secs(3));

    let stop = Arc::new(AtomicBool::new(false));
    let flood = {
        let (stop, node) = (Arc::clone(&stop), slow_leader.clone());
        thread::spawn(move || flood(&node, rate, &stop))
    };
    measure(&leader, "flood", Duration::from_secs(3));
    // Taken unless the ring is just full.
    while slow_leader.apply(Task::new("sleep", Completion::none())).is_err() {
        thread::sleep(Duration::from_millis(1));
    }
    measure(&leader, "standstill", sleep);
    let asked = Instant::now();
    let described = slow_leader.describe(Duration::from_secs(1)).is_ok();
    println!(
        "  describe of the slow group: {} after {:?}",
        if described { "answered" } else { "missed" },
        asked.elapsed()
    );
    stop.store(true, Ordering::Relaxed);
    let (taken, busy) = flood.join().expect("the flood ended");
    let fell = terms() != before;
    println!(
        "  tasks taken {taken}, refused as busy {busy}; leaders that fell: {}",
        if fell { "yes" } else { "none" }
    );
    hosts.iter().for_each(RaftHost::shutdown);
    fell
}

fn leader_of(nodes: &[Node]) -> Node {
    loop {
        match nodes.iter().find(|node| node.is_leader()) {
            Some(node) => return node.clone(),
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Writes one after the other for so long.
fn measure(node: &Node, phase: &str, time: Duration) {
    let (begin, mut latencies, mut failed) = (Instant::now(), Vec::new(), 0);
    while begin.elapsed() < time {
        let start = Instant::now();
        match node.propose("x").wait(Duration::from_secs(20)) {
            Ok(_) => latencies.push(start.elapsed()),
            Err(_) => failed += 1,
        }
        thread::sleep(Duration::from_millis(2));
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        latencies.get(((latencies.len() as f64 - 1.0) * share) as usize).copied().unwrap_or_default()
    };
    println!(
        "  {phase:<10} {:>5} writes, p50 {:?}, p99 {:?}, worst {:?}, {failed} failed",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Tasks at a rate until told to stop; how many were taken and refused.
fn flood(node: &Node, rate: u64, stop: &AtomicBool) -> (u64, u64) {
    let (begin, mut sent, mut taken, mut busy) = (Instant::now(), 0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        let due = begin.elapsed().as_micros() as u64 * rate / 1_000_000;
        while sent < due {
            match node.apply(Task::new(vec![0; 16], Completion::none())) {
                Ok(()) => taken += 1,
                Err(_) => busy += 1,
            }
            sent += 1;
        }
        thread::sleep(Duration::from_micros(500));
    }
    (taken, busy)
}
