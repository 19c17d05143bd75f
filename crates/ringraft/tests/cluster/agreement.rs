use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringraft::inproc::Network;
use ringraft::{ApplyError, Completion, Endpoint, NodeState, RaftGroupService, RaftHost, SinkId, Task};

use crate::support::{
    Applied, Cluster, Journal, LIMIT, Member, Outcomes, converge, eventually, leader_of, memory_options,
    quick,
};

#[test]
fn three_hosts_elect_and_replicate_in_order() {
    let cluster = Cluster::in_memory(&Network::new(), |_, _| {});
    let leader = cluster.leader();
    let mut futures: Vec<_> =
        (0..10_000_u64).map(|n| leader.node.propose(n.to_be_bytes().to_vec())).collect();
    let mut last = 0;
    for (position, future) in futures.iter_mut().enumerate() {
        let applied = future.wait(LIMIT).expect("applied");
        assert!(applied.index > last, "outcomes follow the log");
        assert_eq!(applied.response.as_ref(), (position as u64 + 1).to_be_bytes(), "the answer to this task");
        last = applied.index;
    }
    let entries = converge(&cluster.members, 10_000);
    let expected: Vec<Vec<u8>> = (0..10_000_u64).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(entries.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), expected);
    for member in &cluster.members {
        assert_eq!(member.node.leader_id().as_ref(), Some(leader.node.server_id()));
        let described = member.node.describe(LIMIT).expect("the owner answers");
        assert_eq!(described.configuration, cluster.conf.to_string());
        assert!(member.host.describe().to_string().contains("1 groups"));
    }
    cluster.shutdown();
    cluster.shutdown();
    for member in &cluster.members {
        assert_eq!(member.applied.shutdowns.load(Ordering::SeqCst), 1);
        assert_eq!(member.node.state(), NodeState::Shutdown);
        assert_eq!(member.node.propose("late").wait(LIMIT), Err(ApplyError::Shutdown));
        assert!(member.node.describe(LIMIT).is_err());
    }
}

#[test]
fn tasks_are_refused_with_the_reason() {
    let cluster = Cluster::in_memory(&Network::new(), |host, _| host.max_task_bytes = 100);
    let leader = cluster.leader();
    let id = leader.node.server_id();
    let follower = cluster.members.iter().find(|m| m.node.server_id() != id).expect("a follower");
    eventually("the follower knows", || (follower.node.leader_id().as_ref() == Some(id)).then_some(()));
    let refused = follower.node.propose("x").wait(LIMIT);
    assert_eq!(refused, Err(ApplyError::NotLeader { leader: Some(id.clone()) }));
    let large = leader.node.propose(vec![0; 101]).wait(LIMIT);
    assert_eq!(large, Err(ApplyError::TooLarge { size: 101, limit: 100 }));

    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    let term = leader.node.term();
    let task = |tag, term| Task::new("t", Completion::sink(sink, tag)).in_term(term);
    leader.node.apply(task(0, term)).expect("published");
    leader.node.apply(task(1, term + 1)).expect("published");
    leader.node.apply(task(2, 0)).expect("published");
    let outcomes = outcomes.each_once(3);
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert_eq!(outcomes[1], Err(ApplyError::TermMismatch { expected: term + 1, actual: term }));
    assert!(matches!(outcomes[2], Err(ApplyError::TermMismatch { .. })), "term 0 is no term: {outcomes:?}");
    sink.unregister();
    cluster.shutdown();
}

#[test]
fn small_and_large_tasks_keep_their_order() {
    let cluster = Cluster::in_memory(&Network::new(), |_, _| {});
    let leader = cluster.leader();
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    let sizes = [1, 100_000, 3, 70_000, 1_000_000, 5, 0, 64 * 1024, 9];
    let mut tasks: Vec<Task> = sizes
        .iter()
        .enumerate()
        .map(|(tag, size)| Task::new(vec![tag as u8; *size], Completion::sink(sink, tag as u64)))
        .collect();
    assert_eq!(leader.node.apply_batch(&mut tasks), Ok(sizes.len()));
    assert!(tasks.is_empty());
    let indexes: Vec<_> =
        outcomes.each_once(sizes.len() as u64).into_iter().map(|o| o.expect("applied")).collect();
    assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{indexes:?}");
    assert!(outcomes.batches.load(Ordering::SeqCst) >= 1);
    let entries = converge(&cluster.members, sizes.len());
    assert_eq!(entries.iter().map(|(_, data)| data.len()).collect::<Vec<_>>(), sizes);
    cluster.shutdown();
}

