use parking_lot::Mutex;
use ringraft_proto::OutFrame;

use super::*;
use crate::hub::{ConnectionId, LinkState};
use crate::outbox::{AtMeter, Meter, Outbox};
use crate::pending::PendingTable;
use crate::remote::Remotes;
use crate::{ConnectionClass, Endpoint, RequestContext};

fn peer(role: Role, now: Instant) -> Peer<()> {
    let outbox = Outbox::new(1, 1, Meter::new(1), AtMeter::Take);
    let id = ConnectionId { slot: 0, generation: 0 };
    let shared = Arc::new(Connection::new(id, Endpoint("a:1".into()), (), outbox));
    Peer::new(shared, role, now, &NetLoopOptions::default())
}

fn bytes(frame: &OutFrame) -> Vec<u8> {
    frame.parts.concat()
}

/// Begins a frame of 32 MiB with `first` bytes, brings `rate` bytes a second, and says when it is closed.
fn lives(first: usize, rate: usize) -> Option<u64> {
    let options = NetLoopOptions::default();
    let start = Instant::now();
    let mut peer = peer(Role::Inbound, start);
    peer.received(&bytes(&ringraft_proto::encode_heartbeat(1)), start);
    assert!(peer.next_frame(start).unwrap().is_some());
    let mut frame = bytes(&ringraft_proto::encode_request(1, "test.Class", 1, b"", b""));
    frame[18..22].copy_from_slice(&(32u32 << 20).to_be_bytes());
    frame.resize(first, 0);
    peer.received(&frame, start);
    assert!(peer.next_frame(start).unwrap().is_none());
    let held = peer.held();
    assert!(held >= first);
    for second in 1..100 {
        let now = start + Duration::from_secs(second);
        if let Due::Close(_) = peer.check(now, &options) {
            return Some(second);
        }
        peer.received(&vec![0; rate], now);
        assert!(peer.next_frame(now).unwrap().is_none());
    }
    None
}

#[test]
fn who_holds_more_must_bring_more() {
    assert_eq!(lives(1000, 900), Some(10));
    assert_eq!(lives(1000, 1200), Some(20), "a kilobyte a second is enough for little");
    assert_eq!(lives(4 << 20, 1200), Some(10), "not for megabytes");
    assert_eq!(lives(4 << 20, 60 << 10), Some(10));
    assert_eq!(lives(4 << 20, 72 << 10), None, "and no frame needs a quick line");
    assert_eq!(lives(256 << 10, 15 << 10), Some(10));
    assert_eq!(lives(256 << 10, 72 << 10), None);
}

#[test]
fn a_connection_without_input_holds_nothing() {
    let now = Instant::now();
    let mut peer = peer(Role::Inbound, now);
    assert_eq!((peer.held(), peer.holds_since()), (0, None));
    let frame = bytes(&ringraft_proto::encode_request(1, "test.Class", 1, b"", &[7; 5000]));
    peer.received(&frame, now);
    assert!(peer.held() >= frame.len());
    let Ok(Some(Frame::Request(request))) = peer.next_frame(now) else { panic!("no request") };
    peer.park(request, now);
    assert!(peer.held() >= frame.len(), "what the consumer handed back is still here");
    assert_eq!(peer.holds_since(), Some(now));
    drop(peer.unpark());
    assert!(peer.next_frame(now).unwrap().is_none());
    assert_eq!(peer.held(), 0);
}

/// A link that is up, whose peer has said nothing since, with so many requests that wait.
fn outbound(extended: bool, waiting: u64, now: Instant) -> (Peer<()>, Arc<Link<()>>) {
    let (remote, _) = Remotes::default().get(&Endpoint("a:1".into()));
    remote.extended.store(extended, Ordering::Relaxed);
    let mut pending = PendingTable::new(8);
    for ticket in 0..waiting {
        pending.insert(RequestContext { lane: 0, kind: 0, slot: 0, generation: 0, ticket }, 0);
    }
    let state = Mutex::new(LinkState { connection: None, pending });
    let (endpoint, class) = (remote.endpoint.clone(), ConnectionClass::Log);
    let link = Arc::new(Link { endpoint, class, remote, state });
    let mut peer = peer(Role::Connecting(LinkId(0)), now);
    peer.established(LinkId(0), link.clone(), now);
    // The heartbeat that it begins with is answered.
    peer.received(&bytes(&ringraft_proto::encode_heartbeat_ack(1)), now);
    assert!(peer.next_frame(now).unwrap().is_some());
    (peer, link)
}

/// Looks at the clock twice a second. When heartbeats were sent, and when it was closed, in half seconds.
fn silence(peer: &mut Peer<()>, start: Instant, mut each: impl FnMut(Instant)) -> (Vec<u32>, Option<u32>) {
    let options = NetLoopOptions::default();
    let mut sent = Vec::new();
    for half in 1..240 {
        let now = start + Duration::from_millis(500) * half;
        each(now);
        match peer.check(now, &options) {
            Due::Heartbeat(_) => sent.push(half),
            Due::Close(_) => return (sent, Some(half)),
            Due::Nothing => {}
        }
        assert!(peer.deadline(now, &options) > now, "it would be looked at without pause");
    }
    (sent, None)
}

#[test]
fn a_link_with_unanswered_requests_is_given_up_in_seconds() {
    let now = Instant::now();
    let (mut peer, _link) = outbound(true, 1, now);
    assert_eq!(silence(&mut peer, now, |_| ()), (vec![2, 4, 6], Some(8)));
}

#[test]
fn an_idle_link_is_asked_seldom_until_it_does_not_answer() {
    let now = Instant::now();
    let (mut peer, _link) = outbound(true, 0, now);
    assert_eq!(silence(&mut peer, now, |_| ()), (vec![30, 32, 34], Some(36)));
}

#[test]
fn requests_that_come_later_are_noticed() {
    let (options, now) = (NetLoopOptions::default(), Instant::now());
    let (peer, _link) = outbound(true, 0, now);
    // Nobody tells the loop of them, so it looks by itself.
    assert_eq!(peer.deadline(now, &options), now + options.silence_probe);
}

#[test]
fn silence_closes_no_link_to_a_java_node() {
    let now = Instant::now();
    let (mut peer, _link) = outbound(false, 5, now);
    let (sent, closed) = silence(&mut peer, now, |_| ());
    assert_eq!((&sent[..2], closed), (&[30, 60][..], None));
}

#[test]
fn a_link_that_is_held_up_has_more_time() {
    let now = Instant::now();
    let (mut peer, link) = outbound(true, 1, now);
    let other = link.remote.clone();
    let (sent, closed) = silence(&mut peer, now, |now| other.answers(now));
    assert!(sent.len() > 10);
    assert_eq!(closed, Some(30), "but not for ever");
    let (mut peer, link) = outbound(true, 1, now);
    let end = now + Duration::from_secs(6);
    let (_, closed) = silence(&mut peer, now, |now| {
        if now <= end {
            link.remote.answers(now);
        }
    });
    assert_eq!(closed, Some(18), "three time-outs after the other link fell silent, too");
}

#[test]
fn whatever_comes_is_a_sign_of_life() {
    let now = Instant::now();
    let (mut peer, _link) = outbound(true, 1, now);
    let options = NetLoopOptions::default();
    for second in 1..100 {
        let now = now + Duration::from_secs(second);
        assert!(!matches!(peer.check(now, &options), Due::Close(_)));
        peer.received(&bytes(&ringraft_proto::encode_heartbeat_ack(1)), now);
        assert!(peer.next_frame(now).unwrap().is_some());
    }
}
