//! Strangers: sockets that say whatever a test wants.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::*;

/// A connection that the host may not have seen yet.
pub(crate) fn raw(host: &Host) -> TcpStream {
    let stream = TcpStream::connect(&*host.endpoint.0).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection that the host has seen.
pub(crate) fn joined(host: &mut Host) -> TcpStream {
    let before = host.metric("accepted");
    let stream = raw(host);
    drive(&mut [host], "the connection is accepted", |hosts| hosts[0].metric("accepted") == before + 1);
    stream
}

/// Drives the host until the other end is closed. Returns what came before.
pub(crate) fn until_closed(host: &mut Host, stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    stream.set_nonblocking(true).unwrap();
    drive(&mut [host], "the connection is closed", |_| {
        loop {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(n) => seen.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
    });
    seen
}

/// Drives the host until so many bytes came.
pub(crate) fn receive(host: &mut Host, stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    stream.set_nonblocking(true).unwrap();
    drive(&mut [host], "bytes arrive", |_| {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => panic!("closed after {} of {len} bytes", seen.len()),
            Ok(n) => seen.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        seen.len() >= len
    });
    stream.set_nonblocking(false).unwrap();
    assert_eq!(seen.len(), len);
    seen
}

/// Whether the other end is open, as far as this end knows; what it sent is thrown away.
pub(crate) fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let open = loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    stream.set_nonblocking(false).unwrap();
    open
}

/// Sends as much as the socket takes at once; says how much.
pub(crate) fn send_some(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

/// Sends a request and drives the host until it has come. Returns its handle.
pub(crate) fn asked(host: &mut Host, stream: &mut TcpStream, id: u32) -> ReplyHandle {
    let before = host.seen.requests.len();
    stream.write_all(&bytes_of(&request(id, Bytes::new()))).unwrap();
    drive(&mut [host], "the request arrives", |hosts| hosts[0].seen.requests.len() == before + 1);
    host.seen.requests[before].0
}

/// Answers a request and drives the host until the answer is here.
pub(crate) fn answered(host: &mut Host, stream: &mut TcpStream, handle: ReplyHandle) {
    let expected = bytes_of(&response(handle, Bytes::new()));
    host.reply(handle, Bytes::new()).unwrap();
    host.transport.flush_reply(handle);
    assert_eq!(receive(host, stream, expected.len()), expected);
}
