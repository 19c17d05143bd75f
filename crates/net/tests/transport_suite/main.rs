//! What every transport must do; the same tests over TCP and in one process.

mod flow;
#[path = "../harness/mod.rs"]
mod harness;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flow::*;
use harness::*;
use ringraft_net::{ConnectionClass, NetLoopOptions, ReplyHandle, SendError};
use ringraft_proto::{OutFrame, ResponseStatus, encode_status_response};

fn requests_and_answers_match_in_any_order<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    for ticket in 0..100 {
        client.send(link, ticket, pattern(ticket, 10 + ticket as usize)).unwrap();
    }
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "all requests arrive", |hosts| {
        hosts[1].seen.requests.len() == 100
    });
    for (ticket, (_, frame)) in server.seen.requests.iter().enumerate() {
        assert_eq!(frame.content, pattern(ticket as u64, 10 + ticket), "in the order of sending");
        assert_eq!((&frame.class[..], frame.timeout_ms, frame.one_way), (CLASS.as_bytes(), 5000, false));
    }
    let ids: HashSet<u32> = server.seen.requests.iter().map(|(handle, _)| handle.request).collect();
    assert_eq!(ids.len(), 100);
    let handles: Vec<ReplyHandle> = server.seen.requests.iter().map(|(handle, _)| *handle).collect();
    for (ticket, handle) in handles.iter().enumerate().rev() {
        server.reply(*handle, pattern(1000 + ticket as u64, 33)).unwrap();
    }
    server.transport.flush_reply(handles[0]);
    drive(&mut [&mut client, &mut server], "all answers arrive", |hosts| {
        hosts[0].seen.responses.len() == 100
    });
    for (n, (context, frame)) in client.seen.responses.iter().enumerate() {
        let ticket = 99 - n as u64;
        assert_eq!(*context, harness::context(ticket));
        assert_eq!(frame.content, pattern(1000 + ticket, 33));
        assert_eq!(frame.status, ResponseStatus::Success);
    }
    assert!(client.seen.failed.is_empty());
    assert!(client.seen.turn_ends > 0 && server.seen.turn_ends > 0);
}

fn an_error_status_is_an_answer<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the request arrives", |hosts| !hosts[1].seen.requests.is_empty());
    let handle = server.seen.requests[0].0;
    let status = ResponseStatus::ServerThreadpoolBusy;
    server.transport.reply(handle, encode_status_response(handle.request, 1, status)).unwrap();
    server.transport.flush_reply(handle);
    drive(&mut [&mut client, &mut server], "the answer arrives", |hosts| !hosts[0].seen.responses.is_empty());
    assert_eq!(client.seen.responses[0].1.status, status);
}

fn an_answer_nobody_waits_for_is_dropped<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the request arrives", |hosts| !hosts[1].seen.requests.is_empty());
    let handle = server.seen.requests[0].0;
    // Twice, and once for an id that was never given.
    server.reply(handle, pattern(1, 9)).unwrap();
    server.reply(handle, pattern(2, 9)).unwrap();
    server.reply(ReplyHandle { request: handle.request ^ 0x40_0000, ..handle }, pattern(3, 9)).unwrap();
    server.transport.flush_reply(handle);
    drive(&mut [&mut client, &mut server], "the strays arrive", |hosts| {
        hosts[0].metric("unexpected_frames") == 2
    });
    assert_eq!(client.seen.responses.len(), 1);
    assert_eq!(client.seen.responses[0].1.content, pattern(1, 9));
    assert_eq!(client.metric("outbound_connections"), 1);
}

