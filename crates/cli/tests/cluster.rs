//! Three servers and the client, as processes.

mod processes;

use processes::{Cluster, assert_refused, json, run, stderr};

#[test]
fn counters_are_set_compared_added_to_and_read() {
    let mut cluster = Cluster::start(3, "total_slots = 4");
    assert_eq!(cluster.ask(&["get", "k"]), serde_json::Value::Null);
    assert_eq!(cluster.ask(&["set", "k", "-5"]), -5);
    assert_eq!(cluster.ask(&["inc", "k", "7"]), 2);
    assert_eq!(cluster.ask(&["inc", "k"]), 3);
    assert_eq!(cluster.ask(&["cas", "k", "3", "10"]), 10);
    assert_eq!(cluster.ask(&["get", "k"]), 10);

    let other = cluster.client(&["cas", "k", "3", "11"]);
    assert_eq!(other.status.code(), Some(1));
    let other = json(&other);
    assert_eq!((&other["ok"], &other["error"]), (&false.into(), &serde_json::Value::Null));
    assert!(other["index"].as_u64().unwrap() > 0 && other["group"].as_str().unwrap().starts_with("atomic_"));

    let before = json(&cluster.client(&["get", "k"]))["index"].as_u64().unwrap();
    for flags in [&["--quorum"][..], &["--quorum", "--lease"], &["--quorum", "--any"]] {
        let read = cluster.client(&[&["get", "k"][..], flags].concat());
        assert_eq!(json(&read)["value"], 10, "{flags:?}: {}", stderr(&read));
        assert_eq!(json(&read)["index"], before, "{flags:?}: no entry, and up to date");
    }
    assert_refused(&cluster.client(&["get", "k", "--lease"]), 2, &["--quorum"]);

    let slots = json(&cluster.client(&["slots"]))["slots"].as_array().unwrap().clone();
    let starts: Vec<u64> = slots.iter().map(|slot| slot["start"].as_u64().unwrap()).collect();
    assert_eq!(starts, [0, 1 << 61, 1 << 62, 3 << 61]);
    assert_eq!(slots[2]["group"], "atomic_2");

    // Any one server is enough to find the others.
    let one = run(&["client", "get", "k", "--conf", &cluster.addresses[2]]);
    assert_eq!(String::from_utf8_lossy(&one.stdout), "10\n", "{}", stderr(&one));
    cluster.wait_until("the local value everywhere", |cluster| {
        cluster.addresses.iter().all(|address| {
            let output = run(&["client", "get", "k", "--local", "--conf", address]);
            output.stdout == b"10\n"
        })
    });
    cluster.assert_healthy();
}

#[test]
fn a_cluster_comes_back_with_everything() {
    let mut cluster = Cluster::start(3, "");
    for i in 0..20 {
        cluster.ask(&["set", &format!("k{i}"), &i.to_string()]);
    }
    for server in 0..3 {
        assert!(cluster.terminate(server).success(), "a clean end; log: {}", cluster.log(server));
    }
    for server in 0..3 {
        cluster.spawn(server, &[]);
    }
    cluster.wait_for_leaders();
    for i in 0..20 {
        assert_eq!(cluster.ask(&["get", &format!("k{i}")]), i);
    }
    cluster.wait_until("equal replicas", |cluster| {
        let of = |server| {
            cluster
                .describe(server)
                .map(|d| (d["groups"][0]["fsm_index"].clone(), d["groups"][0]["fsm_hash"].clone()))
        };
        matches!((of(0), of(1), of(2)), (Some(a), Some(b), Some(c)) if a == b && b == c)
    });
    cluster.assert_healthy();
}

#[test]
fn a_write_without_a_majority_has_an_unknown_outcome() {
    let mut cluster = Cluster::start(3, "");
    cluster.ask(&["set", "k", "1"]);
    let slots = json(&cluster.client(&["slots"]))["slots"].as_array().unwrap().clone();
    let leader = slots[0]["leader"].as_str().unwrap().to_owned();
    for server in (0..3).filter(|server| cluster.addresses[*server] != leader).collect::<Vec<_>>() {
        cluster.kill(server);
    }
    let write = run(&["client", "inc", "k", "--conf", &leader, "--timeout", "30000", "--json"]);
    // It steps down when it misses the others: what it has taken until then is unknown, what comes later is refused.
    match write.status.code() {
        Some(3) => assert_eq!(json(&write)["error"], "unknown"),
        Some(1) => assert!(["not_leader", "timeout"].contains(&json(&write)["error"].as_str().unwrap())),
        other => panic!("{other:?}: {}", stderr(&write)),
    }
    cluster.assert_healthy();
}

#[test]
fn a_running_server_describes_itself() {
    let mut cluster = Cluster::start(1, "total_slots = 2");
    let all = cluster.describe(0).unwrap();
    assert_eq!(all["node"], cluster.addresses[0].as_str());
    for key in ["threads", "fds", "rss_kb"] {
        assert!(all[key].as_u64().unwrap() > 0, "{key}");
    }
    let groups = all["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    for key in [
        "group",
        "state",
        "term",
        "leader",
        "last",
        "stable",
        "commit",
        "applied",
        "conf",
        "fsm_hash",
        "removed_at",
        "creation",
        "error",
    ] {
        assert!(groups[0].get(key).is_some(), "{key}");
    }
    assert_eq!(groups[1]["state"], "LEADER");
    let address = cluster.addresses[0].clone();
    let one = run(&["describe", "--addr", &address, "--group", "atomic_1", "--json"]);
    assert_eq!(json(&one)["groups"].as_array().unwrap().len(), 1);
    assert_refused(&run(&["describe", "--addr", &address, "--group", "none"]), 1, &["none", &address]);
    cluster.assert_healthy();
}
