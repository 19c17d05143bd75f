use super::*;
use crate::stage::Stage;
use crate::{AppendEntriesRequest, AppendKind, Extensions};

fn node() -> NodeImpl {
    let (own, conf) = ("a:1".parse().unwrap(), "a:1,b:1,c:1".parse().unwrap());
    let options = CoreOptions::new("g".parse().unwrap(), own, conf);
    NodeImpl::new(Time(0), options, RecoveredState::default(), 1).unwrap()
}

/// The invariants are asked at the end of every kind of step.
#[test]
#[should_panic(expected = "only what the log holds is committed")]
fn a_step_that_breaks_an_invariant_stops_the_node() {
    let (mut node, mut fx) = (node(), Effects::new());
    node.start(Time(0), &mut fx);
    node.committed = 1;
    node.step(Time(1), Input::Tick, &mut fx);
}

#[test]
fn a_follower_carries_nothing_of_a_leader() {
    let (mut node, mut fx) = (node(), Effects::new());
    node.start(Time(0), &mut fx);
    assert!(node.role.leadership().is_none() && node.role.replicators().len() == 0);
    assert!(std::mem::size_of::<Role>() <= 96, "a leadership stands on the heap");
}

/// A stranger's frame with a high term and an entry that no file can hold moves nothing: neither term nor log, and the group goes on.
#[test]
fn an_entry_that_the_store_cannot_take_is_refused_before_anything_moves() {
    let (mut node, mut fx) = (node(), Effects::new());
    node.options.max_entry_bytes = 8;
    node.start(Time(0), &mut fx);
    let append = |node: &mut NodeImpl, term, data: &[&[u8]]| {
        let mut builder = crate::chunk::ChunkBuilder::new();
        data.iter().for_each(|data| builder.push(data));
        let request = AppendEntriesRequest {
            kind: AppendKind::Entries,
            term,
            prev_log: LogId::default(),
            committed_index: 0,
            entries: vec![std::sync::Arc::new(builder.take(1, term).unwrap())],
            extensions: Extensions::NONE,
            rejoined: 0,
            promise_wanted: 0,
        };
        let mut fx = Effects::new();
        let request = RaftRequest::AppendEntries(request);
        let from = "b:1".parse().unwrap();
        node.step(Time(1), Input::Request { from, reply: ReplyToken(1), request }, &mut fx);
        (fx.replies[0].response.clone(), fx.log.len())
    };
    let (response, writes) = append(&mut node, 99, &[b"small", b"nine byte"]);
    let RaftResponse::Error(status) = response else { panic!("{response:?}") };
    assert_eq!(status.error, RaftError::Invalid);
    assert!(
        status.message.contains("entry 2 has 9 bytes and the log store here takes 8"),
        "{}",
        status.message
    );
    assert_eq!((writes, node.term(), node.state()), (0, 0, NodeState::Follower));
    let (response, writes) = append(&mut node, 1, &[b"eight by", b"eight by"]);
    assert!(
        matches!(response, RaftResponse::AppendEntries(answer) if answer.success),
        "small ones in a large chunk"
    );
    assert!(writes > 0);
}

/// Shows rule R5.
#[test]
fn an_owner_that_was_late_is_patient_and_leads_no_longer() {
    let (mut node, mut fx) = (node(), Effects::new());
    node.start(Time(0), &mut fx);
    let due = node.campaign_deadline().unwrap();
    node.owner_was_late(500_000);
    node.step(due, Input::Tick, &mut fx);
    assert!(fx.sends.is_empty(), "it waits for what may be unread");
    assert_eq!(node.campaign_deadline(), Some(Time(due.0 + 500_000)));

    node.elect_self(false, &mut fx);
    node.become_leader(due, &mut fx);
    let timeout = node.options.election_timeout_ms * 1000;
    node.owner_was_late(timeout);
    node.step(Time(due.0 + 2 * timeout), Input::Tick, &mut Effects::new());
    assert_eq!(node.state(), NodeState::Follower, "no quorum has answered");
}

/// Finding C15: the members of a group that changes for ever take no more memory than those of one that does not.
#[test]
fn configurations_do_not_grow_with_every_change() {
    let (own, conf) = ("a:1".parse().unwrap(), "a:1".parse().unwrap());
    let options = CoreOptions::new("g".parse().unwrap(), own, conf);
    let mut node = NodeImpl::new(Time(0), options, RecoveredState::default(), 1).unwrap();
    let mut fx = Effects::new();
    node.start(Time(0), &mut fx);
    for change in 0..100 {
        while node.applied < node.log.last_id().index || !node.is_leader() {
            let (sequence, index) = (node.log.last_sequence(), node.delivered);
            fx.clear();
            node.step(Time(1), Input::Persisted { sequence }, &mut fx);
            fx.clear();
            node.step(Time(1), Input::Applied { index }, &mut fx);
        }
        let learners = if change % 2 == 0 { vec!["b:1".parse().unwrap()] } else { Vec::new() };
        let change = crate::effects::MembershipChange::ResetLearners(learners);
        let call = crate::effects::CallToken(1);
        fx.clear();
        node.step(Time(1), Input::ChangeMembers { call, change, prev_index: None }, &mut fx);
        assert!(node.stage() != Stage::None, "{:?}", fx.calls);
        assert!(node.log.configurations_behind(0) <= 2, "{}", node.log.configurations_behind(0));
    }
}

/// Shows rule P7: who cannot give back what it has acknowledged votes for nobody, acknowledges nothing and says why.
#[test]
fn a_node_whose_log_is_damaged_has_failed_from_the_start() {
    for (last, range) in [(7, "entries 4..=7 cannot"), (LogIndex::MAX, "the log from entry 4 on cannot")] {
        let (own, conf) = ("a:1".parse().unwrap(), "a:1,b:1,c:1".parse().unwrap());
        let options = CoreOptions::new("g".parse().unwrap(), own, conf);
        let damaged = vec![crate::DamagedRange { first: 4, last, what: "a checksum".to_owned() }];
        let recovered = RecoveredState { last_index: 9, terms: vec![(1, 2)], damaged, ..Default::default() };
        let mut node = NodeImpl::new(Time(0), options, recovered, 1).unwrap();
        let mut fx = Effects::new();
        node.start(Time(0), &mut fx);
        assert!(fx.log.is_empty() && fx.sends.is_empty(), "nothing is written over it, nobody is asked");
        assert!(matches!(&fx.fsm[..], [FsmEvent::Error(_)]), "{:?}", fx.fsm);
        let description = node.describe();
        assert_eq!(description.state, NodeState::Error);
        let text = description.to_string();
        assert!(text.contains(range) && text.contains("a checksum") && text.contains("rejoin"), "{text}");
        for pre_vote in [true, false] {
            let request = RaftRequest::RequestVote(crate::RequestVoteRequest {
                term: 50,
                last_log: LogId::new(99, 49),
                pre_vote,
                transfer: false,
                extensions: Extensions::NONE,
                conf_index: 0,
            });
            let mut fx = Effects::new();
            let from = "b:1".parse().unwrap();
            node.step(Time(1), Input::Request { from, reply: ReplyToken(1), request }, &mut fx);
            assert!(matches!(fx.replies[0].response, RaftResponse::Error(_)), "{:?}", fx.replies);
            assert!(fx.log.is_empty());
        }
    }
}
