//! `ringraft admin` against server processes.

mod processes;

use processes::{Cluster, assert_refused, json, run, stderr};
use serde_json::{Value, json};

/// One request of an operator, to whoever of the first three servers leads.
fn admin(cluster: &Cluster, args: &[&str]) -> std::process::Output {
    let conf = cluster.addresses[..3].join(",");
    let mut all = vec!["admin"];
    all.extend(args);
    all.extend(["--group", "atomic_0", "--conf", &conf, "--json"]);
    run(&all)
}

fn ask(cluster: &Cluster, args: &[&str]) -> Value {
    let output = admin(cluster, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    let answer = json(&output);
    assert_eq!(
        (&answer["ok"], &answer["error"], &answer["group"]),
        (&json!(true), &Value::Null, &json!("atomic_0"))
    );
    answer
}

/// A cluster of three with a fourth and a fifth server that are configured and not started.
fn three_and_two() -> Cluster {
    let mut cluster = Cluster::configure(5, "");
    let three = cluster.addresses[..3].join(",");
    let all = cluster.conf();
    for server in 0..3 {
        let path = cluster.config(server);
        let text = std::fs::read_to_string(&path).unwrap().replace(&all, &three);
        std::fs::write(path, text).unwrap();
        cluster.spawn(server, &["--bootstrap"]);
    }
    cluster.wait_for_leaders();
    cluster
}

#[test]
fn members_come_learn_lead_and_go() {
    let mut cluster = three_and_two();
    let [a, b, c, d, e] = <[String; 5]>::try_from(cluster.addresses.clone()).unwrap();
    cluster.ask(&["set", "k", "7"]);
    assert_eq!(ask(&cluster, &["get-peers"])["peers"], json!([a, b, c]));
    let leader = ask(&cluster, &["get-leader"])["leader"].clone();
    assert!(cluster.addresses[..3].iter().any(|address| leader == **address));

    // Who does not run does not catch up, and changes nothing.
    let missing = admin(&cluster, &["add-peer", &d]);
    assert_refused(&missing, 1, &[&d, "--rejoin"]);
    assert_eq!(
        (json(&missing)["code"].clone(), json(&missing)["error"].clone()),
        (json!("ECATCHUP"), json!("refused"))
    );
    cluster.spawn(3, &["--rejoin"]);
    cluster.spawn(4, &["--rejoin"]);
    cluster.wait_until("the new servers", |cluster| {
        cluster.describe(3).is_some() && cluster.describe(4).is_some()
    });
    // The leader has tried to reach it in vain just now, and pauses before it tries again: it may say so once more.
    cluster.wait_until("the fourth is added", |cluster| {
        let output = admin(cluster, &["add-peer", &d]);
        if output.status.code() == Some(0) {
            assert_eq!(json(&output)["new"], json!([a, b, c, d]));
            return true;
        }
        assert_eq!(json(&output)["code"], json!("ECATCHUP"), "{}", stderr(&output));
        false
    });
    assert_refused(&admin(&cluster, &["add-peer", &d]), 1, &[&d, "already"]);
    assert_eq!(ask(&cluster, &["learner", "add", &e])["new"], json!([e]));
    cluster.wait_until("the value at a learner", |cluster| {
        let output = run(&["client", "get", "k", "--local", "--conf", &cluster.addresses[4]]);
        output.stdout == b"7\n"
    });
    let alive = |cluster: &Cluster| ask(cluster, &["get-peers", "--alive"]);
    cluster.wait_until("all are alive", |cluster| alive(cluster)["learners"] == json!([e]));
    assert_eq!(ask(&cluster, &["learner", "promote", &e])["new"], json!([a, b, c, d, e]));
    assert_eq!(ask(&cluster, &["get-peers"])["learners"], json!([]));

    assert_eq!(ask(&cluster, &["transfer", "--to", &b])["leader"], json!(b));
    assert_refused(&admin(&cluster, &["transfer", "--to", "127.0.0.1:1"]), 1, &["127.0.0.1:1", "voter"]);
    assert_eq!(ask(&cluster, &["remove-peer", &b])["new"], json!([a, c, d, e]));
    assert_refused(&admin(&cluster, &["remove-peer", &b]), 1, &[&b]);
    assert_eq!(ask(&cluster, &["change-peers", &format!("{c},{d},{e}")])["new"], json!([c, d, e]));
    assert_eq!(cluster.ask(&["inc", "k"]), 8);
    cluster.assert_healthy();
}

/// Three servers, each of which holds the value 1 under the key `k`.
fn three_with_a_value() -> Cluster {
    let mut cluster = Cluster::start(3, "");
    cluster.ask(&["set", "k", "1"]);
    cluster.wait_until("the value everywhere", |cluster| {
        cluster
            .addresses
            .iter()
            .all(|a| run(&["client", "get", "k", "--local", "--conf", a]).stdout == b"1\n")
    });
    cluster
}

/// A majority is gone for good: the operator says who is left.
#[test]
fn one_server_can_be_told_that_it_is_alone() {
    let mut cluster = three_with_a_value();
    let left = cluster.addresses[0].clone();
    cluster.kill(1);
    cluster.kill(2);
    let args = ["admin", "reset-peers", &left, "--peer", &left, "--group", "atomic_0", "--json"];
    let reset = run(&args);
    assert_eq!(reset.status.code(), Some(0), "{}", stderr(&reset));
    assert_eq!(json(&reset)["new"], json!([left]));
    cluster.wait_until("it leads alone", |_| {
        let output = run(&["client", "inc", "k", "--conf", &left]);
        output.status.success()
    });
    cluster.assert_healthy();
}

/// As before, but the server that is left cannot be asked: its log is changed while it does not run.
#[test]
fn a_server_that_does_not_run_is_told_that_it_is_alone() {
    let mut cluster = three_with_a_value();
    let (left, config) = (cluster.addresses[0].clone(), cluster.config(0));
    let config = config.to_str().unwrap();
    let recover = |more: &[&str]| run(&[&["recover", "--config", config, "--json"], more].concat());
    assert_refused(&recover(&["--all"]), 1, &["used by another process"]);
    assert_refused(&recover(&[]), 2, &["--group", "--all"]);
    (0..3).for_each(|server| cluster.kill(server));
    assert_refused(&recover(&["--group", "nobody"]), 1, &["nobody", "atomic_0"]);
    let output = recover(&["--all"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answer = json(&output);
    assert_eq!((&answer["ok"], &answer["new"]), (&json!(true), &json!([left])));
    assert_eq!(answer["groups"][0]["old"], json!(cluster.addresses));
    cluster.spawn(0, &[]);
    cluster.wait_until("it leads alone", |_| run(&["client", "inc", "k", "--conf", &left]).status.success());
    let value = run(&["client", "get", "k", "--conf", &left]);
    assert_eq!(value.stdout, b"2\n", "{}", stderr(&value));
    cluster.assert_healthy();
}

#[test]
fn an_operator_without_a_cluster_is_told_so() {
    let nowhere = format!("127.0.0.1:{}", processes::free_port());
    let output =
        run(&["admin", "get-leader", "--group", "g", "--conf", &nowhere, "--timeout", "2000", "--json"]);
    assert_refused(&output, 1, &["Fail to get leader of group g", &nowhere]);
    assert_eq!(
        (json(&output)["ok"].clone(), json(&output)["error"].clone()),
        (json!(false), json!("no_leader"))
    );
    let cluster = Cluster::start(1, "");
    let address = cluster.addresses[0].as_str();
    let output = run(&["admin", "get-leader", "--group", "g", "--conf", address, "--timeout", "2000"]);
    assert_refused(&output, 1, &["Fail to find node", "in group g"]);
}

/// Who was removed says so, after a restart, too: then its file still names it, and its log does not.
#[test]
fn a_server_that_was_removed_says_so_whatever_its_file_names() {
    let mut cluster = Cluster::start(3, "");
    cluster.ask(&["set", "k", "7"]);
    let leader = ask(&cluster, &["get-leader"])["leader"].clone();
    let gone = (0..3).find(|server| leader != *cluster.addresses[*server]).unwrap();
    let address = cluster.addresses[gone].clone();
    ask(&cluster, &["remove-peer", &address]);
    let state = |cluster: &Cluster| {
        let group = cluster.describe(gone)?["groups"][0].clone();
        Some((group["removed_at"].as_u64().unwrap(), group["conf"].as_str().unwrap().to_owned()))
    };
    cluster.wait_until("it knows", |cluster| state(cluster).is_some_and(|(removed_at, _)| removed_at > 0));
    let before = state(&cluster).unwrap();
    assert!(!before.1.contains(&address), "{before:?}");
    assert_eq!(cluster.log(gone).matches("was removed from the group").count(), 1, "{}", cluster.log(gone));
    assert!(cluster.terminate(gone).success());
    cluster.spawn(gone, &[]);
    cluster.wait_until("it is back", |cluster| cluster.describe(gone).is_some());
    assert_eq!(state(&cluster), Some(before));
    assert_eq!(cluster.ask(&["inc", "k"]), 8);
    cluster.assert_healthy();
}

/// Six groups are led by one server; their leaders are spread with as few moves as it takes.
#[test]
fn leaders_are_spread_over_the_servers() {
    let mut cluster = Cluster::start(3, "total_slots = 6");
    let conf = cluster.conf();
    let first = cluster.addresses[0].clone();
    for group in 0..6 {
        let name = format!("atomic_{group}");
        cluster.wait_until("one server leads all", |_| {
            let args = ["admin", "transfer", "--to", &first, "--group", &name, "--conf", &conf, "--json"];
            let output = run(&args);
            output.status.success() && json(&output)["leader"] == json!(first)
        });
    }
    let rebalance =
        |more: &[&str]| run(&[&["admin", "rebalance", "--conf", &first, "--json"], more].concat());
    let one = rebalance(&["--groups", "atomic_1"]);
    assert_eq!(
        (json(&one)["ok"].clone(), json(&one)["moved"].clone()),
        (json!(true), json!(0)),
        "{}",
        stderr(&one)
    );
    let all = rebalance(&["--group-prefix", "atomic_"]);
    assert_eq!(all.status.code(), Some(0), "{}", stderr(&all));
    let answer = json(&all);
    assert_eq!((&answer["ok"], &answer["error"]), (&json!(true), &Value::Null));
    let leads: Vec<u64> =
        answer["leads"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).collect();
    assert_eq!(leads, [2, 2, 2], "{answer}");
    // Four are over the share of the first. One that another than its target won, or that came back by itself on a busy machine, is moved again.
    let moves = answer["moves"].as_array().unwrap();
    assert!(moves.len() >= 4 && answer["moved"].as_u64() == Some(moves.len() as u64), "{answer}");
    assert_eq!(json(&rebalance(&[]))["moved"], json!(0), "what is balanced stays");
    assert_refused(&rebalance(&["--group-prefix", "other"]), 1, &["no group"]);
    assert_refused(&rebalance(&["--group", "atomic_1"]), 2, &["--groups"]);
    cluster.assert_healthy();
}

/// Flips a bit of the first place in the log files below `dir` that holds these bytes.
fn spoil(dir: &std::path::Path, needle: &[u8]) -> bool {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if spoil(&path, needle) {
                return true;
            }
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return true;
        }
    }
    false
}

/// Rule P7 in real processes: a damaged log costs its group one replica until an operator has it dropped, and the groups beside it nothing.
#[test]
fn a_replica_whose_log_is_damaged_rejoins_when_it_is_told_to() {
    let mut cluster = Cluster::start(3, "total_slots = 2");
    let needle = "a-counter-whose-name-is-found-on-the-disk";
    cluster.ask(&["set", needle, "41"]);
    cluster.ask(&["set", needle, "42"]);
    let of_group = |cluster: &Cluster, server: usize, group: &str| -> Option<Value> {
        let groups = cluster.describe(server)?["groups"].as_array()?.clone();
        groups.into_iter().find(|found| found["group"] == group)
    };
    let whole = |group: &Value| group["error"].is_null() || group["error"] == "";
    cluster.wait_until("the follower has applied it", |cluster| {
        let groups = ["atomic_0", "atomic_1"].map(|group| of_group(cluster, 1, group));
        groups.iter().flatten().any(|group| group["keys"] == 1)
    });
    let status = cluster.terminate(1);
    assert!(status.success(), "{status}");
    assert!(spoil(&cluster.data(1), needle.as_bytes()), "the entry is in a file");
    cluster.spawn(1, &[]);
    cluster.wait_until("the server is back", |cluster| cluster.describe(1).is_some());
    let damaged: Vec<String> = ["atomic_0", "atomic_1"]
        .into_iter()
        .filter(|group| !whole(&of_group(&cluster, 1, group).unwrap()))
        .map(str::to_owned)
        .collect();
    let [damaged] = &damaged[..] else { panic!("one group is damaged: {damaged:?}") };
    let beside = if damaged == "atomic_0" { "atomic_1" } else { "atomic_0" };
    let described = of_group(&cluster, 1, damaged).unwrap();
    let error = described["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("cannot be read back") && error.contains("rejoin"), "{described}");
    assert_eq!(cluster.ask(&["inc", needle, "1"]), 43, "the others go on");

    let rejoin = |cluster: &Cluster, server: usize, group: &str| {
        let (conf, peer) = (cluster.conf(), cluster.addresses[server].clone());
        run(&["admin", "rejoin", "--peer", &peer, "--group", group, "--conf", &conf, "--json"])
    };
    // Whose log is sound keeps it. Who leads is not asked: somebody else must lead before a log may go.
    let follows = |server: &usize| of_group(&cluster, *server, damaged).unwrap()["state"] == "FOLLOWER";
    let follower = [0, 2].into_iter().find(follows).expect("two do not lead");
    for (server, group) in [(follower, damaged.as_str()), (1, beside)] {
        let refused = rejoin(&cluster, server, group);
        assert_refused(&refused, 1, &["works", "failed"]);
        assert_eq!(json(&refused)["code"], json!("EPERM"));
    }
    assert_refused(&rejoin(&cluster, 1, "unknown_7"), 1, &["unknown_7"]);
    let term_beside = of_group(&cluster, 1, beside).unwrap()["term"].clone();
    let done = rejoin(&cluster, 1, damaged);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    cluster.wait_until("the replica holds everything again", |cluster| {
        let (ours, theirs) = (of_group(cluster, 1, damaged), of_group(cluster, 0, damaged));
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
        whole(&ours) && ours["fsm_index"] == theirs["fsm_index"] && ours["fsm_hash"] == theirs["fsm_hash"]
    });
    assert_eq!(of_group(&cluster, 1, beside).unwrap()["term"], term_beside, "nobody beside it noticed");
    cluster
        .wait_until("the replica counts again", |cluster| cluster.log(1).contains("votes and counts again"));
    // With another server gone the group needs it.
    cluster.terminate(2);
    cluster.wait_until("a write with two of three", |cluster| {
        let output = cluster.client(&["inc", needle, "1"]);
        output.status.success()
    });
    assert!(cluster.log(1).contains("log is dropped"), "{}", cluster.log(1));
}
