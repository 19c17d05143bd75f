//! Log lines are best effort: whatever becomes of stderr, the servers go on.

mod processes;

use std::fs::File;
use std::io::Write;
use std::process::Command;

use processes::{Cluster, ringraft, run};

fn server(cluster: &Cluster, server: usize, flags: &[&str]) -> Command {
    let mut command = ringraft(&["server", "--until-stdin-closes", "--bootstrap", "--config"]);
    command.arg(cluster.config(server)).args(flags);
    command
}

/// Servers do what they are for: every one of them takes part.
fn assert_all_serve(cluster: &mut Cluster) {
    let servers = cluster.servers.len();
    let conf = cluster.conf();
    for to in 0..servers {
        // Each hand-over makes every server log.
        let to = cluster.addresses[to].clone();
        cluster.wait_until("the transfer", |_| {
            run(&["admin", "transfer", "--to", &to, "--group", "atomic_0", "--conf", &conf]).status.success()
        });
        cluster.ask(&["inc", "k"]);
    }
    for server in 0..servers {
        let described = cluster.describe(server).expect("every server answers");
        let names: Vec<String> =
            std::fs::read_dir(format!("/proc/{}/task", cluster.servers[server].as_ref().unwrap().id()))
                .unwrap()
                .map(|task| {
                    std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned()
                })
                .collect();
        for thread in ["rr-lane-0", "rr-disk", "rr-fsm-0", "rr-read-0"] {
            assert!(names.iter().any(|name| name == thread), "{thread} has ended: {names:?}, {described}");
        }
    }
}

#[test]
fn a_server_runs_though_nothing_can_be_logged() {
    let mut cluster = Cluster::configure(1, "");
    let full = File::options().write(true).open("/dev/full").unwrap();
    cluster.spawn_with_stderr(0, server(&cluster, 0, &["--log", "trace"]), full.into());
    cluster.wait_for_leaders();
    cluster.ask(&["inc", "k"]);
    assert_eq!(cluster.terminate(0).code(), Some(0));
}

#[test]
fn a_reader_of_the_log_that_ends_takes_nobody_with_it() {
    let mut cluster = Cluster::configure(3, "");
    let mut readers = Vec::new();
    for number in 0..3 {
        let (reader, writer) = std::io::pipe().unwrap();
        cluster.spawn_with_stderr(number, server(&cluster, number, &[]), writer.into());
        readers.push(reader);
    }
    cluster.wait_for_leaders();
    drop(readers);
    assert_all_serve(&mut cluster);
    for number in 0..3 {
        assert_eq!(cluster.terminate(number).code(), Some(0));
    }
}

#[test]
fn a_reader_of_the_log_that_sleeps_holds_up_nobody() {
    let mut cluster = Cluster::configure(3, "");
    let mut readers = Vec::new();
    for number in 0..3 {
        // Read by nobody, and kept full by somebody who has more to write than it takes.
        let (reader, mut writer) = std::io::pipe().unwrap();
        let of_server = writer.try_clone().unwrap();
        std::thread::spawn(move || writer.write_all(&[b'x'; 1 << 20]));
        cluster.spawn_with_stderr(number, server(&cluster, number, &[]), of_server.into());
        readers.push(reader);
    }
    cluster.wait_for_leaders();
    assert_all_serve(&mut cluster);
    for number in 0..3 {
        assert_eq!(cluster.terminate(number).code(), Some(0));
    }
}

#[test]
fn an_error_is_an_error_though_nobody_can_read_it() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (args, status) in [
        (&["server", "--config", "/nowhere/x.toml"][..], 2),
        (&["client", "get", "k", "--conf", "127.0.0.1:1", "--timeout", "1"], 1),
        (&["nonsense"], 2),
    ] {
        let ended = ringraft(args).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(ended.code(), Some(status), "{args:?}");
    }
}
