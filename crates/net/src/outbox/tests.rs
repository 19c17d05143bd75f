use std::sync::atomic::AtomicUsize;

use super::*;

/// Takes `room` bytes, then blocks; at most `step` a call.
struct Trickle {
    out: Mutex<Vec<u8>>,
    room: AtomicUsize,
    step: usize,
    calls: AtomicUsize,
}

impl Trickle {
    fn new(room: usize, step: usize) -> Self {
        Self { out: Mutex::new(Vec::new()), room: AtomicUsize::new(room), step, calls: AtomicUsize::new(0) }
    }
}

impl Socket for Trickle {
    fn read(&self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let room = self.room.load(Ordering::Relaxed).min(self.step);
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut out = self.out.lock();
        let mut n = 0;
        for slice in slices {
            let take = slice.len().min(room - n);
            out.extend_from_slice(&slice[..take]);
            n += take;
        }
        self.room.fetch_sub(n, Ordering::Relaxed);
        Ok(n)
    }

    fn shutdown(&self) {}
}

fn outbox(max_bytes: usize, max_frames: usize) -> Outbox {
    Outbox::new(max_bytes, max_frames, Meter::new(usize::MAX), AtMeter::Refuse)
}

fn frame(parts: &[&[u8]]) -> OutFrame {
    OutFrame { parts: parts.iter().map(|part| Bytes::copy_from_slice(part)).collect() }
}

#[test]
fn partial_writes_keep_order_and_counts() {
    let metrics = NetMetrics::default();
    for step in [1, 7, 100, 2048, 5000, usize::MAX] {
        let outbox = outbox(1 << 20, 100);
        let socket = Trickle::new(usize::MAX, step);
        let mut expected = Vec::new();
        for n in 0..20u8 {
            let small = vec![n; 10 + n as usize];
            let large = vec![100 + n; COALESCE_BELOW + n as usize];
            outbox.push(frame(&[&small, &large, &small])).unwrap();
            outbox.push(frame(&[&small])).unwrap();
            for part in [&small, &large, &small, &small] {
                expected.extend_from_slice(part);
            }
        }
        assert_eq!(outbox.waiting(), expected.len());
        outbox.flush(&socket, &metrics).unwrap();
        assert_eq!(*socket.out.lock(), expected, "step {step}");
        let queue = outbox.queue.lock();
        assert_eq!((queue.bytes, queue.frames, queue.small_frames), (0, 0, 0));
    }
}

#[test]
fn small_frames_leave_in_one_slice() {
    let outbox = outbox(1 << 20, 1000);
    for n in 0..200u8 {
        outbox.push(frame(&[&[n; 30], &[n; 16]])).unwrap();
    }
    outbox.queue.lock().seal();
    assert_eq!(outbox.queue.lock().parts.len(), 1);
}

#[test]
fn a_full_outbox_takes_nothing_until_bytes_have_left() {
    let metrics = NetMetrics::default();
    let outbox = outbox(1000, 100);
    let socket = Trickle::new(0, usize::MAX);
    outbox.push(frame(&[&[1; 600]])).unwrap();
    assert_eq!(outbox.push(frame(&[&[2; 600]])), Err(PushError::Full));
    outbox.push(frame(&[&[3; 400]])).unwrap();
    outbox.flush(&socket, &metrics).unwrap();
    assert_eq!(outbox.push(frame(&[&[4; 1]])), Err(PushError::Full));
    // 599 of 600: the frame is not out yet, but its bytes are.
    socket.room.store(599, Ordering::Relaxed);
    outbox.on_writable(&socket, &metrics).unwrap();
    assert_eq!(outbox.waiting(), 401);
    assert_eq!(outbox.queue.lock().frames, 2);
    outbox.push(frame(&[&[5; 599]])).unwrap();
    socket.room.store(usize::MAX, Ordering::Relaxed);
    outbox.on_writable(&socket, &metrics).unwrap();
    assert_eq!(outbox.waiting(), 0);
    let sizes = [(1, 600), (3, 400), (5, 599)];
    let expected: Vec<u8> = sizes.iter().flat_map(|&(byte, n)| std::iter::repeat_n(byte, n)).collect();
    assert_eq!(*socket.out.lock(), expected);
}

