use std::net::TcpListener;
use std::path::Path;

use ringraft::inproc::Network;
use ringraft::{
    CallFailure, Configuration, GroupId, HostOptions, NodeState, RaftError, RecoverError, RecoverGroups,
    StartError, StartMode, StoreOptions, recover_cluster,
};

use crate::support::{
    Cluster, LIMIT, Member, converge, eventually, leader_of, memory_options, quick, start_member,
};

/// Ports that nobody listens at right now.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

pub(crate) fn options(dir: &Path, endpoint: &str, mode: StartMode) -> HostOptions {
    let mut options = HostOptions::new(endpoint, StoreOptions::segment(dir.join(endpoint.replace(':', "_"))));
    if let StoreOptions::Segment { options, .. } = &mut options.store {
        options.file_bytes = 1 << 20;
    }
    options.start_mode = mode;
    options.bootstrap_ask_ms = 0;
    options.max_task_bytes = 512 << 10;
    options
}

fn member(dir: &Path, conf: &Configuration, position: usize, mode: StartMode) -> Member {
    start_member(options(dir, &conf.peers[position].endpoint(), mode), quick(conf))
}

fn write(members: &[Member], from: u64, to: u64) {
    let leader = leader_of(members);
    let mut futures: Vec<_> = (from..to).map(|n| leader.node.propose(n.to_be_bytes().to_vec())).collect();
    for future in &mut futures {
        future.wait(LIMIT).expect("applied");
    }
}

#[test]
fn hosts_on_tcp_and_segment_log_keep_what_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let text: Vec<String> = free_ports(3).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let conf: Configuration = text.join(",").parse().expect("conf");
    let start = |position, mode| member(dir.path(), &conf, position, mode);
    let mut members: Vec<Member> = (0..3).map(|position| start(position, StartMode::Bootstrap)).collect();
    write(&members, 0, 2000);
    converge(&members, 2000);

    // One host goes and comes back; the others go on meanwhile.
    let gone = members.remove(0);
    gone.host.shutdown();
    assert_eq!(gone.node.state(), NodeState::Shutdown);
    write(&members, 2000, 3000);
    members.insert(0, start(0, StartMode::Existing));
    converge(&members, 3000);

    // All go and come back.
    members.iter().for_each(|member| member.host.shutdown());
    drop(members);
    let members: Vec<Member> = (0..3).map(|position| start(position, StartMode::Existing)).collect();
    write(&members, 3000, 3100);
    let entries = converge(&members, 3100);
    let expected: Vec<Vec<u8>> = (0..3100_u64).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(entries.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), expected);
    members.iter().for_each(|member| member.host.shutdown());
}

#[test]
fn a_directory_remembers_whose_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = |options: HostOptions| ringraft::RaftHost::start(options);
    let ports = free_ports(2);
    let endpoint = format!("127.0.0.1:{}", ports[0]);
    let blank = start(options(dir.path(), &endpoint, StartMode::Existing)).unwrap_err();
    assert!(matches!(blank, StartError::BlankDirectory { .. }), "{blank}");
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("readable").count(),
        0,
        "a refusal leaves nothing behind"
    );
    start(options(dir.path(), &endpoint, StartMode::Bootstrap)).expect("starts").shutdown();
    let host = start(options(dir.path(), &endpoint, StartMode::Existing)).expect("starts again");
    let mut second = options(dir.path(), &endpoint, StartMode::Existing);
    second.transport = ringraft::TransportOptions::Tcp { listen: Some("127.0.0.1:0".parse().expect("addr")) };
    let in_use = start(second).unwrap_err();
    assert!(matches!(in_use, StartError::ForeignDirectory { .. }), "{in_use}");
    host.shutdown();

    let mut stranger = options(dir.path(), &endpoint, StartMode::Bootstrap);
    stranger.endpoint = format!("127.0.0.1:{}", ports[1]);
    let error = start(stranger).unwrap_err();
    assert!(matches!(error, StartError::OtherOwner { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint), "names the owner: {error}");
    let mut cluster = options(dir.path(), &endpoint, StartMode::Existing);
    cluster.cluster = "another".to_owned();
    assert!(matches!(start(cluster).unwrap_err(), StartError::OtherOwner { .. }));
}

/// Who comes back without memory must not found its groups anew, at no start.
#[test]
fn a_store_that_began_by_rejoin_has_no_members_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let node_options = quick(&endpoint.parse().expect("a configuration"));
    for mode in [StartMode::Rejoin, StartMode::Existing, StartMode::Existing] {
        let member = start_member(options(dir.path(), &endpoint, mode), node_options.clone());
        let described = member.node.describe(LIMIT).expect("described");
        // A sole voter would be a leader or a candidate by now.
        assert_eq!((described.state, &*described.configuration), (NodeState::Follower, ""), "{mode:?}");
        assert_eq!((described.term, described.last_log_id.index), (0, 0));
        member.host.shutdown();
    }
    let refused = |mode| ringraft::RaftHost::start(options(dir.path(), &endpoint, mode)).unwrap_err();
    assert!(matches!(refused(StartMode::Bootstrap), StartError::BeganAsRejoin { .. }));
    assert!(matches!(refused(StartMode::Rejoin), StartError::NotBlank { .. }));
    let founder = tempfile::tempdir().expect("a directory");
    let member = start_member(options(founder.path(), &endpoint, StartMode::Bootstrap), node_options);
    eventually("leads alone", || member.node.is_leader().then_some(()));
    member.host.shutdown();
}