fn a_link_to_nobody_says_so_at_once<W: World>() {
    let world = W::new();
    let mut client = world.host(quick());
    let nobody = world.nobody();
    let link = client.transport.link(&nobody, ConnectionClass::Log);
    let mut encoded = false;
    let result = client.transport.request(link, context(1), &mut |_| {
        encoded = true;
        OutFrame::default()
    });
    assert_eq!(result, Err(SendError::NotConnected(nobody.clone())));
    assert!(!encoded);
    drive(&mut [&mut client], "several attempts fail", |hosts| hosts[0].metric("connect_failures") > 2);
    assert_eq!(client.send(link, 2, Bytes::new()), Err(SendError::NotConnected(nobody.clone())));
    // Whoever appears there later is found.
    let mut server = world.host_at(&nobody, quick());
    drive(&mut [&mut client, &mut server], "the link comes up", |hosts| hosts[0].seen.connected.len() == 1);
    assert_eq!(client.seen.connected[0], (link, nobody, ConnectionClass::Log));
    client.send(link, 3, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the request arrives", |hosts| hosts[1].seen.requests.len() == 1);
    assert!(client.seen.failed.is_empty());
}

fn pending_requests_fail_once_when_the_connection_breaks<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    for ticket in 0..50 {
        client.send(link, ticket, pattern(ticket, 100)).unwrap();
    }
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the requests arrive", |hosts| hosts[1].seen.requests.len() == 50);
    let handles: Vec<ReplyHandle> = server.seen.requests.iter().map(|(handle, _)| *handle).collect();
    for handle in &handles[..20] {
        server.reply(*handle, Bytes::new()).unwrap();
    }
    server.transport.flush_reply(handles[0]);
    drive(&mut [&mut client, &mut server], "20 answers arrive", |hosts| hosts[0].seen.responses.len() == 20);
    // These never leave the outbox.
    for ticket in 50..60 {
        client.send(link, ticket, pattern(ticket, 100)).unwrap();
    }
    let endpoint = server.endpoint.clone();
    drop(server);
    drive(&mut [&mut client], "the others fail", |hosts| hosts[0].seen.failed.len() == 40);
    let mut failed: Vec<u64> = client.seen.failed.iter().map(|(context, _)| context.ticket).collect();
    failed.sort_unstable();
    assert_eq!(failed, (20..60).collect::<Vec<_>>());
    assert!(matches!(client.send(link, 99, Bytes::new()), Err(SendError::NotConnected(_))));

    // A successor under the same name is found again, and old handles mean nothing to it.
    let mut server = world.host_at(&endpoint, quick());
    drive(&mut [&mut client, &mut server], "the link comes up again", |hosts| {
        hosts[0].seen.connected.len() == 2
    });
    assert_eq!(client.metric("reconnects"), 1);
    client.send(link, 100, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "a request arrives", |hosts| hosts[1].seen.requests.len() == 1);
    let handle = server.seen.requests[0].0;
    server.reply(handle, Bytes::new()).unwrap();
    server.transport.flush_reply(handle);
    drive(&mut [&mut client, &mut server], "its answer arrives", |hosts| hosts[0].seen.responses.len() == 21);
    assert_eq!(client.seen.failed.len(), 40);
}

fn a_reply_to_a_connection_that_is_gone_is_refused<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the request arrives", |hosts| hosts[1].seen.requests.len() == 1);
    let old = server.seen.requests[0].0;
    drop(client);
    drive(&mut [&mut server], "the connection ends", |hosts| hosts[0].metric("inbound_connections") == 0);
    assert_eq!(server.reply(old, Bytes::new()), Err(SendError::Closed));
    // The next connection takes the same slot, in another life.
    let mut client = world.host(quick());
    let link = client.transport.link(&server.endpoint, ConnectionClass::Log);
    drive(&mut [&mut client, &mut server], "the link comes up", |hosts| !hosts[0].seen.connected.is_empty());
    client.send(link, 2, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "a request arrives", |hosts| hosts[1].seen.requests.len() == 2);
    let new = server.seen.requests[1].0;
    assert_eq!(new.connection, old.connection);
    assert_eq!(server.reply(old, Bytes::new()), Err(SendError::Closed));
    server.reply(new, Bytes::new()).unwrap();
}

fn classes_do_not_share_a_connection<W: World>() {
    let world = W::new();
    let (mut client, mut server, log) = linked(&world, quick());
    let control = client.transport.link(&server.endpoint, ConnectionClass::Control);
    assert_ne!(log, control);
    assert_eq!(log, client.transport.link(&server.endpoint, ConnectionClass::Log));
    drive(&mut [&mut client, &mut server], "both links are up", |hosts| {
        hosts[0].metric("outbound_connections") == 2 && hosts[1].metric("inbound_connections") == 2
    });
    client.send(log, 1, Bytes::new()).unwrap();
    client.send(control, 2, Bytes::new()).unwrap();
    client.transport.flush(control);
    drive(&mut [&mut client, &mut server], "one request arrives", |hosts| hosts[1].seen.requests.len() == 1);
    client.transport.flush(log);
    drive(&mut [&mut client, &mut server], "the other too", |hosts| hosts[1].seen.requests.len() == 2);
    let handles: Vec<u32> = server.seen.requests.iter().map(|(handle, _)| handle.connection).collect();
    assert_ne!(handles[0], handles[1]);
}

