//! What comes from a socket is trusted for nothing.

#[path = "../harness/mod.rs"]
mod harness;
mod memory;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use harness::raw::*;
use harness::*;
use ringraft_net::tcp::{ListenError, NetLoop};
use ringraft_net::{ConnectionClass, Endpoint, EventLoop, NetLoopOptions, Transport};
use ringraft_proto::{FrameLimits, ResponseStatus, encode_heartbeat, encode_heartbeat_ack, encode_response};

/// A request with whatever lengths.
fn head(class_len: u16, header_len: u16, content_len: u32) -> Vec<u8> {
    let mut head = vec![1, 1, 0, 1, 1, 0, 0, 0, 9, 1, 0, 0, 0x13, 0x88];
    head.extend_from_slice(&class_len.to_be_bytes());
    head.extend_from_slice(&header_len.to_be_bytes());
    head.extend_from_slice(&content_len.to_be_bytes());
    head
}

fn one_way(id: u32, content: Bytes) -> Vec<u8> {
    let mut bytes = bytes_of(&request(id, content));
    bytes[1] = 2;
    bytes
}

#[test]
fn frames_split_at_every_byte_are_whole() {
    let mut host = Tcp::new().host(quick());
    let mut stream = joined(&mut host);
    let mut bytes = bytes_of(&request(1, pattern(1, 50)));
    bytes.extend(bytes_of(&encode_heartbeat(2)));
    bytes.extend(bytes_of(&request(3, pattern(3, 20))));
    for (n, byte) in bytes.iter().enumerate() {
        stream.write_all(&[*byte]).unwrap();
        drive(&mut [&mut host], "the byte arrives", |hosts| hosts[0].metric("bytes_in") == n as u64 + 1);
    }
    let contents: Vec<_> = host.seen.requests.iter().map(|(_, frame)| frame.content.clone()).collect();
    assert_eq!(contents, [pattern(1, 50), pattern(3, 20)]);
    assert_eq!(receive(&mut host, &mut stream, 20), bytes_of(&encode_heartbeat_ack(2)));
}

#[test]
fn two_pieces_at_every_place_are_whole() {
    let mut host = Tcp::new().host(quick());
    let mut stream = joined(&mut host);
    let bytes = bytes_of(&request(1, pattern(1, 30)));
    let mut sent = 0;
    for at in 1..bytes.len() {
        for piece in [&bytes[..at], &bytes[at..]] {
            stream.write_all(piece).unwrap();
            sent += piece.len() as u64;
            drive(&mut [&mut host], "the piece arrives", |hosts| hosts[0].metric("bytes_in") == sent);
        }
        assert_eq!(host.seen.requests.len(), at);
    }
    assert!(host.seen.requests.iter().all(|(_, frame)| frame.content == pattern(1, 30)));
}

#[test]
fn merged_frames_are_told_apart() {
    let mut host = Tcp::new().host(quick());
    let mut stream = joined(&mut host);
    let bytes: Vec<u8> = (0..1000).flat_map(|id| bytes_of(&request(id, pattern(id.into(), 40)))).collect();
    stream.write_all(&bytes).unwrap();
    drive(&mut [&mut host], "all arrive", |hosts| hosts[0].seen.requests.len() == 1000);
    for (id, (handle, frame)) in host.seen.requests.iter().enumerate() {
        assert_eq!((handle.request, frame.id), (id as u32, id as u32));
        assert_eq!(frame.content, pattern(id as u64, 40));
    }
}

#[test]
fn a_truncated_frame_ends_with_its_connection() {
    let mut host = Tcp::new().host(quick());
    let bytes = bytes_of(&request(1, pattern(1, 30)));
    for len in [1, 15, 21, 22, 30, bytes.len() - 1] {
        let mut stream = joined(&mut host);
        stream.write_all(&bytes[..len]).unwrap();
        drop(stream);
        drive(&mut [&mut host], "it closes", |hosts| hosts[0].metric("inbound_connections") == 0);
    }
    assert!(host.seen.requests.is_empty());
    assert_eq!(host.metric("malformed_frames"), 0);
}