/// A member whose disk was lost comes back under its name, catches up, and counts again.
#[test]
fn a_member_that_has_lost_its_disk_comes_back() {
    let network = Network::new();
    let mut cluster = Cluster::in_memory(&network, |_, _| {});
    for n in 0..100_u64 {
        cluster.leader().node.propose(n.to_be_bytes().to_vec()).wait(LIMIT).expect("applied");
    }
    let leader = cluster.leader().node.server_id().clone();
    let lost = cluster.members.iter().position(|m| *m.node.server_id() != leader).expect("a follower");
    cluster.members[lost].host.shutdown();
    let mut options = memory_options(&network, &cluster.conf.peers[lost].endpoint());
    options.start_mode = StartMode::Rejoin;
    cluster.members[lost] = start_member(options, quick(&cluster.conf));
    converge(&cluster.members, 100);
    // It counts when an entry that was made since its loss is committed by the others.
    let node = &cluster.members[lost].node;
    eventually("the member counts again", || {
        node.describe(LIMIT).ok().filter(|described| !described.rejoining).map(drop)
    });
    let other = cluster.members.iter().position(|m| {
        *m.node.server_id() != leader && m.node.server_id() != cluster.members[lost].node.server_id()
    });
    cluster.members.remove(other.expect("a third member")).host.shutdown();
    // Now nothing commits without it.
    let done = eventually("a commit by two of three", || {
        let leader = cluster.members.iter().find(|m| m.node.is_leader())?;
        leader.node.propose("by two of three").wait(LIMIT).ok()
    });
    assert!(done.index > 100);
    converge(&cluster.members, 101);
    cluster.shutdown();
}

/// A majority is gone for good, and the one that is left becomes the sole voter while it does not run.
#[test]
fn who_is_left_is_made_the_sole_voter_before_it_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let text: Vec<String> = free_ports(3).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let conf: Configuration = text.join(",").parse().expect("conf");
    let mut members: Vec<Member> =
        (0..3).map(|position| member(dir.path(), &conf, position, StartMode::Bootstrap)).collect();
    write(&members, 0, 100);
    converge(&members, 100);
    members.drain(..).for_each(|member| member.host.shutdown());

    let recover = |endpoint: &str, groups: RecoverGroups| {
        let server_id = endpoint.parse().expect("a peer id");
        recover_cluster(options(dir.path(), endpoint, StartMode::Bootstrap), &groups, &server_id)
    };
    let group: GroupId = "g".parse().expect("a group");
    let other = RecoverGroups::Named(vec!["h".parse().expect("a group")]);
    let unknown = recover(&text[0], other).unwrap_err();
    assert!(unknown.to_string().contains("no group h; it has g"), "{unknown}");
    let blank = recover("127.0.0.1:1", RecoverGroups::All).unwrap_err();
    assert!(matches!(blank, RecoverError::Store(StartError::BlankDirectory { .. })), "{blank}");
    // A slip of the finger must not make somebody the sole voter who does not exist.
    let elsewhere = text[1].parse().expect("a peer id");
    let slip =
        recover_cluster(options(dir.path(), &text[0], StartMode::Bootstrap), &RecoverGroups::All, &elsewhere);
    let slip = slip.unwrap_err();
    assert!(matches!(&slip, RecoverError::WrongEndpoint { .. }), "{slip}");
    assert!(slip.to_string().contains(&text[0]) && slip.to_string().contains(&text[1]), "{slip}");
    let named = RecoverGroups::Named(vec![group.clone(), group.clone()]);
    let recovered = recover(&text[0], named).expect("recovered");
    assert_eq!(recovered.len(), 1);
    assert_eq!((&recovered[0].group, &recovered[0].old), (&group, &Some(conf.clone())));
    assert!(recovered[0].index > 100 && recovered[0].term > 1, "{recovered:?}");

    members.push(member(dir.path(), &conf, 0, StartMode::Existing));
    write(&members, 100, 200);
    assert_eq!(leader_of(&members).node.list_peers(LIMIT).expect("leads").peers, conf.peers[..1]);
    // The others come back blank, and are added.
    std::fs::remove_dir_all(dir.path().join(text[1].replace(':', "_"))).expect("removed");
    members.push(member(dir.path(), &conf, 1, StartMode::Rejoin));
    // It may be refused while the other server starts, for having answered nothing yet, and for no other reason.
    eventually("it is added", || {
        match leader_of(&members).node.add_peer(conf.peers[1].clone()).wait(LIMIT) {
            Ok(_) => Some(()),
            Err(CallFailure::Failed(status)) if status.error == RaftError::CatchUp => None,
            Err(failure) => panic!("{failure}"),
        }
    });
    let entries = converge(&members, 200);
    let expected: Vec<Vec<u8>> = (0..200_u64).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(entries.into_iter().map(|(_, data)| data).collect::<Vec<_>>(), expected);
    members.iter().for_each(|member| member.host.shutdown());

    // A replica that has lost its disk and never caught up since is nobody to start from.
    std::fs::remove_dir_all(dir.path().join(text[2].replace(':', "_"))).expect("removed");
    member(dir.path(), &conf, 2, StartMode::Rejoin).host.shutdown();
    let rejoining = recover(&text[2], RecoverGroups::All).unwrap_err();
    assert!(matches!(rejoining, RecoverError::Rejoining { .. }), "{rejoining}");
}
