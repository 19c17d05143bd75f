//! Attacks on what a server has little of: descriptors, memory, slots for connections.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::attack::frames;
use crate::attack::load::{Load, LoadOptions};
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::{Descriptors, Plan, SERVERS};
use crate::attack::verdict::Verdict;
use crate::attack::watch::memory_mib;
use crate::strangers::{Strangers, crowd, hog};
use crate::trial::{self, Rules, Trial};

/// Bytes of an entry of the load that fills files: the longest key.
const LARGE_KEY: usize = 4000;
/// Memory that a server may take for unfinished frames by default (256 MiB), for one that is whole (64 MiB), and for itself.
const FRAMES_MIB: u64 = 256 + 64 + 64;
/// Descriptors of this process that are no attacker's.
const RESERVE: usize = 1000;
/// Where a server that takes far more than is allowed is not attacked on: this machine is needed yet.
const TOO_MUCH_MIB: u64 = 1500;

/// Silent connections and such with one heartbeat, while files of the log are rolled, and afterwards.
pub(crate) fn descriptors(sandbox: &Sandbox) -> Result<Verdict, String> {
    const ALLOWED: u64 = 256;
    let plan = Plan { descriptors: Descriptors::Hard(ALLOWED), ..Plan::default() };
    trial::run(sandbox, plan, filling(), &Rules::default(), |trial| {
        let mut strangers = Strangers::new();
        for address in trial.addresses() {
            strangers.send(move |orders| crowd(orders, address, 1100, b""));
            strangers.send(move |orders| crowd(orders, address, 400, &frames::heartbeat()));
        }
        fill(trial, 4, Duration::from_secs(12));
        trial.verdict.note(format!("{} connections", strangers.opened()));
        drop(strangers);
        // An error that was met in the attack may come out when the next file is needed.
        fill(trial, 4, Duration::from_secs(8));
        Ok(())
    })
}

/// More files than descriptors.
pub(crate) fn files(sandbox: &Sandbox) -> Result<Verdict, String> {
    const ALLOWED: u64 = 224;
    let plan = Plan { descriptors: Descriptors::Hard(ALLOWED), ..Plan::default() };
    let load = LoadOptions { writers: 8, pause: Duration::ZERO, ..filling() };
    trial::run(sandbox, plan, load, &Rules::default(), |trial| {
        fill(trial, ALLOWED, Duration::from_secs(60));
        Ok(())
    })
}

fn filling() -> LoadOptions {
    LoadOptions {
        writers: 4,
        pause: Duration::from_millis(5),
        key_bytes: LARGE_KEY,
        ..LoadOptions::default()
    }
}

/// Waits until so many files of 1 MiB more are full of acknowledged entries.
fn fill(trial: &mut Trial<'_>, files: u64, limit: Duration) {
    let (start, before) = (Instant::now(), trial.load.acked());
    let full = |load: &Load| ((load.acked() - before) as u64 * LARGE_KEY as u64) >> 20;
    while full(trial.load) < files && start.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(20));
    }
    let filled = full(trial.load);
    trial
        .verdict
        .expect(filled >= files, || format!("{filled} of {files} MiB were acknowledged in {limit:?}"));
}

/// Four that hold much, and one that sends more, must not cost others their connections.
pub(crate) fn bystanders(sandbox: &Sandbox) -> Result<Verdict, String> {
    let rules = Rules { rss_mib: FRAMES_MIB, ..Rules::default() };
    trial::run(sandbox, Plan::default(), LoadOptions::default(), &rules, |trial| {
        let mut innocents = Vec::new();
        let mut strangers = Strangers::new();
        let closed = Arc::new(AtomicU64::new(0));
        let asked = Arc::new(AtomicU64::new(0));
        for address in trial.addresses() {
            let mine: Vec<TcpStream> = (0..10)
                .map(|_| innocent(address))
                .collect::<Result<_, _>>()
                .map_err(|error| format!("an innocent cannot connect: {error}"))?;
            innocents.push(mine);
        }
        for address in trial.addresses() {
            for _ in 0..4 {
                strangers.send(move |orders| hog(orders, address, 63 << 20));
            }
            strangers.send(move |orders| {
                orders.pause(Duration::from_secs(1));
                hog(orders, address, frames::MAX_CONTENT);
            });
        }
        for mut mine in innocents {
            let (closed, asked) = (Arc::clone(&closed), Arc::clone(&asked));
            strangers.send(move |orders| {
                while !orders.over() {
                    mine.retain_mut(|stream| {
                        let answered = ask(stream);
                        asked.fetch_add(1, Ordering::Relaxed);
                        closed.fetch_add(u64::from(!answered), Ordering::Relaxed);
                        answered
                    });
                    orders.pause(Duration::from_millis(200));
                }
            });
        }
        trial.wait(Duration::from_secs(7));
        trial.verdict.note(format!("{} MiB sent", strangers.sent_mib()));
        drop(strangers);
        let closed = closed.load(Ordering::Relaxed);
        trial.verdict.note(format!("{} innocent requests", asked.load(Ordering::Relaxed)));
        trial.verdict.expect(closed == 0, || format!("{closed} of 30 innocent connections were closed"));
        Ok(())
    })
}