fn large_frames_of_many_parts_arrive_whole<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    let sizes = [5 << 20, 1, 3 << 20, 2047, 2048, 2049, 0, 9 << 20];
    for (ticket, size) in sizes.iter().enumerate() {
        let content = pattern(ticket as u64, *size);
        let mut frame = |id| {
            let mut frame = request(id, content.clone());
            let payload = frame.parts.pop().unwrap();
            // Uneven slices, as the chunks of a log would be.
            let mut rest = payload;
            let mut step = 1;
            while !rest.is_empty() {
                frame.parts.push(rest.split_to(step.min(rest.len())));
                step = step * 3 % 99_991 + 1;
            }
            frame
        };
        client.transport.request(link, context(ticket as u64), &mut frame).unwrap();
        client.transport.flush(link);
    }
    drive(&mut [&mut client, &mut server], "all frames arrive", |hosts| {
        hosts[1].seen.requests.len() == sizes.len()
    });
    for (ticket, size) in sizes.iter().enumerate() {
        assert!(server.seen.requests[ticket].1.content == pattern(ticket as u64, *size), "frame {ticket}");
    }
}

fn any_thread_may_send_and_flush<W: World>() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let transport = client.transport.clone();
            scope.spawn(move || {
                for n in 0..EACH {
                    let ticket = thread * EACH + n;
                    let content = pattern(ticket, 300);
                    transport.request(link, context(ticket), &mut |id| request(id, content.clone())).unwrap();
                    transport.flush(link);
                }
            });
        }
        let total = (THREADS * EACH) as usize;
        let mut answered = 0;
        drive(&mut [&mut client, &mut server], "every request is answered", |hosts| {
            let server = &mut hosts[1];
            let handles: Vec<_> =
                server.seen.requests[answered..].iter().map(|(handle, _)| *handle).collect();
            answered += handles.len();
            let transport = server.transport.clone();
            // Answers leave from another thread than the loop's.
            scope.spawn(move || {
                for handle in handles {
                    transport.reply(handle, response(handle, Bytes::new())).unwrap();
                    transport.flush_reply(handle);
                }
            });
            hosts[0].seen.responses.len() == total
        });
    });
    let tickets: HashSet<u64> = client.tickets().into_iter().collect();
    assert_eq!(tickets.len() as u64, THREADS * EACH);
    // Per sender the order holds.
    let tickets: HashMap<Bytes, u64> =
        (0..THREADS * EACH).map(|ticket| (pattern(ticket, 300), ticket)).collect();
    let mut last = vec![None; THREADS as usize];
    for (_, frame) in &server.seen.requests {
        let ticket = tickets[&frame.content];
        let last = &mut last[(ticket / EACH) as usize];
        assert!(last.is_none_or(|last| last < ticket));
        *last = Some(ticket);
    }
}

fn overdue_requests_fail<W: World>() {
    let world = W::new();
    let options = NetLoopOptions { request_expiry: Duration::from_millis(80), ..quick() };
    let (mut client, mut server, link) = linked(&world, options);
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    drive(&mut [&mut client, &mut server], "the request fails", |hosts| hosts[0].seen.failed.len() == 1);
    assert_eq!(server.seen.requests.len(), 1);
    // Too late: the answer is dropped, the connection lives.
    let handle = server.seen.requests[0].0;
    server.reply(handle, Bytes::new()).unwrap();
    server.transport.flush_reply(handle);
    drive(&mut [&mut client, &mut server], "the late answer arrives", |hosts| {
        hosts[0].metric("unexpected_frames") == 1
    });
    assert!(client.seen.responses.is_empty());
    assert_eq!(client.metric("outbound_connections"), 1);
}

fn idle_links_send_heartbeats_and_live<W: World>() {
    let world = W::new();
    let options = NetLoopOptions {
        heartbeat_interval: Duration::from_millis(5),
        heartbeat_ack_timeout: Duration::from_millis(5),
        ..quick()
    };
    let (mut client, mut server, _) = linked(&world, options);
    drive(&mut [&mut client, &mut server], "heartbeats flow", |hosts| {
        hosts[0].metric("heartbeats_sent") > 20
    });
    drive(&mut [&mut client, &mut server], "they are answered", |hosts| hosts[0].metric("frames_in") > 10);
    assert_eq!(client.metric("closed"), 0);
    assert!(server.seen.requests.is_empty());
}

fn a_new_link_proves_itself_at_once<W: World>() {
    let world = W::new();
    let options = NetLoopOptions { first_frame_deadline: Duration::from_millis(1), ..quick() };
    let (mut client, mut server, _) = linked(&world, options);
    drive(&mut [&mut client, &mut server], "a heartbeat and its answer", |hosts| {
        hosts[1].metric("frames_in") == 1 && hosts[0].metric("frames_in") == 1
    });
    assert_eq!(client.metric("heartbeats_sent"), 1);
}