#[test]
fn lengths_beyond_the_limits_close_at_once() {
    let limits = FrameLimits { content: 100_000, ..FrameLimits::default() };
    let mut host = Tcp::new().host(NetLoopOptions { frame_limits: limits, ..quick() });
    let mut good = joined(&mut host);
    let hostile = [
        head(5, 0, 100_001),
        head(5, 0, i32::MAX as u32),
        head(5, 0, 0x8000_0000),
        head(5, 0, u32::MAX),
        head(257, 0, 0),
        head(0xffff, 0, 0),
        head(5, 0x8000, 0),
        head(5, 0xffff, 0xffff_ffff),
    ];
    for (n, bytes) in hostile.iter().enumerate() {
        let mut stream = joined(&mut host);
        stream.write_all(bytes).unwrap();
        assert!(until_closed(&mut host, &mut stream).is_empty());
        assert_eq!(host.metric("malformed_frames"), n as u64 + 1, "{bytes:?}");
    }
    // Only the offender pays.
    good.write_all(&bytes_of(&request(1, pattern(1, 100_000)))).unwrap();
    drive(&mut [&mut host], "a good frame arrives", |hosts| hosts[0].seen.requests.len() == 1);
}

/// Shows rule X5.
#[test]
fn garbage_closes_its_connection_only() {
    let mut host = Tcp::new().host(quick());
    let mut good = joined(&mut host);
    let mut hostile: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        vec![0],
        vec![0xff; 100],
    ];
    let valid = bytes_of(&request(1, pattern(1, 30)));
    for (at, value) in [(0, 13), (1, 3), (2, 9), (3, 9)] {
        let mut bytes = valid.clone();
        bytes[at] = value;
        hostile.push(bytes);
    }
    // A good frame first, so that what follows is in the middle of a conversation.
    hostile.push([&valid[..], b"rubbish"].concat());
    for bytes in &hostile {
        let mut stream = joined(&mut host);
        stream.write_all(bytes).unwrap();
        assert!(until_closed(&mut host, &mut stream).is_empty());
    }
    assert_eq!(host.metric("malformed_frames"), hostile.len() as u64);
    assert_eq!(host.seen.requests.len(), 1);
    good.write_all(&valid).unwrap();
    drive(&mut [&mut host], "a good frame arrives", |hosts| hosts[0].seen.requests.len() == 2);
}

#[test]
fn random_bytes_never_harm() {
    let mut host = Tcp::new().host(quick());
    for seed in 0..200 {
        let mut stream = joined(&mut host);
        let mut bytes = pattern(seed, 1 + seed as usize * 7);
        if seed % 2 == 0 {
            // Past the first checks.
            bytes = [&[1, 1, 0, 1, 1][..], &bytes].concat().into();
        }
        // The host may close before all is written.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        until_closed(&mut host, &mut stream);
    }
    assert_eq!(host.metric("inbound_connections"), 0);
}

#[test]
fn a_frame_and_the_end_in_one_event_are_both_seen() {
    let options = NetLoopOptions { inbound_idle_limit: PATIENCE * 2, ..quick() };
    let mut host = Tcp::new().host(options);
    // All of it is there before the first turn.
    let mut stream = raw(&host);
    stream.write_all(&bytes_of(&request(1, Bytes::new()))).unwrap();
    drop(stream);
    drive(&mut [&mut host], "the connection is closed", |hosts| hosts[0].metric("closed") == 1);
    assert_eq!(host.seen.requests.len(), 1);
}

#[test]
fn silent_and_stuck_newcomers_are_closed() {
    let options = NetLoopOptions {
        first_frame_deadline: Duration::from_millis(20),
        heartbeat_interval: Duration::from_millis(20),
        heartbeat_ack_timeout: Duration::from_millis(20),
        ..quick()
    };
    let mut host = Tcp::new().host(options.clone());
    let mut silent = joined(&mut host);
    until_closed(&mut host, &mut silent);
    // Once it has begun, it must go on.
    let mut host = Tcp::new().host(NetLoopOptions { heartbeat_interval: PATIENCE * 2, ..options });
    let mut stuck = joined(&mut host);
    stuck.write_all(&bytes_of(&request(1, pattern(1, 30)))[..40]).unwrap();
    until_closed(&mut host, &mut stuck);
    assert!(host.seen.requests.is_empty());
}