fn innocent(address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    if ask(&mut stream) { Ok(stream) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Whether a request is answered.
fn ask(stream: &mut TcpStream) -> bool {
    let sent = std::io::Write::write_all(stream, &frames::request(9, frames::GET_SLOTS, b""));
    sent.is_ok() && frames::read_status(stream).is_ok()
}

/// Unfinished frames of many connections.
pub(crate) fn announced_frames(sandbox: &Sandbox) -> Result<Verdict, String> {
    let rules = Rules { rss_mib: FRAMES_MIB, ..Rules::default() };
    trial::run(sandbox, Plan::default(), LoadOptions::default(), &rules, |trial| {
        let mut strangers = Strangers::new();
        for address in trial.addresses() {
            for _ in 0..40 {
                strangers.send(move |orders| hog(orders, address, 63 << 20));
            }
        }
        let end = Instant::now() + Duration::from_secs(6);
        let most = |trial: &Trial<'_>| {
            trial.servers.pids().into_iter().map(|pid| memory_mib(pid, "VmRSS:")).max().unwrap_or(0)
        };
        while Instant::now() < end && most(trial) < TOO_MUCH_MIB {
            std::thread::sleep(Duration::from_millis(50));
        }
        trial.verdict.note(format!("{} MiB sent", strangers.sent_mib()));
        Ok(())
    })
}

/// Slots for connections that are held for the price of a heartbeat: who comes newly gets in all the same.
pub(crate) fn slots(sandbox: &Sandbox) -> Result<Verdict, String> {
    let crowd_size = 5000.min(sandbox.descriptors.saturating_sub(RESERVE) / SERVERS);
    trial::run(sandbox, Plan::default(), LoadOptions::default(), &Rules::default(), |trial| {
        let mut strangers = Strangers::new();
        for address in trial.addresses() {
            strangers.send(move |orders| crowd(orders, address, crowd_size, &frames::heartbeat()));
        }
        // Until the crowd is there.
        trial.wait(Duration::from_secs(3));
        let waits = Arc::new(Mutex::new(Vec::new()));
        for server in 0..SERVERS {
            let address = trial.addresses()[server];
            let waits = Arc::clone(&waits);
            strangers.send(move |orders| {
                while !orders.over() {
                    waits.lock().push(newcomer(address));
                    orders.pause(Duration::from_millis(400));
                }
            });
        }
        trial.wait(Duration::from_secs(5));
        trial.verdict.note(format!("{crowd_size} at a time at each, {} connections", strangers.opened()));
        if crowd_size < 5000 {
            trial.verdict.note("fewer than 5,000: this process has too few descriptors".to_owned());
        }
        drop(strangers);
        let waits = waits.lock();
        let late = waits.iter().filter(|wait| wait.is_none()).count();
        let longest = waits.iter().flatten().max().copied().unwrap_or_default();
        trial.verdict.note(format!("{} newcomers, longest wait {longest:?}", waits.len()));
        trial.verdict.expect(late == 0 && !waits.is_empty(), || {
            format!("{late} of {} newcomers did not get in within a second", waits.len())
        });
        Ok(())
    })
}

/// How long somebody new takes until a server has described itself, who tries again when refused; `None` beyond a second.
fn newcomer(address: std::net::SocketAddr) -> Option<Duration> {
    let start = Instant::now();
    let limit = Duration::from_secs(1);
    loop {
        let left = limit.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
        let answered = TcpStream::connect_timeout(&address, left).and_then(|mut stream| {
            stream.set_read_timeout(Some(left))?;
            std::io::Write::write_all(&mut stream, &frames::request(3, frames::DESCRIBE, b""))?;
            frames::read_status(&mut stream)
        });
        match answered {
            Ok(0) => return Some(start.elapsed()).filter(|wait| *wait <= limit),
            _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
