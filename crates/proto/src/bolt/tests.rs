//! The decoder against frames captured from Java nodes, at every split, and against garbage.

use bytes::{BufMut, Bytes, BytesMut};
use ringraft_core::{RaftError, Status};

use super::*;
use crate::class;
use crate::frame::{Frame, OutFrame, RequestFrame, ResponseFrame, ResponseStatus};

/// Bytes of a hex text; blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn flat(frame: &OutFrame) -> Vec<u8> {
    frame.parts.concat()
}

fn decode_all(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut buf = BytesMut::from(bytes);
    let mut decoder = FrameDecoder::new(FrameLimits::default());
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(&mut buf)? {
        frames.push(frame);
    }
    assert!(buf.is_empty(), "{} bytes are left", buf.len());
    Ok(frames)
}

fn first(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    FrameDecoder::new(FrameLimits::default()).decode(&mut BytesMut::from(bytes))
}

const PING_ID: u32 = 1;

/// A captured ping, its answer, a Bolt heartbeat and its answer.
fn captured() -> Vec<(Vec<u8>, Frame)> {
    let mut ping = hex("0101000101 00000001 01 000003e8 0031 0000 00000007");
    ping.extend_from_slice(class::PING_REQUEST.as_bytes());
    ping.extend_from_slice(&hex("08 eea3d285a034"));
    let mut pong = hex("01 00 0002 01 00000001 01 0000 0033 0000 00000006");
    pong.extend_from_slice(class::ERROR_RESPONSE.as_bytes());
    pong.extend_from_slice(&hex("0800 1202 4f4b"));
    let append = hex(
        "0101000101000000320100001388003a00270000003e636f6d2e616c697061792e736f66612e6a726166742e7270632e527063\
         526571756573747324417070656e64456e7472696573526571756573740a03677270120f3132372e302e302e313a3238303832\
         1a0f3132372e302e302e313a32383038310a03677270120f3132372e302e302e313a32383038321a0f3132372e302e302e313a\
         32383038312001280130013a0608011002200540014a0568656c6c6f",
    );
    let header = append[22 + 0x3a..22 + 0x3a + 0x27].to_vec();
    let content = append[22 + 0x3a + 0x27..].to_vec();
    vec![
        (
            ping,
            Frame::Request(RequestFrame {
                id: PING_ID,
                one_way: false,
                codec: 1,
                timeout_ms: 1000,
                class: Bytes::from_static(class::PING_REQUEST.as_bytes()),
                header: Bytes::new(),
                content: hex("08 eea3d285a034").into(),
            }),
        ),
        (
            pong,
            Frame::Response(ResponseFrame {
                id: PING_ID,
                status: ResponseStatus::Success,
                class: Bytes::from_static(class::ERROR_RESPONSE.as_bytes()),
                content: hex("0800 1202 4f4b").into(),
            }),
        ),
        (
            append,
            Frame::Request(RequestFrame {
                id: 0x32,
                one_way: false,
                codec: 1,
                timeout_ms: 5000,
                class: Bytes::from_static(class::APPEND_ENTRIES_REQUEST.as_bytes()),
                header: header.into(),
                content: content.into(),
            }),
        ),
        (hex("0101000001 00000206 01 ffffffff 0000 0000 00000000"), Frame::Heartbeat { id: 0x206 }),
        (hex("0100000001 00000206 01 0000 0000 0000 00000000"), Frame::HeartbeatAck { id: 0x206 }),
    ]
}

#[test]
fn captured_frames_decode() {
    for (bytes, frame) in captured() {
        assert_eq!(decode_all(&bytes).unwrap(), [frame]);
    }
}

#[test]
fn frames_are_encoded_as_java_does() {
    let [ping, pong, append, heartbeat, ack] = captured().try_into().unwrap();
    let content = hex("08 eea3d285a034");
    assert_eq!(flat(&encode_request(1, class::PING_REQUEST, 1000, b"", &content)), ping.0);
    assert_eq!(flat(&encode_error_response(1, 1, None)), pong.0);
    let Frame::Request(request) = append.1 else { unreachable!() };
    let again = encode_request(0x32, class::APPEND_ENTRIES_REQUEST, 5000, &request.header, &request.content);
    assert_eq!(flat(&again), append.0);
    assert_eq!(flat(&encode_heartbeat(0x206)), heartbeat.0);
    assert_eq!(flat(&encode_heartbeat_ack(0x206)), ack.0);
}