#[test]
fn a_frame_that_trickles_is_closed() {
    let options = NetLoopOptions { partial_frame_window: Duration::from_millis(20), ..quick() };
    let mut host = Tcp::new().host(options);
    let mut stream = joined(&mut host);
    let frame = bytes_of(&request(1, pattern(1, 30)));
    stream.write_all(&frame).unwrap();
    drive(&mut [&mut host], "a whole frame arrives", |hosts| hosts[0].seen.requests.len() == 1);
    stream.write_all(&frame[..10]).unwrap();
    until_closed(&mut host, &mut stream);
}

#[test]
fn idle_connections_are_closed() {
    let options = NetLoopOptions {
        inbound_idle_limit: Duration::from_millis(20),
        heartbeat_interval: Duration::from_millis(20),
        heartbeat_ack_timeout: Duration::from_millis(20),
        ..quick()
    };
    let mut host = Tcp::new().host(options);
    let mut stream = joined(&mut host);
    stream.write_all(&bytes_of(&request(1, Bytes::new()))).unwrap();
    until_closed(&mut host, &mut stream);
    assert_eq!(host.seen.requests.len(), 1);
}

#[test]
fn one_way_requests_get_no_answer() {
    let mut host = Tcp::new().host(quick());
    let mut stream = joined(&mut host);
    stream.write_all(&one_way(7, pattern(7, 5))).unwrap();
    stream.write_all(&bytes_of(&request(8, pattern(8, 5)))).unwrap();
    drive(&mut [&mut host], "both arrive", |hosts| hosts[0].seen.requests.len() == 2);
    assert!(host.seen.requests[0].1.one_way);
    let expected = bytes_of(&response(host.seen.requests[1].0, pattern(9, 5)));
    for n in 0..2 {
        let handle = host.seen.requests[n].0;
        host.reply(handle, pattern(9, 5)).unwrap();
        host.transport.flush_reply(handle);
    }
    assert_eq!(receive(&mut host, &mut stream, expected.len()), expected);
}

#[test]
fn answers_on_an_inbound_connection_are_dropped() {
    let mut host = Tcp::new().host(quick());
    let mut stream = joined(&mut host);
    let stray = encode_response(5, 1, ResponseStatus::Success, CLASS, b"x");
    stream.write_all(&bytes_of(&stray)).unwrap();
    stream.write_all(&bytes_of(&encode_heartbeat_ack(5))).unwrap();
    stream.write_all(&bytes_of(&request(1, Bytes::new()))).unwrap();
    drive(&mut [&mut host], "the request arrives", |hosts| hosts[0].seen.requests.len() == 1);
    assert_eq!(host.metric("unexpected_frames"), 2);
}

#[test]
fn garbage_as_an_answer_fails_the_request_and_reconnects() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut host = Tcp::new().host(quick());
    let endpoint = Endpoint(listener.local_addr().unwrap().to_string().into());
    let link = host.transport.link(&endpoint, ConnectionClass::Control);
    for round in 1..4 {
        drive(&mut [&mut host], "the link comes up", |hosts| hosts[0].seen.connected.len() == round);
        host.send(link, round as u64, pattern(1, 10)).unwrap();
        host.transport.flush(link);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        drive(&mut [&mut host], "the request fails", |hosts| hosts[0].seen.failed.len() == round);
        let (context, reason) = host.seen.failed.last().unwrap();
        assert_eq!(context.ticket, round as u64);
        assert!(reason.contains("malformed"), "{reason}");
    }
}

#[test]
fn requests_on_a_link_are_not_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut host = Tcp::new().host(quick());
    let endpoint = Endpoint(listener.local_addr().unwrap().to_string().into());
    host.transport.link(&endpoint, ConnectionClass::Control);
    drive(&mut [&mut host], "the link comes up", |hosts| hosts[0].seen.connected.len() == 1);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(&bytes_of(&request(1, Bytes::new()))).unwrap();
    drive(&mut [&mut host], "it is dropped", |hosts| hosts[0].metric("unexpected_frames") == 1);
    assert!(host.seen.requests.is_empty());
}

