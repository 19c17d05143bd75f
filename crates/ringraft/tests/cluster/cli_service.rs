//! The `CliService` against hosts in one process (SOFAJRaft's `CliServiceTest` and `BaseCliRequestProcessorTest`).

use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use ringraft::inproc::Network;
use ringraft::{
    CliError, CliOptions, CliService, Configuration, HostOptions, PeerId, RaftError, RaftGroupService,
    RaftHost, RpcClient, RpcClientOptions, RpcError, StartMode, StoreOptions,
};
use ringraft_proto::generated::cli::GetPeersRequest;
use ringraft_proto::protobuf::Message;

use crate::restart::free_ports;
use crate::support::{Cluster, Journal, LIMIT, converge, eventually, quick, write};

const THREE: &str = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3";

pub(crate) fn service(network: &Network) -> CliService {
    let options = RpcClientOptions { connect_timeout_ms: 200 };
    let client = RpcClient::inproc(options, network, "operator").expect("starts");
    let timeout_ms = LIMIT.as_millis() as u64;
    CliService::new(Arc::new(client), CliOptions { timeout_ms, max_retry: 30 })
}

fn code(error: &CliError) -> Option<RaftError> {
    assert!(!error.is_unknown(), "{error}");
    error.code()
}

#[test]
fn leadership_is_transferred() {
    let network = Network::new();
    let (cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 1);
    converge(&cluster.members, 1);
    let (old, target) = (cli.get_leader("g", &cluster.conf).expect("known"), cluster.followers()[0].clone());
    assert_ne!(old, target);
    cli.transfer_leader("g", &cluster.conf, Some(&target)).expect("moved");
    eventually("the target leads", || {
        (cli.get_leader("g", &cluster.conf) == Ok(target.clone())).then_some(())
    });
    cli.transfer_leader("g", &cluster.conf, None).expect("moved to the best");
    let stranger: PeerId = "127.0.0.1:9".parse().expect("a peer id");
    let refusal = cli.transfer_leader("g", &cluster.conf, Some(&stranger)).unwrap_err();
    assert_eq!(code(&refusal), Some(RaftError::Invalid), "{refusal}");
    cluster.shutdown();
}

#[test]
fn learners_are_added_reset_promoted_and_removed() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    let conf = cluster.conf.clone();
    write(&cluster.members, 5);
    let (fourth, fifth) = (cluster.join(&network, "127.0.0.1:4"), cluster.join(&network, "127.0.0.1:5"));
    let both = [fourth.clone(), fifth.clone()];
    let added = cli.add_learners("g", &conf, &both).expect("added");
    assert_eq!((added.old.len(), &added.new[..]), (0, &both[..]));
    assert_eq!(cli.get_peers("g", &conf).expect("told").learners, both);
    converge(&cluster.members, 5);
    let alive = || (cli.get_alive_peers("g", &conf).ok()?.learners == both).then_some(());
    eventually("both are alive", alive);
    let voter = cli.add_learners("g", &conf, &conf.peers[..1]).unwrap_err();
    assert_eq!(code(&voter), Some(RaftError::Invalid), "{voter}");
    assert_eq!(cli.reset_learners("g", &conf, &both[..1]).expect("reset").new, both[..1]);
    let promoted = cli.learner_to_follower("g", &conf, &fourth).expect("promoted");
    assert!(promoted.new.contains(&fourth) && promoted.new.len() == 4);
    assert_eq!(cli.get_peers("g", &conf).expect("told").learners, []);
    cli.add_learners("g", &conf, &both[1..]).expect("added");
    // What a request cannot name stays.
    let kept = cli.change_peers("g", &conf, &conf.peers).expect("changed");
    assert_eq!(kept.new, conf.peers);
    assert_eq!(cli.get_peers("g", &conf).expect("told").learners, both[1..]);
    let removed = cli.remove_learners("g", &conf, &both).expect("removed");
    assert_eq!((&removed.old[..], removed.new.len()), (&both[1..], 0));
    cluster.shutdown();
}

