//! Attacks with frames of raft.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::attack::frames::{self, Append};
use crate::attack::load::{LoadOptions, key_in};
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::{Plan, SERVERS};
use crate::attack::verdict::Verdict;
use crate::trial::{self, Elections, Rules, Trial};

/// Bytes of the frame: the largest that is allowed, but for a little.
const FRAME_BYTES: usize = 67_108_600;
/// A term that nobody has reached.
const TERM: u64 = 99;
/// How long the attacked group may be without commits. Its leader has to give way to the term that it is told.
const BACK: Duration = Duration::from_secs(10);
/// The frame's bytes while it is received, the same once more where a buffer was grown, and the server itself.
const MEMORY_MIB: u64 = 2 * 64 + 128 + 64;

/// One entry that no file can hold, for one group, from somebody who says that he leads it: to its leader, then to everybody.
pub(crate) fn large_entry(sandbox: &Sandbox) -> Result<Verdict, String> {
    let load = LoadOptions { idle: Some(0), ..LoadOptions::default() };
    let rules = Rules { rss_mib: MEMORY_MIB, elections: Elections::Of(0), ..Rules::default() };
    trial::run(sandbox, Plan::default(), load, &rules, |trial| {
        write(trial, "at first")?;
        let leader = trial.servers.leader_of(0).ok_or("nobody leads the first group")?;
        shoot(trial, &[leader], TERM)?;
        write(trial, "after one at its leader")?;
        if let Err(error) = trial.servers.wait_until_whole(BACK) {
            trial.verdict.failures.push(error);
        }
        shoot(trial, &[0, 1, 2], 2 * TERM)?;
        write(trial, "after one at each")?;
        trial.wait(Duration::from_secs(1));
        Ok(())
    })
}

/// Sends one frame to each of the servers at one moment.
fn shoot(trial: &Trial<'_>, servers: &[usize], term: u64) -> Result<(), String> {
    // All are made before any is sent: the first one changes what fits the others.
    let frames: Vec<(String, Vec<u8>)> =
        servers.iter().map(|server| aim(trial, *server, term)).collect::<Result<_, _>>()?;
    let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let shots: Vec<_> = frames.iter().map(|(to, frame)| scope.spawn(move || send(to, frame))).collect();
        let panicked = |_| Err("a shot has panicked".to_owned());
        shots.into_iter().map(|shot| shot.join().unwrap_or_else(panicked)).collect()
    });
    results.into_iter().collect()
}

/// A frame that fits behind the log of a server's first group, and the server's address.
fn aim(trial: &Trial<'_>, server: usize, term: u64) -> Result<(String, Vec<u8>), String> {
    let description = trial.servers.describe(server).ok_or("a server does not describe itself")?;
    let group = description.groups.first().ok_or("a server without groups")?;
    let (from, to) = (trial.servers.address((server + 1) % SERVERS), trial.servers.address(server));
    // The group is idle and has a leader, so that its last entry is of its term.
    let previous = (group.term, group.last);
    let append =
        Append { group: &group.group, from: &from, to: &to, term, previous, frame_bytes: FRAME_BYTES };
    let frame = append.encode();
    Ok((to, frame))
}

fn send(to: &str, frame: &[u8]) -> Result<(), String> {
    let sent = TcpStream::connect(to).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(frame)?;
        frames::read_status(&mut stream)
    });
    match sent {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("the frame cannot be sent: {error}"))
        }
        // Any answer will do, and a connection that is closed as well.
        _ => Ok(()),
    }
}

/// Writes to the attacked group until it is acknowledged.
fn write(trial: &mut Trial<'_>, when: &str) -> Result<(), String> {
    let client = trial.servers.client()?;
    let key = key_in(&client, 0, 0, 16);
    let start = Instant::now();
    while client.increment_and_get(&key, 1).is_err() {
        if start.elapsed() > BACK {
            trial.verdict.failures.push(format!("no commit in the attacked group within {BACK:?} {when}"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    trial.verdict.note(format!("a commit {} ms {when}", start.elapsed().as_millis()));
    Ok(())
}
