use super::*;

fn broken(change: impl FnOnce(&mut NodeOptions)) -> OptionsError {
    let mut options = NodeOptions::default();
    change(&mut options);
    options.validate().unwrap_err()
}

#[test]
fn the_defaults_pass_and_are_the_cores() {
    NodeOptions::default().validate().unwrap();
    let (group, server): (GroupId, PeerId) = ("g".parse().unwrap(), "a:1".parse().unwrap());
    NodeOptions::default().validate_for(&server).unwrap();
    let core = NodeOptions::default().to_core(group.clone(), server.clone());
    let mut expected = CoreOptions::new(group, server, Configuration::default());
    // The one setting that is the group's own.
    expected.successor = core.successor;
    assert_eq!(format!("{core:?}"), format!("{expected:?}"));
}

#[test]
fn groups_have_different_successors() {
    let of = |name: String| {
        let server = "a:1".parse().unwrap();
        NodeOptions::default().to_core(name.parse().unwrap(), server).successor
    };
    assert_eq!(of("g".to_owned()), of("g".to_owned()));
    for peers in 2..=4 {
        let mut led = vec![0; peers as usize];
        for number in 0..512 {
            led[(of(format!("atomic_{number}")) % peers) as usize] += 1;
        }
        let share = 512 / peers;
        assert!(led.iter().all(|count| (share * 4 / 5..=share * 6 / 5).contains(count)), "{peers}: {led:?}");
    }
}

#[test]
fn server_ids_must_be_reachable() {
    let options = NodeOptions::default();
    assert!(matches!(options.validate_for(&PeerId::empty()), Err(OptionsError::EmptyServerId(_))));
    assert!(matches!(options.validate_for(&PeerId::new("a", 0)), Err(OptionsError::ServerIdPort(_))));
}

#[test]
fn election_timeouts_have_a_range() {
    assert_eq!(broken(|o| o.election_timeout_ms = 9), OptionsError::ElectionTimeout(9));
    assert_eq!(broken(|o| o.election_timeout_ms = 3_600_001), OptionsError::ElectionTimeout(3_600_001));
}

#[test]
fn election_delay_must_not_be_zero() {
    assert_eq!(broken(|o| o.raft_options.max_election_delay_ms = 0), OptionsError::ElectionDelay(0));
}

#[test]
fn one_lost_heartbeat_must_not_start_an_election() {
    assert_eq!(broken(|o| o.raft_options.election_heartbeat_factor = 1), OptionsError::HeartbeatFactor(1));
    let expected = OptionsError::HeartbeatPeriod { heartbeat_ms: 10, election_ms: 10 };
    assert_eq!(broken(|o| o.election_timeout_ms = 10), expected);
}

#[test]
fn the_largest_message_passes_a_frame() {
    let mut options = RaftOptions::default();
    assert_eq!(options.validate_frame(4 << 20, 64 << 20), Ok(()));
    options.max_body_size = 64 << 20;
    assert!(matches!(
        options.validate_frame(4 << 20, 64 << 20),
        Err(OptionsError::BodyOverFrame { body, frame, .. }) if body == frame
    ));
}

#[test]
fn the_lease_is_a_share() {
    assert_eq!(broken(|o| o.leader_lease_time_ratio = 0), OptionsError::LeaseRatio(0));
    assert_eq!(broken(|o| o.leader_lease_time_ratio = 101), OptionsError::LeaseRatio(101));
}

#[test]
fn priorities_stand_in_one_place() {
    assert_eq!(broken(|o| o.election_priority = -2), OptionsError::Priority(-2));
    assert_eq!(broken(|o| o.decay_priority_gap = 9), OptionsError::DecayPriorityGap(9));
    let options = NodeOptions { election_priority: 100, ..NodeOptions::default() };
    let (plain, other): (PeerId, PeerId) = ("a:1".parse().unwrap(), "a:1::50".parse().unwrap());
    options.validate_for(&plain).unwrap();
    assert!(matches!(options.validate_for(&other), Err(OptionsError::PriorityConflict { option: 100, .. })));
    let priority = |options: &NodeOptions, server: &PeerId| {
        options.to_core("g".parse().unwrap(), server.clone()).server_id.priority()
    };
    assert_eq!(priority(&options, &plain), 100);
    assert_eq!(priority(&NodeOptions::default(), &other), 50);
}

