//! A command whose output nobody reads ends quietly, with status 1.

mod processes;

use std::fs::File;
use std::process::Stdio;

use processes::{Cluster, ringraft, wait_for_output};

/// Runs a command into a full disk and into a pipe without a reader.
fn assert_ends_quietly(args: &[&str]) {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for (kind, stdout) in [("full", Stdio::from(full)), ("closed", Stdio::from(writer))] {
        let mut child =
            ringraft(args).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        let status = processes::wait_for_end(&mut child);
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert_eq!(status.code(), Some(1), "{args:?}, {kind}: {said}");
        assert!(!said.contains("panicked") && !said.contains("backtrace"), "{args:?}, {kind}: {said}");
    }
}

#[test]
fn commands_that_ask_a_server() {
    let mut cluster = Cluster::start(1, "total_slots = 3");
    let (address, conf) = (cluster.addresses[0].clone(), cluster.conf());
    for args in [
        &["describe", "--addr", &address][..],
        &["describe", "--addr", &address, "--json"],
        &["client", "slots", "--conf", &conf],
        &["client", "slots", "--conf", &conf, "--json"],
        &["client", "inc", "k", "--conf", &conf],
        &["client", "get", "k", "--conf", &conf, "--json"],
        &["admin", "get-peers", "--group", "atomic_0", "--conf", &conf],
        &["admin", "get-leader", "--group", "atomic_0", "--conf", &conf, "--json"],
    ] {
        assert_ends_quietly(args);
    }
    assert_eq!(cluster.ask(&["get", "k"]), 2, "done, though it could not be told");
    cluster.terminate(0);
    let config = cluster.config(0);
    assert_ends_quietly(&["recover", "--config", config.to_str().unwrap(), "--all"]);
}

#[test]
fn commands_that_ask_nobody() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/testdata/election.txt");
    for args in [
        &["--help"][..],
        &["--version"],
        &["server", "--help"],
        &["script", script],
        &["sim", "--seeds", "2", "--length", "short"],
        &["sim", "--seeds", "2", "--length", "short", "--json"],
        &[
            "bench",
            "--transport",
            "inproc",
            "--store",
            "memory",
            "--seconds",
            "0.2",
            "--warmup",
            "0.1",
            "--groups",
            "1",
        ],
    ] {
        assert_ends_quietly(args);
    }
}

/// What the demo has made is taken away, too.
#[test]
fn the_demo() {
    let tmp = tempfile::tempdir().unwrap();
    let mut command = ringraft(&[
        "demo",
        "--groups",
        "1",
        "--seconds",
        "1",
        "--election-timeout-ms",
        "300",
        "--rate",
        "200",
    ]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    command.env("TMPDIR", tmp.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = wait_for_output(command);
    assert_eq!(output.status.code(), Some(0), "{}", processes::stderr(&output));
    let mut command = ringraft(&[
        "demo",
        "--groups",
        "1",
        "--seconds",
        "1",
        "--election-timeout-ms",
        "300",
        "--rate",
        "200",
    ]);
    command.env("TMPDIR", tmp.path()).stdin(Stdio::null()).stdout(full).stderr(Stdio::null());
    let status = processes::wait_for_end(&mut command.spawn().unwrap());
    assert_eq!(status.code(), Some(1));
    assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
}