#[test]
fn peers_are_added_and_removed() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    let conf = cluster.conf.clone();
    write(&cluster.members, 5);
    let missing = "127.0.0.1:9".parse().expect("a peer id");
    let error = cli.add_peer("g", &conf, &missing).unwrap_err();
    assert_eq!(code(&error), Some(RaftError::CatchUp), "{error}");
    let fourth = cluster.join(&network, "127.0.0.1:4");
    let added = cli.add_peer("g", &conf, &fourth).expect("added");
    assert_eq!((added.old, added.new.len()), (conf.peers.clone(), 4));
    assert_eq!(code(&cli.add_peer("g", &conf, &fourth).unwrap_err()), Some(RaftError::Exists));
    assert_eq!(converge(&cluster.members, 5).len(), 5);
    // The leader too: the next request finds the next one.
    let leader = cli.get_leader("g", &conf).expect("known");
    assert_eq!(cli.remove_peer("g", &conf, &leader).expect("removed").new.len(), 3);
    let known = Configuration::of_peers(cluster.members.iter().map(|m| m.node.server_id().clone()).collect());
    assert_eq!(code(&cli.remove_peer("g", &known, &leader).unwrap_err()), Some(RaftError::NotFound));
    cluster.shutdown();
}

#[test]
fn all_members_change_at_once() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 5);
    let others: Vec<PeerId> =
        ["127.0.0.1:4", "127.0.0.1:5", "127.0.0.1:6"].map(|at| cluster.join(&network, at)).into();
    let changed = cli.change_peers("g", &cluster.conf, &others).expect("changed");
    assert_eq!((&changed.old, &changed.new), (&cluster.conf.peers, &others));
    let conf = Configuration::of_peers(others.clone());
    // Some may name the old one until an election.
    eventually("one of the new leads", || cli.get_leader("g", &conf).ok().filter(|l| others.contains(l)));
    cluster.members.drain(..3).for_each(|member| member.host.shutdown());
    write(&cluster.members, 5);
    assert_eq!(converge(&cluster.members, 10).len(), 10);
    cluster.shutdown();
}

#[test]
fn priorities_change_while_the_group_runs() {
    let network = Network::new();
    let (cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 3);
    let before = cluster.members[0].node.configuration().id.index;
    let wanted = ["127.0.0.1:1::40", "127.0.0.1:2::100", "127.0.0.1:3::0"];
    let peers: Vec<PeerId> = wanted.map(|peer| peer.parse().expect("a peer id")).into();
    cli.change_peers("g", &cluster.conf, &peers).expect("changed");
    let texts = |peers: &[PeerId]| peers.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&cli.get_peers("g", &cluster.conf).expect("known").peers), wanted);
    for member in &cluster.members {
        let entry = eventually("each member goes by them", || {
            Some(member.node.configuration()).filter(|entry| texts(&entry.conf.peers) == wanted)
        });
        assert!(entry.id.index > before && !entry.is_joint());
    }
    cluster.shutdown();
}

#[test]
fn peers_are_told_while_somebody_leads() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    let conf = cluster.conf.clone();
    write(&cluster.members, 1);
    assert_eq!(cli.get_peers("g", &conf).expect("told"), conf);
    let all = || (cli.get_alive_peers("g", &conf).ok()? == conf).then_some(());
    eventually("all are alive", all);
    let leader = cli.get_leader("g", &conf).expect("known");
    cluster.lose(&leader);
    let next =
        eventually("the next leader", || cli.get_leader("g", &conf).ok().filter(|next| *next != leader));
    assert_eq!(cli.get_peers("g", &conf).expect("told"), conf);
    let two = || (cli.get_alive_peers("g", &conf).ok()?.peers.len() == 2).then_some(());
    eventually("the lost one is not alive", two);
    cluster.lose(&next);
    cluster.members.drain(..).for_each(|member| member.host.shutdown());
    let quick = cli.with_timeout(Duration::from_millis(300));
    let error = quick.get_peers("g", &conf).unwrap_err();
    assert!(matches!(&error, CliError::NoLeader { group, .. } if group == "g"), "{error}");
    assert!(error.to_string().starts_with("Fail to get leader of group g"), "{error}");
    let nobody = quick.get_leader("g", &Configuration::default()).unwrap_err();
    assert!(matches!(&nobody, CliError::NoLeader { .. }), "{nobody}");
}

