//! Whose a directory and a server are, as operators meet it: flags that do not fit, files that are gone, ranges that were changed, two
//! clusters with one server in common, a disk that was lost under a `--bootstrap` left in the unit file.

mod processes;

use std::fs;

use processes::{Cluster, assert_refused, json, run};
use serde_json::Value;

#[test]
fn flags_that_do_not_fit_a_directory_are_refused() {
    let mut cluster = Cluster::start(1, "");
    cluster.ask(&["set", "k", "1"]);
    assert!(cluster.terminate(0).success());
    assert_refused(&cluster.refused(0, &["--rejoin"]), 2, &["data_path", "not blank", "wipe it first"]);
    // As unit files have it; it is said once.
    cluster.spawn(0, &["--bootstrap"]);
    cluster.wait_for_leaders();
    assert_eq!(cluster.ask(&["get", "k"]), 1);
    assert_eq!(cluster.log(0).matches("bootstrap is for blank directories only").count(), 1);
    assert!(cluster.terminate(0).success());

    fs::remove_dir_all(cluster.data(0)).unwrap();
    cluster.spawn(0, &["--rejoin"]);
    cluster.wait_until("the server that joins", |cluster| cluster.describe(0).is_some());
    assert!(cluster.terminate(0).success());
    assert_refused(&cluster.refused(0, &["--bootstrap"]), 2, &["data_path", "began by --rejoin", "wipe it"]);
    // Without a flag it serves, and says what it waits for.
    let said = |cluster: &Cluster| cluster.log(0).matches("groups know no members").count();
    let before = said(&cluster);
    cluster.spawn(0, &[]);
    cluster.wait_until("it says that it waits", |cluster| said(cluster) == before + 1);
}

#[test]
fn files_that_are_gone_are_never_taken_for_a_new_store() {
    let mut cluster = Cluster::start(1, "");
    for n in 0..20 {
        cluster.ask(&["set", &format!("k{n}"), "1"]);
    }
    assert!(cluster.terminate(0).success());
    let kept = cluster.dir.path().join("kept");
    let data = cluster.data(0);
    fs::rename(&data, &kept).unwrap();
    let copy_without = |gone: &dyn Fn(&str) -> bool| {
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).unwrap();
        for file in fs::read_dir(&kept).unwrap().map(Result::unwrap) {
            let name = file.file_name().into_string().unwrap();
            if !gone(&name) {
                fs::copy(file.path(), data.join(name)).unwrap();
            }
        }
    };
    let is_log = |name: &str| name.ends_with(".seg");
    let is_store = |name: &str| name != "IDENTITY";
    for gone in [&is_log as &dyn Fn(&str) -> bool, &is_store] {
        for flags in [&[][..], &["--bootstrap"]] {
            copy_without(gone);
            assert_refused(&cluster.refused(0, flags), 1, &["missing", "--rejoin"]);
        }
        assert_refused(&cluster.refused(0, &["--rejoin"]), 2, &["not blank"]);
    }
    for flags in [&[][..], &["--bootstrap"], &["--rejoin"]] {
        copy_without(&|name| name == "IDENTITY");
        assert_refused(&cluster.refused(0, flags), 2, &["IDENTITY is missing", "data_path", ".seg"]);
    }
    copy_without(&|_| false);
    cluster.spawn(0, &[]);
    cluster.wait_for_leaders();
    assert_eq!(cluster.ask(&["get", "k19"]), 1);
}

#[test]
fn ranges_that_were_changed_are_refused_by_key() {
    let mut cluster = Cluster::start(1, "total_slots = 2");
    cluster.ask(&["set", "k", "1"]);
    assert!(cluster.terminate(0).success());
    for (more, words) in [
        ("total_slots = 4", ["total_slots = 2", "total_slots is 4"]),
        ("total_slots = 2\nmax_slot = 1000000", ["max_slot = 9223372036854775807", "max_slot is 1000000"]),
        ("total_slots = 2\nmin_slot = 5", ["min_slot = 0", "min_slot is 5"]),
    ] {
        cluster.write_config(0, more);
        for flags in [&[][..], &["--bootstrap"]] {
            assert_refused(&cluster.refused(0, flags), 2, &words);
        }
    }
    let config = fs::read_to_string(cluster.config(0)).unwrap();
    fs::write(cluster.config(0), config.replace("group_id = \"atomic\"", "group_id = \"other\"")).unwrap();
    assert_refused(&cluster.refused(0, &[]), 2, &["group_id = atomic", "group_id is other"]);
    cluster.write_config(0, "total_slots = 2");
    cluster.spawn(0, &[]);
    cluster.wait_for_leaders();
    assert_eq!(cluster.ask(&["get", "k"]), 1);
}

