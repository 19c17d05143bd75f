//! Who sends faster than the other side takes: outboxes and consumers that are full.

use super::*;

pub(super) fn a_full_outbox_refuses_and_recovers<W: World>() {
    let world = W::new();
    let options = NetLoopOptions { max_outbound_bytes: 64 << 10, ..quick() };
    let (mut client, mut server, link) = linked(&world, options);
    let mut sent = 0;
    // Nothing is flushed: this fills the outbox alone.
    loop {
        match client.send(link, sent, pattern(sent, 1000)) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error, SendError::Full(server.endpoint.clone()));
                break;
            }
        }
    }
    assert!((50..70).contains(&sent), "{sent}");
    assert_eq!(client.metric("outbox_full"), 1);
    // Flushed but unread: the socket's buffers fill too, then the outbox again.
    for _ in 0..100_000 {
        client.transport.flush(link);
        match client.send(link, sent, pattern(sent, 1000)) {
            Ok(()) => sent += 1,
            Err(_) => break,
        }
    }
    assert!(client.metric("outbox_full") >= 2, "{sent} frames and still room");
    drive(&mut [&mut client, &mut server], "all that was taken arrives", |hosts| {
        hosts[1].seen.requests.len() as u64 == sent
    });
    for (ticket, (_, frame)) in server.seen.requests.iter().enumerate() {
        assert_eq!(frame.content, pattern(ticket as u64, 1000));
    }
    client.send(link, sent, Bytes::new()).unwrap();
    assert!(client.seen.failed.is_empty());
    // What was refused is not waited for.
    client.event_loop.shutdown(&mut client.seen);
    assert_eq!(client.seen.failed.len() as u64, sent + 1);
}

pub(super) fn too_many_requests_in_flight_are_refused<W: World>() {
    let world = W::new();
    let options = NetLoopOptions { max_inflight_requests: 10, ..quick() };
    let (mut client, mut server, link) = linked(&world, options);
    for ticket in 0..10 {
        client.send(link, ticket, Bytes::new()).unwrap();
    }
    assert_eq!(client.send(link, 10, Bytes::new()), Err(SendError::Full(server.endpoint.clone())));
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the requests arrive", |hosts| hosts[1].seen.requests.len() == 10);
    let handle = server.seen.requests[4].0;
    server.reply(handle, Bytes::new()).unwrap();
    server.transport.flush_reply(handle);
    drive(&mut [&mut client, &mut server], "an answer arrives", |hosts| hosts[0].tickets() == [4]);
    client.send(link, 10, Bytes::new()).unwrap();
    assert!(client.send(link, 11, Bytes::new()).is_err());
}

pub(super) fn unread_answers_close_the_connection_when_the_outbox_is_full<W: World>() {
    let world = W::new();
    let options = NetLoopOptions { max_outbound_frames: 5, ..quick() };
    let (mut client, mut server, link) = linked(&world, options);
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the request arrives", |hosts| hosts[1].seen.requests.len() == 1);
    let handle = server.seen.requests[0].0;
    for _ in 0..5 {
        server.reply(handle, Bytes::new()).unwrap();
    }
    assert!(matches!(server.reply(handle, Bytes::new()), Err(SendError::Full(_))));
    assert_eq!(server.reply(handle, Bytes::new()), Err(SendError::Closed));
    drive(&mut [&mut client, &mut server], "the request fails", |hosts| hosts[0].seen.failed.len() == 1);
}

pub(super) fn a_busy_consumer_gets_everything_later_in_order<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    server.seen.room = Some(3);
    for ticket in 0..200 {
        client.send(link, ticket, pattern(ticket, 2000)).unwrap();
    }
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the consumer is full", |hosts| hosts[1].metric("busy") > 5);
    assert_eq!(server.seen.requests.len(), 3);
    let report = server.event_loop.turn(Some(Duration::ZERO), &mut server.seen).unwrap();
    assert_eq!((report.busy, report.delivered), (1, 0));
    for round in 1..20 {
        server.seen.room = Some(10);
        drive(&mut [&mut client, &mut server], "ten more", |hosts| {
            hosts[1].seen.requests.len() == 3 + round * 10
        });
    }
    server.seen.room = None;
    drive(&mut [&mut client, &mut server], "the rest", |hosts| hosts[1].seen.requests.len() == 200);
    for (ticket, (_, frame)) in server.seen.requests.iter().enumerate() {
        assert_eq!(frame.content, pattern(ticket as u64, 2000));
    }
}

pub(super) fn a_busy_consumer_is_not_asked_without_pause<W: World>() {
    let pause = Duration::from_millis(5);
    let options = NetLoopOptions { busy_retry: pause, ..quick() };
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, options);
    server.seen.room = Some(0);
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the consumer is busy", |hosts| hosts[1].metric("busy") > 0);
    let (start, before) = (Instant::now(), server.metric("busy"));
    for _ in 0..10 {
        server.event_loop.turn(None, &mut server.seen).unwrap();
    }
    assert_eq!(server.metric("busy"), before + 10);
    // Ten pauses; half of them would be enough to show that it waits.
    assert!(start.elapsed() > pause * 5);
    // A turn for any other reason offers at once.
    server.seen.room = None;
    server.event_loop.waker().wake();
    server.event_loop.turn(None, &mut server.seen).unwrap();
    assert_eq!(server.seen.requests.len(), 1);
}

pub(super) fn what_a_consumer_wants_later_comes_in_the_next_turn_in_order<W: World>() {
    let world = W::new();
    // No pause between turns would ever be over.
    let (mut client, mut server, link) =
        linked(&world, NetLoopOptions { busy_retry: Duration::from_secs(3600), ..quick() });
    server.seen.share = Some(7);
    for ticket in 0..100 {
        client.send(link, ticket, pattern(ticket, 3000)).unwrap();
    }
    client.transport.flush(link);
    let mut most = 0;
    drive(&mut [&mut client, &mut server], "all arrive", |hosts| {
        let before = hosts[1].seen.requests.len();
        hosts[1].event_loop.turn(None, &mut hosts[1].seen).unwrap();
        most = most.max(hosts[1].seen.requests.len() - before);
        hosts[1].seen.requests.len() == 100
    });
    assert!(most <= 7, "{most} in one turn");
    for (ticket, (_, frame)) in server.seen.requests.iter().enumerate() {
        assert_eq!(frame.content, pattern(ticket as u64, 3000));
    }
}

/// Shows rule R4.
pub(super) fn a_busy_consumer_does_not_stop_other_connections<W: World>() {
    let world = W::new();
    let (mut first, mut server, link) = linked(&world, quick());
    server.seen.room = Some(0);
    first.send(link, 1, Bytes::new()).unwrap();
    first.transport.flush(link);
    drive(&mut [&mut first, &mut server], "the consumer is busy", |hosts| hosts[1].metric("busy") > 0);
    // The server's own request gets its answer although its inbound side stands still.
    let back = server.transport.link(&first.endpoint, ConnectionClass::Control);
    drive(&mut [&mut first, &mut server], "the link back comes up", |hosts| {
        hosts[1].seen.connected.len() == 1
    });
    server.send(back, 7, Bytes::new()).unwrap();
    server.transport.flush(back);
    drive(&mut [&mut first, &mut server], "the request arrives", |hosts| hosts[0].seen.requests.len() == 1);
    let handle = first.seen.requests[0].0;
    first.reply(handle, Bytes::new()).unwrap();
    first.transport.flush_reply(handle);
    drive(&mut [&mut first, &mut server], "the answer arrives", |hosts| hosts[1].tickets() == [7]);
}