#[test]
fn leaders_are_spread() {
    let network = Network::new();
    let (cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    let mut groups = vec!["g".to_owned()];
    for number in 0..5 {
        let name = format!("more_{number}");
        for member in &cluster.members {
            let server = member.host.endpoint().parse().expect("a peer id");
            let service =
                RaftGroupService::new(name.as_str(), server, quick(&cluster.conf), Journal(Arc::default()));
            service.start(&member.host).expect("starts");
        }
        groups.push(name);
    }
    let first = &cluster.conf.peers[0];
    for group in &groups {
        eventually("one host leads all", || {
            cli.transfer_leader(group, &cluster.conf, Some(first)).ok()?;
            (cli.get_leader(group, &cluster.conf).ok()? == *first).then_some(())
        });
    }
    let (mut moves, mut lost) = (0, 0);
    let done = cli.rebalance(&groups, &cluster.conf, |_, from, _| {
        moves += 1;
        lost += usize::from(from != first);
    });
    assert_eq!(done.error, None);
    let mut leads = std::collections::BTreeMap::new();
    done.leaders.values().for_each(|leader| *leads.entry(leader.clone()).or_insert(0) += 1);
    assert_eq!(leads.values().copied().collect::<Vec<_>>(), [2, 2, 2], "{leads:?}");
    // Four groups are over the first one's share. Only one that somebody else than its target won is moved once more.
    assert_eq!(moves, 4 + lost, "{moves} transfers, {lost} of them not from the first");
    let mut again = 0;
    assert_eq!(cli.rebalance(&groups, &cluster.conf, |_, _, _| again += 1).error, None);
    assert_eq!(again, 0, "what is balanced stays");
    // The first group without a leader ends it, and what was done until then is told.
    groups.insert(1, "nobody".to_owned());
    let partly = cli.with_timeout(Duration::from_millis(300)).rebalance(&groups, &cluster.conf, |_, _, _| {});
    assert!(
        matches!(&partly.error, Some(CliError::NoLeader { group, .. }) if group == "nobody"),
        "{partly:?}"
    );
    assert_eq!(partly.leaders.keys().collect::<Vec<_>>(), ["g"]);
    cluster.shutdown();
}

/// A member that accepts and never answers does not use up the time in which the others can be asked again.
#[test]
fn a_silent_member_does_not_eat_the_time_of_the_others() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let black_hole = silent.local_addr().expect("bound").to_string();
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for connection in silent.incoming() {
            let mut connection = connection.expect("a connection");
            let mut byte = [0];
            if connection.read_exact(&mut byte).is_ok() {
                let _ = asked.send(());
            }
            held.push(connection);
        }
    });
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let mut options = HostOptions::new(endpoint.clone(), StoreOptions::Memory);
    options.start_mode = StartMode::Bootstrap;
    let host = RaftHost::start(options).expect("starts");
    let client = Arc::new(RpcClient::new(RpcClientOptions::default()).expect("starts"));
    let cli = CliService::new(client, CliOptions { timeout_ms: 8000, max_retry: 30 });
    let conf: Configuration = format!("{black_hole},{endpoint}").parse().expect("conf");
    let finding = std::thread::spawn(move || cli.get_leader("g", &conf));
    // The other has no such group yet when it is asked first; then there is one, with a leader.
    questions.recv_timeout(LIMIT).expect("the silent member is asked");
    let server: PeerId = endpoint.parse().expect("a peer id");
    let options = quick(&Configuration::of_peers(vec![server.clone()]));
    RaftGroupService::new("g", server.clone(), options, Journal(Arc::default()))
        .start(&host)
        .expect("starts");
    assert_eq!(finding.join().expect("ends"), Ok(server));
    host.shutdown();
}

/// A host that stops gives its groups to different peers.
#[test]
fn a_host_that_stops_spreads_its_groups() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 1);
    let groups: Vec<String> = (0..24).map(|number| format!("spread_{number}")).collect();
    for name in &groups {
        for member in &cluster.members {
            let server = member.host.endpoint().parse().expect("a peer id");
            let mut options = quick(&cluster.conf);
            // So that nobody campaigns of its own accord meanwhile.
            options.election_timeout_ms = 2000;
            let service = RaftGroupService::new(name.as_str(), server, options, Journal(Arc::default()));
            service.start(&member.host).expect("starts");
        }
    }
    let first = cluster.conf.peers[0].clone();
    for group in &groups {
        eventually("one host leads all", || {
            cli.transfer_leader(group, &cluster.conf, Some(&first)).ok()?;
            (cli.get_leader(group, &cluster.conf).ok()? == first).then_some(())
        });
    }
    cluster.lose(&first);
    let mut leads = std::collections::BTreeMap::new();
    for group in &groups {
        let leader = eventually("a new leader", || {
            cli.get_leader(group, &cluster.conf).ok().filter(|leader| *leader != first)
        });
        *leads.entry(leader).or_insert(0) += 1;
    }
    // By the names of the groups; the odds of a fair coin to miss this are below 1 in 3,000.
    assert!(leads.len() == 2 && leads.values().all(|count| *count >= 4), "{leads:?}");
    cluster.shutdown();
}