fn shutdown_fails_what_waits_and_ends_sending<W: World>() {
    let world = W::new();
    let (mut client, mut server, link) = linked(&world, quick());
    client.send(link, 1, Bytes::new()).unwrap();
    client.event_loop.shutdown(&mut client.seen);
    assert_eq!(client.seen.failed.len(), 1);
    assert_eq!(client.send(link, 2, Bytes::new()), Err(SendError::Closed));
    drive(&mut [&mut server], "the server sees the end", |hosts| hosts[0].metric("inbound_connections") == 0);
    let late = client.transport.link(&server.endpoint, ConnectionClass::Bulk);
    for _ in 0..10 {
        client.turn(Duration::ZERO);
        server.turn(Duration::ZERO);
    }
    assert_eq!(client.send(late, 3, Bytes::new()), Err(SendError::Closed));
    assert_eq!((client.seen.failed.len(), client.seen.connected.len()), (1, 1));
    assert_eq!(server.metric("accepted"), 1);
}

fn a_waker_ends_a_wait<W: World>() {
    let world = W::new();
    let mut host = world.host(quick());
    // Before the wait ...
    host.event_loop.waker().wake();
    host.event_loop.turn(None, &mut host.seen).unwrap();
    // ... and during it.
    let woken = Arc::new(AtomicBool::new(false));
    let (flag, waker) = (woken.clone(), host.event_loop.waker());
    let thread = std::thread::spawn(move || {
        flag.store(true, Ordering::Relaxed);
        waker.wake();
    });
    while !woken.load(Ordering::Relaxed) {
        host.event_loop.turn(None, &mut host.seen).unwrap();
    }
    thread.join().unwrap();
}

macro_rules! suite {
    ($($name:ident)*) => {
        mod tcp {
            $(#[test] fn $name() { super::$name::<super::Tcp>(); })*
        }
        mod inproc {
            $(#[test] fn $name() { super::$name::<super::Inproc>(); })*
        }
    };
}

suite! {
    requests_and_answers_match_in_any_order
    an_error_status_is_an_answer
    an_answer_nobody_waits_for_is_dropped
    a_link_to_nobody_says_so_at_once
    pending_requests_fail_once_when_the_connection_breaks
    a_reply_to_a_connection_that_is_gone_is_refused
    a_full_outbox_refuses_and_recovers
    too_many_requests_in_flight_are_refused
    unread_answers_close_the_connection_when_the_outbox_is_full
    a_busy_consumer_gets_everything_later_in_order
    a_busy_consumer_is_not_asked_without_pause
    what_a_consumer_wants_later_comes_in_the_next_turn_in_order
    a_busy_consumer_does_not_stop_other_connections
    classes_do_not_share_a_connection
    large_frames_of_many_parts_arrive_whole
    any_thread_may_send_and_flush
    overdue_requests_fail
    idle_links_send_heartbeats_and_live
    a_new_link_proves_itself_at_once
    shutdown_fails_what_waits_and_ends_sending
    a_waker_ends_a_wait
}

#[test]
fn cuts_break_and_heal() {
    let world = Inproc::new();
    let (mut client, mut server, link) = linked(&world, quick());
    client.send(link, 1, Bytes::new()).unwrap();
    client.transport.flush(link);
    world.network.cut(&server.endpoint, &client.endpoint);
    drive(&mut [&mut client, &mut server], "the request fails", |hosts| hosts[0].seen.failed.len() == 1);
    drive(&mut [&mut client, &mut server], "attempts fail", |hosts| hosts[0].metric("connect_failures") > 2);
    assert_eq!(client.seen.connected.len(), 1);
    // Others are not touched.
    let mut third = world.host(quick());
    let to_third = client.transport.link(&third.endpoint, ConnectionClass::Log);
    drive(&mut [&mut client, &mut third], "a link around the cut", |hosts| {
        hosts[0].seen.connected.len() == 2
    });
    assert_eq!(client.seen.connected[1].0, to_third);
    world.network.heal(&client.endpoint, &server.endpoint);
    drive(&mut [&mut client, &mut server], "the link is back", |hosts| hosts[0].seen.connected.len() == 3);
    assert_eq!(client.seen.connected[2].0, link);
    drop(third);
}

#[test]
fn a_name_can_be_taken_once() {
    let world = Inproc::new();
    let host = world.host(quick());
    let error = world.network.host(&host.endpoint, quick()).unwrap_err();
    assert!(error.to_string().contains(&*host.endpoint.0), "{error}");
    drop(world.host_at(&world.nobody(), quick()));
    let endpoint = host.endpoint.clone();
    drop(host);
    world.network.host(&endpoint, quick()).unwrap();
}