#[test]
fn the_frame_count_is_bounded_too() {
    let outbox = outbox(1000, 3);
    for _ in 0..3 {
        outbox.push(frame(&[&[0; 10]])).unwrap();
    }
    assert_eq!(outbox.push(frame(&[&[0; 10]])), Err(PushError::Full));
}

#[test]
fn a_frame_above_the_bound_passes_alone() {
    let outbox = outbox(1000, 3);
    outbox.push(frame(&[&[0; 5000]])).unwrap();
    assert_eq!(outbox.push(frame(&[&[0; 1]])), Err(PushError::Full));
}

#[test]
fn a_blocked_socket_is_not_tried_again_before_its_edge() {
    let metrics = NetMetrics::default();
    let outbox = outbox(1000, 30);
    let socket = Trickle::new(0, usize::MAX);
    for _ in 0..5 {
        outbox.push(frame(&[&[0; 10]])).unwrap();
        outbox.flush(&socket, &metrics).unwrap();
    }
    assert_eq!(socket.calls.load(Ordering::Relaxed), 1);
    socket.room.store(usize::MAX, Ordering::Relaxed);
    outbox.on_writable(&socket, &metrics).unwrap();
    assert_eq!(socket.out.lock().len(), 50);
}

#[test]
fn a_closed_outbox_takes_nothing() {
    let outbox = outbox(1000, 30);
    outbox.close();
    assert_eq!(outbox.push(frame(&[&[0; 10]])), Err(PushError::Closed));
}

#[test]
fn flushes_from_many_threads_leave_nothing_behind() {
    let metrics = NetMetrics::default();
    for _ in 0..200 {
        let outbox = outbox(1 << 20, 10_000);
        let socket = Trickle::new(usize::MAX, 64);
        std::thread::scope(|scope| {
            for n in 0..4u8 {
                let (outbox, socket, metrics) = (&outbox, &socket, &metrics);
                scope.spawn(move || {
                    for _ in 0..20 {
                        outbox.push(frame(&[&[n; 33]])).unwrap();
                        outbox.flush(socket, metrics).unwrap();
                    }
                });
            }
        });
        // Every flush has returned, so whichever was last must have seen everything.
        assert_eq!(socket.out.lock().len(), 4 * 20 * 33);
        assert!(socket.out.lock().chunks(33).all(|frame| frame.iter().all(|byte| *byte == frame[0])));
    }
}

#[test]
fn many_outboxes_share_a_meter() {
    let metrics = NetMetrics::default();
    let meter = Meter::new(1000);
    let of = |at_meter| Outbox::new(5000, 30, meter.clone(), at_meter);
    let (first, second, answers) = (of(AtMeter::Refuse), of(AtMeter::Refuse), of(AtMeter::Take));
    first.push(frame(&[&[1; 1001]])).unwrap();
    assert!(meter.is_over());
    // One frame always passes, or a few who do not read would silence everybody else.
    second.push(frame(&[&[2; 500]])).unwrap();
    assert_eq!(second.push(frame(&[&[2; 1]])), Err(PushError::Full));
    answers.push(frame(&[&[3; 500]])).unwrap();
    answers.push(frame(&[&[3; 500]])).unwrap();
    let socket = Trickle::new(1001, usize::MAX);
    first.flush(&socket, &metrics).unwrap();
    assert!(meter.is_over(), "1500 wait");
    answers.close();
    answers.close();
    assert!(!meter.is_over(), "500 wait");
    second.push(frame(&[&[2; 500]])).unwrap();
    assert_eq!(answers.push(frame(&[&[3; 1]])), Err(PushError::Closed));
    drop((first, second, answers));
    assert_eq!(meter.waiting.load(Ordering::Relaxed), 0);
}

#[test]
fn closing_while_others_write_leaves_nothing_counted() {
    let metrics = NetMetrics::default();
    for _ in 0..200 {
        let meter = Meter::new(1 << 20);
        let outbox = Outbox::new(1 << 20, 10_000, meter.clone(), AtMeter::Take);
        let socket = Trickle::new(usize::MAX, 16);
        std::thread::scope(|scope| {
            for n in 0..3u8 {
                let (outbox, socket, metrics) = (&outbox, &socket, &metrics);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let _ = outbox.push(frame(&[&[n; 33]]));
                        outbox.flush(socket, metrics).unwrap();
                    }
                });
            }
            outbox.close();
        });
        assert_eq!(meter.waiting.load(Ordering::Relaxed), 0);
    }
}