fn id(cluster: &Cluster, server: usize) -> String {
    cluster.describe(server).unwrap()["cluster_id"].as_str().unwrap().to_owned()
}

fn get(conf: &str, more: &[&str]) -> std::process::Output {
    run(&[&["client", "get", "k", "--json", "--timeout", "3000", "--conf", conf], more].concat())
}

/// Servers 0, 1, 2 by their files are one cluster, servers 2, 3, 4 another; both with `group_id = "atomic"`, as in every example.
#[test]
fn two_clusters_that_name_one_server_stay_two() {
    let mut cluster = Cluster::configure(5, "");
    let all = cluster.conf();
    let [first, second] = [&cluster.addresses[..3], &cluster.addresses[2..]].map(|servers| servers.join(","));
    for server in 0..5 {
        let conf = if server < 2 { &first } else { &second };
        let text = fs::read_to_string(cluster.config(server)).unwrap().replace(&all, conf);
        fs::write(cluster.config(server), text).unwrap();
    }
    // The second cluster first, so that the server in common has nothing to ask the others.
    for server in [2, 3, 4, 0, 1] {
        cluster.spawn(server, &["--bootstrap"]);
    }
    let client = |conf: &str, args: &[&str]| run(&[&["client", "--json", "--conf", conf], args].concat());
    for (server, value) in [(0, "1"), (4, "2")] {
        let conf = cluster.addresses[server].clone();
        cluster.wait_until("a write", |_| client(&conf, &["set", "k", value]).status.success());
    }
    let (first_id, second_id) = (id(&cluster, 0), id(&cluster, 2));
    assert_ne!(first_id, second_id);
    assert_eq!((id(&cluster, 1), id(&cluster, 4)), (first_id.clone(), second_id.clone()));

    // Each client sees its cluster, however often it asks, and whoever names the shared server last.
    for _ in 0..10 {
        for (conf, value) in [(&cluster.addresses[1], 1), (&cluster.addresses[3], 2)] {
            assert_eq!(json(&get(conf, &[]))["value"], value);
        }
    }
    let shared = cluster.addresses[2].clone();
    let refused = get(&shared, &["--cluster-id", &first_id]);
    assert_refused(&refused, 1, &["wrong cluster", &first_id, &second_id]);
    assert_eq!(json(&refused)["error"], "wrong_cluster");
    assert_eq!(json(&get(&shared, &["--cluster-id", &second_id]))["value"], 2);
    // With its own file's list, and the one that belongs elsewhere first: nobody knows which of both is meant.
    let mixed = [&*shared, &cluster.addresses[0]].join(",");
    cluster.wait_until("both are noticed", |_| json(&get(&mixed, &[]))["error"] == "wrong_cluster");
    assert_eq!(json(&get(&mixed, &["--cluster-id", &first_id]))["value"], 1);
    assert_eq!(json(&get(&mixed, &["--cluster-id", &second_id]))["value"], 2);

    let admin = run(&[
        "admin",
        "get-leader",
        "--group",
        "atomic_0",
        "--json",
        "--conf",
        &shared,
        "--cluster-id",
        &first_id,
    ]);
    assert_eq!(
        (&json(&admin)["error"], &json(&admin)["code"]),
        (&Value::from("refused"), &Value::from("EWRONGCLUSTER"))
    );
    // Refused, and said once in a while.
    let said = cluster.log(2).matches("a request of another cluster is refused").count();
    assert!((1..20).contains(&said), "{said} lines");
    cluster.assert_healthy();
}

/// The disk is lost, and the unit file still says --bootstrap.
#[test]
fn a_lost_disk_under_bootstrap_does_not_make_a_new_voter() {
    let mut cluster = Cluster::start(3, "total_slots = 3");
    for n in 0..20 {
        cluster.ask(&["set", &format!("k{n}"), "1"]);
    }
    cluster.kill(2);
    fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.spawn(2, &["--bootstrap"]);
    cluster.wait_until("the server without memory", |cluster| cluster.describe(2).is_some());
    let log = cluster.log(2);
    assert!(log.contains("take --bootstrap out") && log.contains("groups=3"), "{log}");
    cluster.ask(&["set", "k0", "2"]);
    cluster.wait_until("it has everything again", |cluster| {
        let keys = |server: usize| {
            let groups = cluster.describe(server)?["groups"].as_array()?.clone();
            Some(groups.iter().map(|g| (g["keys"].clone(), g["fsm_hash"].clone())).collect::<Vec<_>>())
        };
        keys(2).is_some() && keys(2) == keys(0)
    });
    cluster.assert_healthy();
}