/// More lanes and workers than one, and the network on a thread of its own.
#[test]
fn many_groups_share_a_fixed_set_of_threads() {
    const GROUPS: usize = 30;
    let network = Network::new();
    let conf: ringraft::Configuration = "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3".parse().expect("conf");
    let hosts: Vec<RaftHost> = conf
        .peers
        .iter()
        .map(|peer| {
            let mut options = memory_options(&network, &peer.endpoint());
            (options.lanes, options.fsm_workers, options.fuse_net) = (2, 2, false);
            RaftHost::start(options).expect("the host starts")
        })
        .collect();
    let threads = hosts[0].threads();
    let groups: Vec<Vec<Member>> = (0..GROUPS)
        .map(|number| {
            hosts
                .iter()
                .zip(&conf.peers)
                .map(|(host, peer)| {
                    let applied = Arc::new(Applied::default());
                    let journal = Journal(applied.clone());
                    let service =
                        RaftGroupService::new(format!("g{number}"), peer.clone(), quick(&conf), journal);
                    Member { host: host.clone(), node: service.start(host).expect("starts"), applied }
                })
                .collect()
        })
        .collect();
    assert_eq!(hosts[0].threads(), threads, "threads do not depend on the groups");
    assert_eq!(hosts[0].nodes().len(), GROUPS);
    for members in &groups {
        let leader = leader_of(members);
        let mut futures: Vec<_> = (0..50_u8).map(|n| leader.node.propose(vec![n])).collect();
        for future in &mut futures {
            future.wait(LIMIT).expect("applied");
        }
    }
    for members in &groups {
        assert_eq!(converge(members, 50).len(), 50);
    }
    let stopped = groups[0][0].node.group_id().clone();
    assert!(hosts[0].stop_group(&stopped).expect("stops"));
    assert!(!hosts[0].stop_group(&stopped).expect("is stopped"));
    assert!(hosts[0].node(&stopped).is_none());
    assert_eq!(groups[0][0].node.propose("x").wait(LIMIT), Err(ApplyError::Shutdown));
    hosts.iter().for_each(RaftHost::shutdown);
}

#[test]
fn a_leader_that_is_cut_off_answers_everybody_and_catches_up() {
    let network = Network::new();
    let cluster = Cluster::in_memory(&network, |_, _| {});
    let old = cluster.leader();
    old.node.propose("before").wait(LIMIT).expect("applied");
    let endpoint = |member: &Member| Endpoint(member.host.endpoint().into());
    for other in cluster.members.iter().filter(|m| m.host.endpoint() != old.host.endpoint()) {
        network.cut(&endpoint(old), &endpoint(other));
    }
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    for tag in 0..100 {
        // Refused or lost: either way the outcome comes.
        let _ = old.node.apply(Task::new("lost", Completion::sink(sink, tag)));
    }
    for outcome in outcomes.each_once(100) {
        let unknown = matches!(&outcome, Err(ApplyError::Unknown(_)));
        let refused = matches!(&outcome, Err(ApplyError::NotLeader { .. }));
        assert!(unknown || refused, "{outcome:?}");
    }
    let rest = || cluster.members.iter().filter(|m| m.host.endpoint() != old.host.endpoint());
    let new = eventually("a new leader", || {
        rest().find(|m| m.node.is_leader() && m.applied.leader_starts.load(Ordering::SeqCst) > 0)
    });
    new.node.propose("after").wait(LIMIT).expect("applied");
    for other in rest() {
        network.heal(&endpoint(old), &endpoint(other));
    }
    let entries = eventually("the old leader catches up", || {
        let entries = old.applied.entries.lock().clone();
        entries.iter().any(|(_, data)| data == b"after").then_some(entries)
    });
    assert!(entries.iter().all(|(_, data)| data != b"lost"), "what was lost is in no log");
    assert!(old.applied.leader_stops.load(Ordering::SeqCst) >= 1);
    converge(&cluster.members, 2);
    cluster.shutdown();
}

#[test]
fn shutdown_answers_everybody() {
    let cluster = Cluster::in_memory(&Network::new(), |_, _| {});
    let leader = cluster.leader();
    let outcomes = Arc::new(Outcomes::default());
    let sink = SinkId::register(outcomes.clone());
    for round in 0..20 {
        let mut tasks: Vec<Task> =
            (0..500).map(|n| Task::new("t", Completion::sink(sink, round * 500 + n))).collect();
        while !tasks.is_empty() {
            leader.node.apply_batch(&mut tasks).expect("the host runs");
        }
    }
    leader.host.shutdown();
    for outcome in outcomes.each_once(10_000) {
        assert!(matches!(outcome, Ok(_) | Err(ApplyError::Unknown(_) | ApplyError::Shutdown)), "{outcome:?}");
    }
    cluster.shutdown();
}

#[test]
fn waiting_has_an_end() {
    let network = Network::new();
    let cluster = Cluster::in_memory(&network, |_, node| node.election_timeout_ms = 60_000);
    // Nobody leads for a minute.
    let refused = cluster.members[0].node.propose("x").wait(Duration::from_secs(5));
    assert_eq!(refused, Err(ApplyError::NotLeader { leader: None }));
    cluster.shutdown();
}
