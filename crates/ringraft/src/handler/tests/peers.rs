//! What goes to peers, by which connection, and what the network is told of them.

use super::*;

/// Who is ordered to campaign must have what was sent before, or those that have it refuse their votes.
#[test]
fn an_order_to_campaign_goes_behind_the_entries() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let peer: PeerId = "b:1".parse().unwrap();
    let mut entries = None;
    let mut call = |world: &mut World, call| {
        let (answer, _) = promise();
        world.turn(vec![LaneEvent::Control(Box::new(Control::Call { handle, call, answer }))]);
        for _ in 0..20 {
            // Who is added gets the last entry, which is in the store alone by now.
            let mut answers = world.reads();
            for send in std::mem::take(&mut world.out.sends) {
                match &send.request {
                    RaftRequest::TimeoutNow(_) => return Some((send.link, entries)),
                    RaftRequest::AppendEntries(request) => {
                        if request.kind == AppendKind::Entries {
                            entries = Some(send.link);
                        }
                        let response = AppendEntriesResponse {
                            term: request.term,
                            success: true,
                            last_log_index: None,
                            conflict: None,
                            promised: 0,
                            rejoining: 0,
                            extensions: Extensions::NONE,
                        };
                        let result = Ok(RaftResponse::AppendEntries(response).into());
                        let event = ResponseEvent { context: send.context, result };
                        answers.push(LaneEvent::Response(Box::new(event)));
                    }
                    other => panic!("{other:?} was sent"),
                }
            }
            world.turn(answers);
            world.stages();
        }
        None
    };
    let change = MembershipChange::AddPeer(peer.clone());
    assert_eq!(call(&mut world, NodeCall::ChangeMembers { change, prev_index: None }), None);
    let order = call(&mut world, NodeCall::TransferLeadership { to: Some(peer) });
    let (order, entries) = order.expect("b has everything");
    assert_eq!(Some(order), entries, "on one connection, which keeps the order");
}

/// What the network needs to know to treat members better than strangers, and Java nodes more patiently than others.
#[test]
fn the_network_is_told_who_is_a_member_and_who_understands_extensions() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let request = |from: &str, request| {
        let (from, reply) = (from.parse().unwrap(), ReplyHandle { connection: 1, generation: 1, request: 9 });
        LaneEvent::Request(Box::new(RequestEvent { handle, from, reply, codec: 1, request }))
    };
    let append = |extensions| {
        RaftRequest::AppendEntries(AppendEntriesRequest {
            kind: AppendKind::Heartbeat,
            term: 1000,
            prev_log: LogId::default(),
            committed_index: 0,
            entries: Vec::new(),
            extensions,
            rejoined: 0,
            promise_wanted: 0,
        })
    };
    world.turn(vec![
        world.vote_request(handle, 5, true),
        request("a:1", append(Extensions::NONE)),
        request("b:1", append(Extensions::NONE)),
        request("b:1", append(Extensions::REJOIN)),
    ]);
    world.stages();
    let spoke = std::mem::take(&mut *world.transport.spoke.lock());
    let a = Some("a:1".to_owned());
    assert_eq!(spoke, [(None, None), (a, Some(false)), (None, Some(false)), (None, Some(true))]);
    // A follower says in its answers that it is no Java node, but not to one.
    let said: Vec<bool> = (world.replies.iter())
        .filter_map(|reply| match &reply.response {
            RaftResponse::AppendEntries(answer) => Some(answer.extensions != Extensions::NONE),
            _ => None,
        })
        .collect();
    assert_eq!(said, [false, true]);
}

#[test]
fn a_change_of_what_a_peer_announces_is_passed_on_once() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let (answer, _) = promise();
    let change = MembershipChange::AddPeer("b:1".parse().unwrap());
    let call = NodeCall::ChangeMembers { change, prev_index: None };
    world.turn(vec![LaneEvent::Control(Box::new(Control::Call { handle, call, answer }))]);
    let context = world.out.sends.first().expect("the new member is asked").context;
    let mut hear = |extensions| {
        let answer = AppendEntriesResponse {
            term: 1,
            success: false,
            last_log_index: None,
            conflict: None,
            promised: 0,
            rejoining: 0,
            extensions,
        };
        let result = Ok(RaftResponse::AppendEntries(answer).into());
        world.turn(vec![LaneEvent::Response(Box::new(ResponseEvent { context, result }))]);
        std::mem::take(&mut *world.transport.announced.lock())
    };
    assert_eq!(hear(Extensions::NONE), [], "taken for a Java node anyway");
    assert_eq!(hear(Extensions::REJOIN), [("b:1".to_owned(), true)]);
    assert_eq!(hear(Extensions::REJOIN), []);
    assert_eq!(hear(Extensions::NONE), [("b:1".to_owned(), false)]);
}

/// A link without room is flow control: what is in flight stays, and the group goes on when there is room.
#[test]
fn a_full_link_resumes_when_it_has_room() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("g");
    let change = MembershipChange::AddPeer("b:1".parse().unwrap());
    let (answer, _) = promise();
    let call = NodeCall::ChangeMembers { change, prev_index: None };
    world.turn(vec![LaneEvent::Control(Box::new(Control::Call { handle, call, answer }))]);
    let entries = |world: &mut World| {
        let sends = std::mem::take(&mut world.out.sends);
        sends.into_iter().find(|send| send.request.log_class())
    };
    let first = entries(&mut world).expect("a probe");
    let full = Status::new(RaftError::Again, "full");
    world.lane.on_send_failed(world.now, first.context, full, &mut world.out);
    world.turn(Vec::new());
    assert!(entries(&mut world).is_none(), "it waits");
    world.turn(vec![LaneEvent::LinkHasRoom(Endpoint("c:1".into()))]);
    assert!(entries(&mut world).is_none(), "that was another host");
    world.turn(vec![LaneEvent::LinkHasRoom(Endpoint("b:1".into()))]);
    let again = entries(&mut world).expect("it goes on");
    assert_eq!(format!("{:?}", again.request), format!("{:?}", first.request), "where it was");
}

trait LogClass {
    fn log_class(&self) -> bool;
}

impl LogClass for RaftRequest {
    /// Whether it goes on the connection for entries.
    fn log_class(&self) -> bool {
        matches!(self, RaftRequest::AppendEntries(append) if append.kind != AppendKind::Heartbeat)
    }
}