#[test]
fn an_error_response_keeps_code_and_message() {
    let error = Status::new(RaftError::NotFound, "Peer id not found: 127.0.0.1:28083, group: grp");
    let bytes = flat(&encode_error_response(9, 1, Some(&error)));
    let mut content = hex("08f407 122e");
    content.extend_from_slice(error.message.as_bytes());
    assert_eq!(bytes[20 + 0x33..], content);
    let unknown = flat(&encode_error_response(9, 1, Some(&Status::new(RaftError::Unknown, ""))));
    assert_eq!(unknown[20 + 0x33..], hex("08ffffffffffffffffff01 1200"));
}

#[test]
fn every_split_of_a_stream_gives_the_same_frames() {
    let stream: Vec<u8> = captured().into_iter().flat_map(|(bytes, _)| bytes).collect();
    let frames: Vec<Frame> = captured().into_iter().map(|(_, frame)| frame).collect();
    for split in 0..=stream.len() {
        let mut decoder = FrameDecoder::new(FrameLimits::default());
        let mut buf = BytesMut::new();
        let mut got = Vec::new();
        for part in [&stream[..split], &stream[split..]] {
            buf.put_slice(part);
            while let Some(frame) = decoder.decode(&mut buf).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, frames, "split at {split}");
    }
    for step in [1, 2, 3, 7, 19, 23] {
        let mut decoder = FrameDecoder::new(FrameLimits::default());
        let mut buf = BytesMut::new();
        let mut got = Vec::new();
        for part in stream.chunks(step) {
            buf.put_slice(part);
            got.extend(decoder.decode(&mut buf).unwrap());
        }
        while let Some(frame) = decoder.decode(&mut buf).unwrap() {
            got.push(frame);
        }
        assert_eq!(got, frames, "steps of {step}");
    }
}

#[test]
fn version_two_is_read_with_its_checksum() {
    let ping = hex(
        "020201000101000003ee0101000003e80031000000000002636f6d2e616c697061792e736f66612e6a726166742e7270632e527063\
         52657175657374732450696e675265717565737408011548fdc0",
    );
    let pong = hex(
        "020200000201000003ee010100000033000000000006636f6d2e616c697061792e736f66612e6a726166742e7270632e5270635265\
         717565737473244572726f72526573706f6e7365080012024f4bb5597152",
    );
    let mut stream = ping.clone();
    stream.extend_from_slice(&pong);
    let frames = decode_all(&stream).unwrap();
    assert!(
        matches!(&frames[0], Frame::Request(r) if r.id == 0x3ee && r.class == class::PING_REQUEST && r.content == hex("0801"))
    );
    assert!(matches!(&frames[1], Frame::Response(r) if r.id == 0x3ee && r.content == hex("080012024f4b")));

    for at in [9, 30, ping.len() - 1] {
        let mut broken = ping.clone();
        broken[at] ^= 1;
        assert!(matches!(first(&broken), Err(FrameError::Checksum { .. })), "byte {at}");
    }
    // Version 1 has no checksum even with the switch on.
    let mut plain = ping[..ping.len() - 4].to_vec();
    plain[1] = 1;
    assert_eq!(decode_all(&plain).unwrap().len(), 1);
    let heartbeats = hex(
        "02 02 01 0000 01 00000007 01 00 ffffffff 0000 0000 00000000 02 01 00 0000 01 00000007 01 00 0000 0000 0000 00000000",
    );
    let frames = decode_all(&heartbeats).unwrap();
    assert_eq!(frames, [Frame::Heartbeat { id: 7 }, Frame::HeartbeatAck { id: 7 }]);
}

#[test]
fn garbage_is_refused_with_its_reason() {
    assert_eq!(first(b"\x0d"), Err(FrameError::Protocol(13)));
    assert_eq!(first(b"GET / HTTP/1.1\r\n"), Err(FrameError::Protocol(b'G')));
    assert_eq!(first(&[2, 3]), Err(FrameError::Version(3)));
    assert_eq!(first(&[1, 3]), Err(FrameError::Type(3)));
    for (kind, code) in [(1, 9), (1, 2), (0, 1), (2, 0), (0, 0x100)] {
        let bytes = [1, kind, (code >> 8) as u8, code as u8];
        assert_eq!(first(&bytes), Err(FrameError::Command { kind, code }));
    }
    assert_eq!(first(&hex("02 01 01 0001 01 00000001 01 80")), Err(FrameError::Switch(0x80)));
    let status = hex("01 00 0002 01 00000001 01 000a 0000 0000 00000000");
    assert_eq!(first(&status), Err(FrameError::Status(10)));
    let heartbeat = hex("01 01 0000 01 00000206 01 ffffffff 0000 0001 00000002");
    assert_eq!(first(&heartbeat), Err(FrameError::HeartbeatBody(3)));
}