#[test]
fn a_port_in_use_is_named() {
    let host = Tcp::new().host(quick());
    let (mut event_loop, _transport) = NetLoop::new(quick()).unwrap();
    let address = host.endpoint.0.parse().unwrap();
    let error = event_loop.listen(address).unwrap_err();
    assert!(matches!(error, ListenError::InUse(at) if at == address), "{error:?}");
    assert!(error.to_string().contains(&*host.endpoint.0), "{error}");
    // Not an address of this machine.
    let error = event_loop.listen("192.0.2.1:7000".parse().unwrap()).unwrap_err();
    assert!(matches!(error, ListenError::Io { .. }), "{error:?}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let error = NetLoop::new(NetLoopOptions { read_buffer_bytes: 0, ..quick() }).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("read_buffer_bytes"), "{error}");
}

#[test]
fn names_are_resolved() {
    let mut server = Tcp::new().host(quick());
    let mut client = Tcp::new().host(quick());
    let port = server.endpoint.0.rsplit(':').next().unwrap().to_owned();
    let link = client.transport.link(&Endpoint(format!("localhost:{port}").into()), ConnectionClass::Log);
    drive(&mut [&mut client, &mut server], "the link comes up", |hosts| hosts[0].seen.connected.len() == 1);
    assert_eq!(client.seen.connected[0].0, link);
}

#[test]
fn names_without_an_address_are_tried_again() {
    let mut client = Tcp::new().host(quick());
    client.transport.link(&Endpoint("no port".into()), ConnectionClass::Log);
    drive(&mut [&mut client], "attempts fail", |hosts| hosts[0].metric("connect_failures") >= 3);
}

#[test]
fn a_turn_gives_each_connection_its_share() {
    let options = NetLoopOptions { read_budget_frames: 10, ..quick() };
    let mut host = Tcp::new().host(options);
    let mut streams: Vec<TcpStream> = (0..3).map(|_| joined(&mut host)).collect();
    for (n, stream) in streams.iter_mut().enumerate() {
        let count = if n == 0 { 95 } else { 10 };
        let bytes: Vec<u8> = (0..count).flat_map(|id| bytes_of(&request(id, Bytes::new()))).collect();
        stream.write_all(&bytes).unwrap();
    }
    let mut turns = 0;
    while host.seen.requests.len() < 115 {
        let before = host.seen.requests.len();
        let report = host.event_loop.turn(Some(PATIENCE), &mut host.seen).unwrap();
        let new = &host.seen.requests[before..];
        assert_eq!(report.delivered, new.len());
        for connection in 0..3 {
            assert!(new.iter().filter(|(handle, _)| handle.connection == connection).count() <= 10);
        }
        turns += 1;
    }
    assert!(turns >= 10, "{turns}");
}

#[test]
fn a_turn_offers_only_some_of_what_was_handed_back() {
    let mut host = Tcp::new().host(NetLoopOptions { max_connections_per_address: 4096, ..quick() });
    host.seen.room = Some(0);
    let mut streams: Vec<TcpStream> = Vec::new();
    for n in 0..400 {
        let mut stream = joined(&mut host);
        stream.write_all(&bytes_of(&request(n, Bytes::new()))).unwrap();
        streams.push(stream);
    }
    let stand_still = |host: &mut Host| {
        host.event_loop.turn(Some(Duration::from_millis(1)), &mut host.seen).unwrap().busy == 400
    };
    drive(&mut [&mut host], "all stand still", |hosts| stand_still(hosts[0]));
    let before = host.metric("busy");
    host.turn(Duration::ZERO);
    assert!(host.metric("busy") - before <= 256, "a turn offers everything again");
    // And yet everybody has his turn.
    host.seen.room = None;
    drive(&mut [&mut host], "all are served", |hosts| hosts[0].seen.requests.len() == 400);
}

#[test]
fn a_loop_runs_on_its_own_thread() {
    let mut server = Tcp::new().host(quick());
    let (event_loop, transport) = NetLoop::new(quick()).unwrap();
    let waker = event_loop.waker();
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut seen = Recorder::default();
            event_loop.run(&mut seen, &stop).unwrap();
            seen
        });
        // The link is made while the loop sleeps without a limit.
        let link = transport.link(&server.endpoint, ConnectionClass::Bulk);
        drive(&mut [&mut server], "the link comes up", |_| {
            transport.request(link, context(1), &mut |id| request(id, Bytes::new())).is_ok()
        });
        transport.flush(link);
        drive(&mut [&mut server], "the request arrives", |hosts| hosts[0].seen.requests.len() == 1);
        stop.store(true, Ordering::Release);
        waker.wake();
        thread.join().unwrap()
    });
    assert_eq!(seen.connected.len(), 1);
    assert_eq!(seen.failed.len(), 1);
}
