//! Signals do what operators expect of a server.

mod processes;

use std::fs::File;
use std::process::{Command, Stdio};

use processes::{Cluster, json, ringraft, wait_for_end};

/// Which server leads the first group.
fn leader(cluster: &Cluster) -> Option<usize> {
    let slots = json(&cluster.client(&["slots"]))["slots"].clone();
    let leader = slots[0]["leader"].as_str()?.to_owned();
    cluster.addresses.iter().position(|address| *address == leader)
}

#[test]
fn each_of_the_three_ends_a_server_in_order() {
    let mut cluster = Cluster::start(3, "");
    for signal in ["HUP", "TERM", "INT"] {
        cluster.wait_until("a leader", |cluster| leader(cluster).is_some());
        let number = leader(&cluster).unwrap();
        cluster.signal(number, signal);
        let status = cluster.wait_for_end(number);
        let log = cluster.log(number);
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("hands leadership over") && log.contains("shut down"), "{log}");
        cluster.ask(&["inc", "k"]);
        cluster.spawn(number, &[]);
        // The next one to end needs two others that are there.
        cluster.wait_until("three that follow", |cluster| {
            (0..3).all(|server| knows_the_leader(cluster, server))
        });
    }
    assert_eq!(cluster.ask(&["get", "k"]), 3);
    cluster.assert_healthy();
}

fn knows_the_leader(cluster: &Cluster, server: usize) -> bool {
    cluster.describe(server).is_some_and(|described| described["groups"][0]["leader"].is_string())
}

#[test]
fn signals_that_are_not_about_the_end_do_not_end_a_server() {
    let mut cluster = Cluster::start(1, "");
    for signal in ["USR1", "PIPE", "USR2"] {
        cluster.signal(0, signal);
    }
    let address = cluster.addresses[0].clone();
    cluster.wait_until("the description in the log", |cluster| {
        let log = cluster.log(0);
        log.lines().any(|line| {
            line.contains("describe group=atomic_0") && line.contains(&format!("leader={address}"))
        })
    });
    cluster.ask(&["inc", "k"]);
    cluster.assert_healthy();
    assert_eq!(cluster.terminate(0).code(), Some(0));
}

#[test]
fn a_server_that_is_starting_ends_with_status_0() {
    for signal in ["TERM", "INT", "HUP"] {
        let dir = tempfile::tempdir().unwrap();
        // Its configuration never comes: the start takes for ever.
        let config = dir.path().join("config.toml");
        assert!(Command::new("mkfifo").arg(&config).status().unwrap().success());
        let mut child = ringraft(&["server", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Opens when the server has opened the other end.
        let writer = File::options().write(true).open(&config).unwrap();
        let kill = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
        assert!(kill.unwrap().success());
        assert_eq!(wait_for_end(&mut child).code(), Some(0), "{signal}");
        drop(writer);
    }
}