#[test]
fn a_failed_decoder_stays_failed() {
    let mut decoder = FrameDecoder::new(FrameLimits::default());
    let mut buf = BytesMut::from(&b"\x0d"[..]);
    assert!(decoder.decode(&mut buf).is_err());
    let mut good = BytesMut::from(&captured()[0].0[..]);
    assert_eq!(decoder.decode(&mut good), Err(FrameError::Protocol(13)));
}

#[test]
fn lengths_are_judged_before_their_bytes_arrive() {
    let too_large = |lengths: &str| {
        let head = hex(&format!("01 01 0001 01 00000001 01 000003e8 {lengths}"));
        match first(&head) {
            Err(FrameError::TooLarge { part, .. }) => part,
            other => panic!("{lengths}: {other:?}"),
        }
    };
    assert_eq!(too_large("0101 0000 00000000"), "class name");
    assert_eq!(too_large("ffff 0000 00000000"), "class name");
    assert_eq!(too_large("0010 8000 00000000"), "Bolt header");
    assert_eq!(too_large("0010 0000 04000001"), "content");
    assert_eq!(too_large("0010 0000 ffffffff"), "content");
    // A vote has no business being 2 MiB, though entries may be.
    for (class, refused) in [(class::REQUEST_VOTE_REQUEST, true), (class::APPEND_ENTRIES_REQUEST, false)] {
        let mut head = hex("01 01 0001 01 00000001 01 000003e8");
        head.extend_from_slice(&(class.len() as u16).to_be_bytes());
        head.extend_from_slice(&hex("0000 00200000"));
        assert_eq!(first(&head), Ok(None), "the class is not there yet");
        head.extend_from_slice(class.as_bytes());
        assert_eq!(first(&head).is_err(), refused, "{class}");
    }
}

#[test]
fn a_stated_length_gets_no_memory() {
    let mut head = hex("01 01 0001 01 00000001 01 000003e8 0010 0000 03000000");
    head.extend_from_slice(&[b'x'; 16]);
    let mut decoder = FrameDecoder::new(FrameLimits::default());
    let mut buf = BytesMut::from(&head[..]);
    assert_eq!(decoder.reserve_hint(0), 16 << 10);
    assert_eq!(decoder.decode(&mut buf), Ok(None));
    assert_eq!(decoder.reserve_hint(buf.len()), 16 << 10);
    assert_eq!(decoder.reserve_hint(1 << 20), 1 << 20);
    let total = head.len() + 0x0300_0000;
    assert_eq!(decoder.reserve_hint(total - (1 << 20)), 1 << 20, "never more than the frame lacks");
}

#[test]
fn truncated_frames_are_waited_for() {
    for (bytes, _) in captured() {
        for len in 0..bytes.len() {
            assert_eq!(first(&bytes[..len]), Ok(None), "{len} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn large_contents_are_not_copied() {
    let content = Bytes::from(vec![7; INLINE_CONTENT + 1]);
    let request = encode_request_shared(3, "x.Y", 10, b"h", content.clone());
    assert_eq!(request.parts[1].as_ptr(), content.as_ptr());
    assert_eq!(flat(&request), flat(&encode_request(3, "x.Y", 10, b"h", &content)));
    let response = encode_response_shared(3, 1, ResponseStatus::Success, "x.Y", content.clone());
    assert_eq!(response.parts[1].as_ptr(), content.as_ptr());
    assert_eq!(flat(&response), flat(&encode_response(3, 1, ResponseStatus::Success, "x.Y", &content)));
    assert_eq!(encode_request_shared(3, "x.Y", 10, b"h", content.slice(..9)).parts.len(), 1);
}

#[test]
fn a_status_without_body_is_twenty_bytes() {
    let bytes = flat(&encode_status_response(5, 77, ResponseStatus::ServerException));
    assert_eq!(bytes, hex("01 00 0002 01 00000005 4d 0002 0000 0000 00000000"));
}
