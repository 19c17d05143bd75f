//! The demo, whole.

mod processes;

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use processes::{PATIENCE, json, ringraft, stderr, wait_for_end};

#[test]
fn the_demo_survives_a_kill_and_proves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demo");
    let mut command = ringraft(&[
        "demo",
        "--groups",
        "4",
        "--seconds",
        "3",
        "--election-timeout-ms",
        "300",
        "--rate",
        "1000",
    ]);
    let output = command.args(["--json", "--dir"]).arg(&path).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let report = json(&output);
    for key in ["acked", "reads", "writes_per_s", "p50_us", "p99_us", "groups_moved", "threads", "counters"] {
        assert!(report[key].as_f64().is_some_and(|value| value > 0.0), "{key} in {report}");
    }
    for key in ["unknown", "failed", "failover_ms_max"] {
        assert!(report[key].is_u64(), "{key} in {report}");
    }
    assert_eq!(report["ok"], true);
    assert_eq!((&report["kills"], &report["lost"], &report["diverged"]), (&1.into(), &0.into(), &0.into()));
    assert!(said.contains("kill -9") && said.contains("new leaders"), "{said}");
    for server in 1..=3 {
        let log = std::fs::read_to_string(path.join(format!("server{server}/server.log"))).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn the_demo_grows_moves_its_leaders_and_shrinks_to_other_members() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demo");
    let mut command =
        ringraft(&["demo", "--members", "--groups", "2", "--election-timeout-ms", "300", "--rate", "1000"]);
    let output = command.args(["--json", "--dir"]).arg(&path).output().unwrap();
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let report = json(&output);
    assert_eq!(report["ok"], true);
    for key in ["lost", "diverged", "reads_failed", "kills"] {
        assert_eq!(report[key], 0, "{key} in {report}");
    }
    for key in ["acked", "reads", "join_ms_max"] {
        assert!(report[key].as_u64().is_some_and(|value| value > 0), "{key} in {report}");
    }
    for key in ["hand_over_ms_p50", "hand_over_ms_p99", "hand_over_ms_max", "reads_leaderless"] {
        assert!(report[key].is_u64(), "{key} in {report}");
    }
    assert_eq!(report["moves"], 10);
    assert!(report["leaders_removed"].as_u64().unwrap() >= 2, "{report}");
    // Ten rounds of both groups, and the leaders that were removed.
    assert!(report["hand_overs"].as_u64().unwrap() >= 22, "{report}");
    let members = |key: &str| -> Vec<String> {
        report[key].as_array().unwrap().iter().map(|peer| peer.as_str().unwrap().to_owned()).collect()
    };
    let (before, after) = (members("members_before"), members("members_after"));
    assert_eq!((before.len(), after.len()), (3, 3));
    assert_eq!(after.iter().filter(|peer| before.contains(peer)).count(), 1, "{report}");
    for server in 1..=5 {
        let log = std::fs::read_to_string(path.join(format!("server{server}/server.log"))).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// However a demo ends, its servers end too.
fn servers_end_with(signal: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("demo");
    let mut command = ringraft(&[
        "demo",
        "--groups",
        "1",
        "--seconds",
        "600",
        "--election-timeout-ms",
        "300",
        "--rate",
        "100",
    ]);
    let mut demo =
        command.arg("--dir").arg(&path).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let address = |server: usize| {
        let text =
            std::fs::read_to_string(path.join(format!("server{server}/server.toml"))).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("server_address = ").map(str::to_owned));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let listens = |server: usize| address(server).is_some_and(|address| TcpStream::connect(address).is_ok());
    wait_until("the servers", || (1..=3).all(listens));
    let kill = format!("kill -{signal} {}", demo.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let status = wait_for_end(&mut demo);
    assert!(!status.success());
    wait_until("the end of the servers", || !(1..=3).any(listens));
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_demo_takes_its_servers_along() {
    servers_end_with("INT");
}

#[test]
fn a_killed_demo_takes_its_servers_along() {
    servers_end_with("KILL");
}
