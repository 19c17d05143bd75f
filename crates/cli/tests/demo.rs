//! The demo, whole.

mod processes;

use processes::{json, ringraft, stderr};

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
