use std::net::TcpListener;
use std::path::Path;

use ringraft::{Configuration, HostOptions, NodeState, StartError, StartMode, StoreOptions};

use crate::support::{LIMIT, Member, converge, eventually, leader_of, quick, start_member};

/// Ports that nobody listens at right now.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect()
}

fn options(dir: &Path, endpoint: &str, mode: StartMode) -> HostOptions {
    let mut options = HostOptions::new(endpoint, StoreOptions::segment(dir.join(endpoint.replace(':', "_"))));
    if let StoreOptions::Segment { options, .. } = &mut options.store {
        options.file_bytes = 1 << 20;
    }
    options.start_mode = mode;
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
    assert!(matches!(in_use, StartError::ForeignDirectory { .. } | StartError::Store(_)), "{in_use}");
    host.shutdown();

    let mut stranger = options(dir.path(), &endpoint, StartMode::Bootstrap);
    stranger.endpoint = format!("127.0.0.1:{}", ports[1]);
    let error = start(stranger).unwrap_err();
    assert!(matches!(error, StartError::ForeignDirectory { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint), "names the owner: {error}");
    let mut cluster = options(dir.path(), &endpoint, StartMode::Existing);
    cluster.cluster = "another".to_owned();
    assert!(matches!(start(cluster).unwrap_err(), StartError::ForeignDirectory { .. }));
}

/// Who comes back without memory must not found its groups anew, at no start.
#[test]
fn a_store_that_began_by_rejoin_has_no_members_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let endpoint = format!("127.0.0.1:{}", free_ports(1)[0]);
    let node_options = quick(&endpoint.parse().expect("a configuration"));
    for mode in [StartMode::Rejoin, StartMode::Existing, StartMode::Bootstrap] {
        let member = start_member(options(dir.path(), &endpoint, mode), node_options.clone());
        let described = member.node.describe(LIMIT).expect("described");
        // A sole voter would be a leader or a candidate by now.
        assert_eq!((described.state, &*described.configuration), (NodeState::Follower, ""), "{mode:?}");
        assert_eq!((described.term, described.last_log_id.index), (0, 0));
        member.host.shutdown();
    }
    let founder = tempfile::tempdir().expect("a directory");
    let member = start_member(options(founder.path(), &endpoint, StartMode::Bootstrap), node_options);
    eventually("leads alone", || member.node.is_leader().then_some(()));
    member.host.shutdown();
}