#[test]
fn new_voters_and_slow_disks_have_their_bounds() {
    assert_eq!(broken(|o| o.catchup_margin = 0), OptionsError::CatchupMargin);
    assert_eq!(broken(|o| o.disk_stall_timeout_ms = 9), OptionsError::DiskStallTimeout(9));
    assert_eq!(broken(|o| o.disk_stall_timeout_ms = 3_600_001), OptionsError::DiskStallTimeout(3_600_001));
}

#[test]
fn reads_have_their_bounds() {
    let lease = |o: &mut NodeOptions| {
        o.raft_options.read_only_options = ReadOnlyOption::LeaseBased;
        o.leader_lease_time_ratio = 96;
    };
    assert_eq!(broken(lease), OptionsError::LeaseMargin(96));
    assert_eq!(broken(|o| o.raft_options.read_index_timeout_ms = 0), OptionsError::ReadIndexTimeout(0));
    assert_eq!(broken(|o| o.raft_options.max_pending_reads = 0), OptionsError::PendingReads(0));
}

#[test]
fn what_is_set_reaches_the_core() {
    let mut options = NodeOptions {
        catchup_margin: 7,
        decay_priority_gap: 20,
        disk_stall_timeout_ms: 900,
        ..NodeOptions::default()
    };
    options.raft_options.read_only_options = ReadOnlyOption::LeaseBased;
    options.raft_options.max_read_index_lag = Some(5);
    options.raft_options.read_index_timeout_ms = 300;
    options.raft_options.max_pending_reads = 6;
    options.validate().unwrap();
    let core = options.to_core("g".parse().unwrap(), "a:1".parse().unwrap());
    assert_eq!((core.catchup_margin, core.decay_priority_gap, core.disk_stall_ms()), (7, 20, 900));
    assert_eq!((core.lease_reads, core.max_read_index_lag), (true, Some(5)));
    assert_eq!((core.read_index_timeout_ms, core.max_pending_reads), (300, 6));
}

#[test]
fn the_initial_configuration_is_checked() {
    let peer: PeerId = "a:1".parse().unwrap();
    let twice = Configuration::of_peers(vec![peer.clone(), peer]);
    assert!(matches!(broken(|o| o.initial_conf = twice), OptionsError::InitialConf(_)));
}

#[test]
fn rpc_timeouts_have_a_range() {
    assert_eq!(broken(|o| o.rpc_default_timeout_ms = 9), OptionsError::RpcTimeout(9));
}

#[test]
fn message_sizes_have_a_range() {
    assert_eq!(broken(|o| o.raft_options.max_entries_size = 0), OptionsError::MaxEntries(0));
    assert_eq!(broken(|o| o.raft_options.max_body_size = 0), OptionsError::MaxBody(0));
    assert_eq!(broken(|o| o.raft_options.max_replicator_inflight_msgs = 0), OptionsError::InflightMsgs(0));
}

#[test]
fn bounds_take_one_full_message() {
    assert!(matches!(
        broken(|o| o.raft_options.max_replicator_inflight_bytes = 1),
        OptionsError::InflightBytes { bytes: 1, .. }
    ));
    assert!(matches!(
        broken(|o| o.raft_options.max_unstable_entries = 1),
        OptionsError::UnstableEntries { entries: 1, .. }
    ));
    assert!(matches!(
        broken(|o| o.raft_options.max_unstable_bytes = 1),
        OptionsError::UnstableBytes { bytes: 1, .. }
    ));
    assert!(matches!(
        broken(|o| o.raft_options.max_unapplied_entries = 1),
        OptionsError::UnappliedEntries { entries: 1, .. }
    ));
    assert!(matches!(
        broken(|o| o.raft_options.max_unapplied_bytes = 1),
        OptionsError::UnappliedBytes { bytes: 1, .. }
    ));
}
