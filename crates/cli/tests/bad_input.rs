//! What goes wrong around a server: a clear error, nothing lost, no panic.

mod processes;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use processes::{Cluster, assert_refused, json, run, wait_for_output, with_file_limit};

#[test]
fn a_wrong_configuration_is_refused_by_name() {
    let cluster = Cluster::configure(1, "total_slot = 3");
    assert_refused(
        &cluster.refused(0, &["--bootstrap"]),
        2,
        &["0.toml", "total_slot", "did you mean total_slots"],
    );
    cluster.write_config(0, "total_slots = 0");
    assert_refused(&cluster.refused(0, &["--bootstrap"]), 2, &["total_slots is 0", "between 1 and 100000"]);
    let missing = run(&["server", "--config", "/nowhere/server.toml"]);
    assert_refused(&missing, 2, &["/nowhere/server.toml"]);
    assert_refused(&run(&["server"]), 2, &["--config"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let cluster = Cluster::configure(1, "");
    let _holder = TcpListener::bind(&cluster.addresses[0]).unwrap();
    let output = cluster.refused(0, &["--bootstrap"]);
    assert_refused(&output, 1, &["server_address", &cluster.addresses[0], "another program"]);
    assert!(!cluster.data(0).exists(), "nothing is left behind");
}

#[test]
fn a_first_start_with_a_wrong_address_can_be_repeated_with_the_right_one() {
    let mut cluster = Cluster::configure(1, "");
    let right = cluster.addresses[0].clone();
    // An address of no machine (RFC 5737), a name, and what means every address.
    for (wrong, exit, words) in [
        ("192.0.2.1:8081", 1, ["server_address 192.0.2.1:8081", "no address of this machine"]),
        ("localhost:8081", 2, ["server_address localhost:8081 is a name", "listen = "]),
        ("0.0.0.0:8081", 2, ["0.0.0.0:8081", "the ip under which the other servers reach it"]),
        ("[::]:8081", 2, ["[::]:8081", "the ip under which the other servers reach it"]),
    ] {
        cluster.addresses[0] = wrong.to_owned();
        cluster.write_config(0, "");
        assert_refused(&cluster.refused(0, &["--bootstrap"]), exit, &words);
        assert!(!cluster.data(0).exists(), "{wrong} left something behind");
    }
    cluster.addresses[0] = right;
    cluster.write_config(0, "");
    cluster.spawn(0, &["--bootstrap"]);
    cluster.wait_for_leaders();
    cluster.assert_healthy();
}

#[test]
fn a_data_path_that_is_none_is_refused_with_what_to_do() {
    let cluster = Cluster::configure(1, "");
    std::fs::write(cluster.data(0), "not a directory").unwrap();
    let output = cluster.refused(0, &["--bootstrap"]);
    assert_refused(&output, 1, &["data0", "something else stands there"]);
    assert!(!processes::stderr(&output).contains("replace the disk"), "{output:?}");

    let config = std::fs::read_to_string(cluster.config(0)).unwrap();
    let data = format!("{:?}", cluster.data(0));
    std::fs::write(cluster.config(0), config.replace(&data, "\"~/data\"")).unwrap();
    assert_refused(&cluster.refused(0, &["--bootstrap"]), 2, &["data_path", "~/data", "whole path"]);
}

#[test]
fn damage_is_told_with_the_way_back() {
    let mut cluster = Cluster::start(1, "");
    cluster.terminate(0);
    std::fs::write(cluster.data(0).join("IDENTITY"), [0; 40]).unwrap();
    let output = cluster.refused(0, &[]);
    assert_refused(&output, 1, &["IDENTITY", "data_path", "--rejoin"]);
}

/// Shows rule P11.
#[test]
fn a_blank_directory_needs_leave() {
    let cluster = Cluster::configure(1, "");
    assert_refused(&cluster.refused(0, &[]), 2, &["data_path", "data0", "--bootstrap", "--rejoin"]);
    assert_refused(&cluster.refused(0, &["--rejoin", "--bootstrap"]), 2, &["--bootstrap"]);
}

#[test]
fn the_directory_of_another_node_is_refused_and_left_alone() {
    let mut cluster = Cluster::start(1, "");
    cluster.ask(&["set", "k", "7"]);
    cluster.terminate(0);
    let owner = std::mem::replace(&mut cluster.addresses[0], format!("127.0.0.1:{}", processes::free_port()));
    cluster.write_config(0, "");
    for flags in [&["--bootstrap"][..], &[]] {
        assert_refused(
            &cluster.refused(0, flags),
            2,
            &["data_path", "data0", "belongs to", &owner, "server_address"],
        );
    }
    cluster.addresses[0] = owner;
    cluster.write_config(0, "");
    cluster.spawn(0, &[]);
    cluster.wait_for_leaders();
    assert_eq!(cluster.ask(&["get", "k"]), 7);
    cluster.assert_healthy();
}

#[test]
fn a_directory_that_is_in_use_is_refused() {
    let mut cluster = Cluster::start(1, "");
    let data = cluster.data(0);
    // Another port, so that only the directory is in the way.
    let (address, config) = (cluster.addresses[0].clone(), cluster.config(0));
    let text = std::fs::read_to_string(&config).unwrap();
    let other = cluster.dir.path().join("other.toml");
    std::fs::write(&other, text.replace(&address, &format!("127.0.0.1:{}", processes::free_port()))).unwrap();
    let output = run(&["server", "--config", other.to_str().unwrap(), "--bootstrap"]);
    assert!([Some(1), Some(2)].contains(&output.status.code()), "{output:?}");
    assert!(processes::stderr(&output).contains(data.to_str().unwrap()), "{output:?}");
    cluster.ask(&["set", "k", "1"]);
    cluster.assert_healthy();
}

#[test]
fn a_full_disk_at_the_start_is_an_error() {
    let cluster = Cluster::configure(1, "");
    let mut command = with_file_limit(64, &cluster.config(0), &["--bootstrap"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = wait_for_output(command);
    assert_refused(&output, 1, &["data0"]);
}

#[test]
fn a_disk_that_fills_up_stops_the_server_from_acknowledging_and_loses_nothing() {
    let mut cluster = Cluster::start(1, "");
    cluster.ask(&["set", "before", "1"]);
    cluster.terminate(0);
    // The files are there already; writes beyond the limit fail.
    let command = with_file_limit(600, &cluster.config(0), &[]);
    cluster.spawn_as(0, command);
    cluster.wait_for_leaders();
    let mut acked = Vec::new();
    let long = "k".repeat(4000);
    for i in 0..2000 {
        let key = format!("{long}{i}");
        let output = cluster.client(&["set", &key, &i.to_string(), "--timeout", "2000"]);
        if output.status.success() {
            acked.push((key, i));
        } else {
            assert!(
                ["unknown", "not_leader", "timeout"].contains(&json(&output)["error"].as_str().unwrap()),
                "{output:?}"
            );
            break;
        }
    }
    assert!(!acked.is_empty() && acked.len() < 2000, "{} writes", acked.len());
    assert_eq!(cluster.wait_for_end(0).code(), Some(1), "{}", cluster.log(0));
    let log = cluster.log(0);
    assert!(log.contains("the log store has failed, and the server has ended"), "{log}");
    assert!(log.contains("free space"), "{log}");
    cluster.spawn(0, &[]);
    cluster.wait_for_leaders();
    assert_eq!(cluster.ask(&["get", "before"]), 1);
    for (key, value) in acked {
        assert_eq!(cluster.ask(&["get", &key]), value);
    }
    cluster.assert_healthy();
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_ends() {
    let mut cluster = Cluster::start(3, "");
    cluster.ask(&["set", "before", "1"]);
    cluster.terminate(0);
    // The files are there already; writes beyond the limit fail.
    let command = with_file_limit(600, &cluster.config(0), &[]);
    cluster.spawn_as(0, command);
    let address = cluster.addresses[0].clone();
    cluster.wait_until("it leads", |cluster| {
        let conf = cluster.conf();
        run(&["admin", "transfer", "--to", &address, "--group", "atomic_0", "--conf", &conf]).status.success()
    });
    let long = "k".repeat(4000);
    let end = (0..2000).find_map(|i| {
        // Whether it is refused, unknown or repeated at the next leader does not matter here.
        cluster.client(&["set", &format!("{long}{i}"), "1", "--timeout", "10000"]);
        cluster.servers[0].as_mut().unwrap().try_wait().unwrap()
    });
    assert_eq!(end.and_then(|status| status.code()), Some(1), "{}", cluster.log(0));
    cluster.servers[0] = None;
    let log = cluster.log(0);
    let (_, of_this_life) = log.rsplit_once("serving").unwrap();
    assert!(of_this_life.contains("hands leadership over"), "{log}");
    assert_eq!(cluster.ask(&["inc", "before"]), 2);
    cluster.assert_healthy();
}

#[test]
fn garbage_on_the_port_closes_that_connection_only() {
    let mut cluster = Cluster::start(1, "");
    cluster.ask(&["set", "k", "1"]);
    let kinds: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 4096],
        &[0; 64],
        b"\x01\x01\x00\x01\x01\xff\xff\xff\xff\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff",
    ];
    for garbage in kinds {
        let mut stream = TcpStream::connect(&cluster.addresses[0]).unwrap();
        stream.set_read_timeout(Some(processes::PATIENCE)).unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
        }
    }
    assert_eq!(cluster.ask(&["inc", "k"]), 2);
    cluster.assert_healthy();
}

#[test]
fn a_connection_that_says_nothing_hurts_nobody() {
    let mut cluster = Cluster::start(1, "");
    let silent: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(&cluster.addresses[0]).unwrap()).collect();
    assert_eq!(cluster.ask(&["inc", "k"]), 1);
    drop(silent);
    assert_eq!(cluster.ask(&["inc", "k"]), 2);
    cluster.assert_healthy();
}

#[test]
fn an_unreachable_peer_is_reported_once_and_the_others_go_on() {
    let mut cluster = Cluster::configure(3, "");
    cluster.spawn(0, &["--bootstrap"]);
    cluster.spawn(1, &["--bootstrap"]);
    cluster.wait_for_leaders();
    for i in 1..=100 {
        assert_eq!(cluster.ask(&["inc", "k"]), i);
    }
    let absent = cluster.addresses[2].clone();
    for server in 0..2 {
        let log = cluster.log(server);
        let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains(&absent)).count();
        assert!(warnings <= 3, "once for each kind of connection, not in a loop:\n{log}");
    }
    cluster.wait_until("the warning", |cluster| {
        (0..2).any(|server| {
            cluster.log(server).lines().any(|line| line.contains("WARN") && line.contains(&absent))
        })
    });
    // The third comes late and catches up.
    cluster.spawn(2, &["--bootstrap"]);
    cluster.wait_until("the third to catch up", |cluster| {
        let output = run(&["client", "get", "k", "--local", "--conf", &cluster.addresses[2]]);
        output.stdout == b"100\n"
    });
    cluster.assert_healthy();
}

#[test]
fn nobody_at_the_address_is_an_error_in_time() {
    let address = format!("127.0.0.1:{}", processes::free_port());
    let start = std::time::Instant::now();
    let output = run(&["client", "get", "k", "--conf", &address, "--timeout", "500", "--json"]);
    assert_refused(&output, 1, &[&address]);
    assert_eq!(json(&output)["error"], "timeout");
    assert!(start.elapsed() < Duration::from_secs(30), "the deadline holds");
}
