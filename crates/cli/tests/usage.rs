//! Flags, help and exit statuses.

mod processes;

use std::io::Write;
use std::process::Stdio;

use processes::{assert_refused, ringraft, run};

#[test]
fn every_command_teaches() {
    for command in ["server", "client", "admin", "describe", "demo", "script", "sim", "bench", "bench-node"] {
        let output = run(&[command, "--help"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success());
        assert!(text.contains("Example") && text.contains(&format!("ringraft {command}")), "{text}");
    }
}

#[test]
fn wrong_usage_has_its_status() {
    assert_refused(&run(&["nonsense"]), 2, &["nonsense"]);
    assert_refused(&run(&["client", "get", "k"]), 2, &["--conf"]);
    assert_refused(&run(&["client", "get", "", "--conf", "a:1"]), 2, &["key"]);
    assert_refused(&run(&["client", "get", "k", "--conf", "a"]), 2, &["--conf", "ip:port"]);
    assert_refused(&run(&["client", "set", "k", "one", "--conf", "a:1"]), 2, &["one"]);
    assert_refused(&run(&["client", "get", "k", "--conf", "a:1", "--timeout", "0"]), 2, &["--timeout"]);
    assert_refused(&run(&["admin", "get-leader", "--group", "g"]), 2, &["--conf"]);
    assert_refused(&run(&["admin", "get-leader", "--conf", "a:1"]), 2, &["--group"]);
    assert_refused(&run(&["admin", "get-leader", "--conf", "a:1", "--group", "0"]), 2, &["--group"]);
    assert_refused(&run(&["admin", "add-peer", "a", "--conf", "a:1", "--group", "g"]), 2, &["ip:port"]);
    assert_refused(&run(&["describe", "--addr", "a"]), 2, &["--addr"]);
    assert_refused(&run(&["demo", "--groups", "0"]), 2, &["--groups"]);
    assert_refused(&run(&["sim", "--mutant", "all"]), 2, &["no mutants", "--features mutants"]);
    assert_refused(&run(&["--log", "ringraft=loud", "describe", "--addr", "a:1"]), 2, &["--log"]);
}

#[test]
fn a_demo_does_not_write_over_another() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("server2")).unwrap();
    let output = run(&["demo", "--dir", dir.path().to_str().unwrap()]);
    assert_refused(&output, 2, &["server2", "new directory"]);
}

#[test]
fn scripts_have_their_statuses() {
    let with_stdin = |args: &[&str], script: &str| {
        let mut child = ringraft(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let rewritten = with_stdin(&["script", "-", "--rewrite"], "add-nodes 1 2 3\n\ncampaign 1\n");
    assert!(rewritten.status.success(), "{rewritten:?}");
    let golden = String::from_utf8(rewritten.stdout).unwrap();
    assert!(golden.starts_with("add-nodes 1 2 3\n"), "{golden}");
    assert!(with_stdin(&["script", "-"], &golden).status.success());
    assert_refused(&with_stdin(&["script", "-"], "add-nodes 1\n  nothing of the kind\n"), 1, &["line 1"]);
    assert_refused(&with_stdin(&["script", "-"], "dance 1\n"), 2, &["line 1", "dance"]);
    assert_refused(&run(&["script", "/nowhere/x.txt"]), 2, &["/nowhere/x.txt"]);
}

#[test]
fn a_bench_prints_every_key_of_its_contract() {
    let keys = "system groups payload window writes_per_s p50_us p99_us p999_us errors leads cpu_us_per_write cpu_cores \
                rss_mb threads fsyncs_per_s stages_us";
    for kind in [
        &["--transport", "inproc", "--store", "memory"][..],
        &["--transport", "tcp"],
        &["--client", "remote"],
    ] {
        let mut args =
            vec!["bench", "--seconds", "0.3", "--warmup", "0.1", "--window", "4", "--groups", "2", "--json"];
        args.extend(kind);
        let output = run(&args);
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().unwrap_or_default();
        let row: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        for key in keys.split_whitespace() {
            assert!(row.get(key).is_some(), "{key} is missing in {line}");
        }
        assert!(output.status.success() && row["writes_per_s"].as_f64() > Some(0.0), "{output:?}");
    }
}

#[test]
fn a_simulation_says_what_it_did_and_a_full_one_what_it_did_not() {
    let args = ["sim", "--seeds", "4", "--length", "short", "--json"];
    let output = run(&args);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for key in ["seeds_void", "events_per_s", "commits", "faults", "marks_missed", "trace_hash", "violations"]
    {
        assert!(!report[key].is_null(), "{key} is missing: {text}");
    }
    assert_eq!(report["ok"], true);
    assert_eq!(report["seeds"], 4);
    let again = run(&args);
    let again: serde_json::Value =
        serde_json::from_str(String::from_utf8(again.stdout).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(again["trace_hash"], report["trace_hash"]);
    // One seed cannot have every fault.
    let full = run(&["sim", "--seeds", "1", "--length", "short", "--full"]);
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stdout).contains("faults that never happened"));
}