#[test]
fn nodes_answer_as_java_does() {
    let network = Network::new();
    let (mut cluster, cli) =
        (Cluster::of(&network, THREE, |node| node.disable_cli = false), service(&network));
    write(&cluster.members, 1);
    let client = RpcClient::inproc(RpcClientOptions::default(), &network, "client").expect("starts");
    let ask = |at: &PeerId, group: &str, node: &str| {
        let mut request = GetPeersRequest::new();
        request.set_group_id(group.to_owned());
        request.set_leader_id(node.to_owned());
        let content = Bytes::from(request.write_to_bytes().expect("encodes"));
        match client.call(&at.endpoint(), ringraft_proto::class::GET_PEERS_REQUEST, content, LIMIT) {
            Ok(_) => (0, String::new()),
            Err(RpcError::Remote { status, .. }) => (status.error.code(), status.message),
            Err(other) => panic!("{other}"),
        }
    };
    let leader = cluster.leader().node.server_id().clone();
    let said = |code: i32, text: &str| (code, text.to_owned());
    assert_eq!(ask(&leader, "g", &leader.to_string()), said(0, ""));
    assert_eq!(ask(&leader, "g", ""), said(0, ""), "the one that runs here");
    assert_eq!(ask(&leader, "h", ""), said(1012, "Empty nodes in group h"));
    assert_eq!(ask(&leader, "g", "localhost"), said(1015, "Fail to parse peer: localhost"));
    assert_eq!(ask(&leader, "g", "127.0.0.1:7"), said(1012, "Fail to find node 127.0.0.1:7 in group g"));
    let follower = cluster.followers()[0].clone();
    assert_eq!(ask(&follower, "g", "").0, RaftError::NotPermitted.code());
    // No snapshots yet.
    assert_eq!(code(&cli.snapshot("g", &leader).unwrap_err()), Some(RaftError::Invalid));
    let malformed =
        client.call(&leader.endpoint(), ringraft_proto::class::ADD_PEER_REQUEST, "\u{7}".into(), LIMIT);
    assert!(matches!(malformed, Err(RpcError::Remote { .. })), "{malformed:?}");

    let mut options = quick(&cluster.conf);
    options.disable_cli = true;
    let member = &cluster.members[0];
    let server: PeerId = member.host.endpoint().parse().expect("a peer id");
    RaftGroupService::new("closed", server.clone(), options, Journal(Arc::default()))
        .start(&member.host)
        .expect("starts");
    let refused = format!("Cli service is not allowed to access node <closed/{server}>");
    assert_eq!(ask(&server, "closed", ""), said(1016, &refused));
    let reset = cli.reset_peer("closed", &server, std::slice::from_ref(&server)).unwrap_err();
    assert_eq!(code(&reset), Some(RaftError::Access));
    cluster.members.drain(..).for_each(|member| member.host.shutdown());
}

#[test]
fn one_replica_is_told_who_is_left() {
    let network = Network::new();
    let (mut cluster, cli) = (Cluster::of(&network, THREE, |_| {}), service(&network));
    write(&cluster.members, 5);
    converge(&cluster.members, 5);
    let left = cluster.conf.peers[0].clone();
    let lost = cluster.conf.peers[1..].to_vec();
    lost.iter().for_each(|peer| cluster.lose(peer));
    let alone = std::slice::from_ref(&left);
    cli.reset_peer("g", &left, alone).expect("forced");
    assert_eq!(code(&cli.reset_peer("g", &left, &[]).unwrap_err()), Some(RaftError::Invalid));
    write(&cluster.members, 5);
    assert_eq!(cli.get_peers("g", &Configuration::of_peers(alone.to_vec())).expect("told").peers, alone);
    cluster.shutdown();
}
