//! `make power`: all servers of a cluster lose their power at one moment, again and again. docs/testing.md says what must hold.
//!
//! Shows rule P4: what was acknowledged is there, whatever became of that which was not synced. Shows rule P8: what is torn is cut, and nothing
//! that a loss of power leaves is taken for damage. Shows rule P9: losses come while servers start, too.

#[path = "../attack/mod.rs"]
mod attack;
mod writes;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use attack::sandbox::{self, Sandbox};
use attack::servers::{Plan, Preload, SERVERS, START_LIMIT, Servers};
use attack::verdict::{Table, Verdict};
use writes::{Write, Writes, read_back};

/// Losses when nobody says how many.
const LOSSES: usize = 30;
/// Losses until a sync that does nothing must have been noticed.
const LYING_LOSSES: usize = 4;
/// Range groups of a cluster.
const GROUPS: usize = 4;
/// Writes that are acknowledged before power may be lost.
const LEAST_ACKS: u64 = 50;
/// Longest time of a sync in µs: without one a loss would find next to nothing that is not synced.
const SYNC_US: &str = "4000";

/// What all losses of a cluster came to.
#[derive(Default)]
struct Sums {
    losses: u64,
    while_starting: u64,
    checked: u64,
    lost: u64,
    unsynced: u64,
    undone: u64,
    mixed: u64,
    spoiled: u64,
    lengths: u64,
    renames: u64,
    taken_back: u64,
    slowest: Duration,
}

fn main() -> ExitCode {
    if !cfg!(target_os = "linux") {
        println!("losses of power are shown on Linux only; skipped");
        return ExitCode::SUCCESS;
    }
    let Some(library) = std::env::var_os("RINGRAFT_UNDO").map(PathBuf::from).filter(|path| path.is_file())
    else {
        eprintln!("RINGRAFT_UNDO must name the library that is preloaded; `make power` builds it");
        return ExitCode::FAILURE;
    };
    let (losses, seed) = match (number("ROUNDS"), number("SEED")) {
        (Ok(losses), Ok(seed)) => {
            (losses.map_or(LOSSES, |losses| losses as usize), seed.unwrap_or_else(new_seed))
        }
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let sandbox = match sandbox::enter() {
        Ok(sandbox) => sandbox,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("SEED={seed}, {losses} losses of power");
    let mut table = Table::new();
    for servers in 1..=SERVERS {
        let share = losses / SERVERS + usize::from(servers <= losses % SERVERS);
        let trial = Trial { sandbox: &sandbox, library: &library, servers, seed, lies: false };
        table.run(&format!("all of {servers} lose their power"), || trial.run(share));
    }
    for servers in [1, SERVERS] {
        let trial = Trial { sandbox: &sandbox, library: &library, servers, seed, lies: true };
        table.run(&format!("a sync that does nothing is seen, {servers}"), || trial.is_seen());
    }
    table.finish()
}

/// A number of the environment; none when it is empty or missing.
fn number(name: &str) -> Result<Option<u64>, String> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().map(Some).map_err(|_| format!("{name} is {text:?}; give a number"))
        }
        _ => Ok(None),
    }
}

fn new_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs())
}

/// One cluster.
struct Trial<'a> {
    sandbox: &'a Sandbox,
    library: &'a Path,
    servers: usize,
    seed: u64,
    /// Whether its disks say that something is synced, and do nothing.
    lies: bool,
}

/// What a cluster must not do. Anything else that goes wrong is the run's own fault.
enum Stop {
    Broken(String),
    Unable(String),
}

impl Trial<'_> {
    fn run(&self, losses: usize) -> Result<Verdict, String> {
        let (mut servers, mut sums) = (self.start()?, Sums::default());
        let mut verdict = Verdict::new();
        match self.lose_power(&mut servers, losses, &mut sums) {
            Ok(()) => {}
            Err(Stop::Unable(error)) => return Err(error),
            Err(Stop::Broken(why)) => verdict.failures.push(why),
        }
        if verdict.failures.is_empty() {
            let harmed = sums.undone + sums.mixed + sums.spoiled;
            verdict.expect(harmed > 0 && sums.checked > 0, || "nothing was undone, no proof".into());
        } else {
            verdict.note(keep(&mut servers, self.servers));
        }
        verdict.note(format!("{} losses, {} of them while starting", sums.losses, sums.while_starting));
        verdict.note(format!("{} acknowledged writes, {} lost", sums.checked, sums.lost));
        verdict.note(format!("{} blocks not synced", sums.unsynced));
        verdict.note(format!("{} undone, {} mixed, {} spoiled", sums.undone, sums.mixed, sums.spoiled));
        verdict.note(format!("{} of {} changes of names taken back", sums.taken_back, sums.renames));
        verdict.note(format!("{} lengths", sums.lengths));
        verdict.note(format!("whole after {} ms at most", sums.slowest.as_millis()));
        Ok(verdict)
    }

    /// With disks that lie the run must break: a run that holds then says nothing when it holds otherwise.
    fn is_seen(&self) -> Result<Verdict, String> {
        let (mut servers, mut sums) = (self.start()?, Sums::default());
        let mut verdict = Verdict::new();
        match self.lose_power(&mut servers, LYING_LOSSES, &mut sums) {
            Ok(()) => verdict
                .failures
                .push(format!("{} losses, {} writes: nothing seen", sums.losses, sums.checked)),
            Err(Stop::Unable(error)) => return Err(error),
            Err(Stop::Broken(why)) => verdict.note(format!("after {} losses: {why:.160}", sums.losses)),
        }
        Ok(verdict)
    }

    fn start(&self) -> Result<Servers, String> {
        let (seed, lies, starts) = (self.seed, self.lies, AtomicU64::new(0));
        let variables = move |data: &Path| {
            let start = starts.fetch_add(1, Ordering::Relaxed);
            let mut variables: Vec<(&'static str, OsString)> = vec![
                ("RINGRAFT_UNDO_DIR", data.into()),
                ("RINGRAFT_UNDO_SCRATCH", scratch(data).into()),
                ("RINGRAFT_UNDO_SEED", (seed.wrapping_mul(1_000_003) ^ start).to_string().into()),
                ("RINGRAFT_UNDO_SYNC_US", SYNC_US.into()),
            ];
            if lies {
                variables.push(("RINGRAFT_UNDO_LIE", "1".into()));
            }
            // What it cannot make the library misses when it reports, and the run with it.
            let _ = std::fs::create_dir_all(scratch(data));
            variables
        };
        let preload = Preload { library: self.library.to_owned(), variables: Arc::new(variables) };
        let plan = Plan { servers: self.servers, groups: GROUPS, preload: Some(preload), ..Plan::default() };
        Servers::start(self.sandbox.dir.path(), plan)
    }

    /// The same directories lose their power so many times, under load or while they start.
    fn lose_power(&self, servers: &mut Servers, losses: usize, sums: &mut Sums) -> Result<(), Stop> {
        let mut chance = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |from: u64, to: u64| {
            // xorshift64
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            Duration::from_millis(from + chance % (to - from))
        };
        let mut all: Vec<Write> = Vec::new();
        let mut round = 0;
        while sums.losses < losses as u64 {
            let writes = Writes::start(&Arc::new(servers.client().map_err(Stop::Unable)?), round);
            let start = Instant::now();
            while writes.acked() < LEAST_ACKS && start.elapsed() < START_LIMIT {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(draw(0, 1500));
            power_off(servers, sums)?;
            let acked = writes.finish();
            if (acked.len() as u64) < LEAST_ACKS {
                return Err(Stop::Broken(format!("{} writes in {START_LIMIT:?}", acked.len())));
            }
            self.power_on(servers)?;
            while sums.losses < losses as u64 && draw(0, 3).is_zero() {
                std::thread::sleep(draw(5, 400));
                power_off(servers, sums)?;
                sums.while_starting += 1;
                self.power_on(servers)?;
            }
            let whole = servers.wait_until_whole(START_LIMIT).map_err(Stop::Broken)?;
            sums.slowest = sums.slowest.max(whole);
            sums.checked += acked.len() as u64;
            self.check(servers, &acked, sums)?;
            all.extend(acked);
            round += 1;
        }
        // What was there after one loss must be there after all.
        self.check(servers, &all, sums)
    }

    fn power_on(&self, servers: &mut Servers) -> Result<(), Stop> {
        (0..self.servers).try_for_each(|server| servers.spawn(server, &[])).map_err(Stop::Unable)
    }

    fn check(&self, servers: &Servers, acked: &[Write], sums: &mut Sums) -> Result<(), Stop> {
        let client = servers.client().map_err(Stop::Unable)?;
        let wrong = read_back(&client, acked);
        client.shutdown();
        sums.lost += wrong.len() as u64;
        match wrong.first() {
            None => Ok(()),
            Some(first) => {
                Err(Stop::Broken(format!("{} of {} writes lost: {first}", wrong.len(), acked.len())))
            }
        }
    }
}

/// Where the library keeps what it needs, and reports.
fn scratch(data: &Path) -> PathBuf {
    data.with_extension("undo")
}

/// Takes the power from all at one moment, and adds up what the library reports.
fn power_off(servers: &mut Servers, sums: &mut Sums) -> Result<(), Stop> {
    let before = servers.ended();
    if !before.is_empty() {
        return Err(Stop::Broken(before.join(", ")));
    }
    let statuses = servers.end_all_by("PWR").map_err(Stop::Unable)?;
    sums.losses += 1;
    for (server, status) in statuses.into_iter().enumerate() {
        let report = scratch(&servers.data(server)).join("report");
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        if status.signal() != Some(9) || text.lines().count() != 1 {
            return Err(Stop::Unable(format!("server {server} did not lose its power: {status}, {text:?}")));
        }
        std::fs::remove_file(report).map_err(|error| Stop::Unable(format!("no report: {error}")))?;
        for (name, value) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
            let sum = match name {
                "unsynced" => &mut sums.unsynced,
                "undone" => &mut sums.undone,
                "mixed" => &mut sums.mixed,
                "spoiled" => &mut sums.spoiled,
                "lengths" => &mut sums.lengths,
                "renames" => &mut sums.renames,
                "taken-back" => &mut sums.taken_back,
                _ => continue,
            };
            *sum += value.parse::<u64>().unwrap_or(0);
        }
    }
    Ok(())
}

/// Moves everything of a cluster to where it stays, to be looked at; says where.
fn keep(servers: &mut Servers, count: usize) -> String {
    for server in 0..count {
        servers.kill(server);
    }
    let kept = std::env::temp_dir().join(format!("ringraft-power-{count}-{}", new_seed()));
    match std::fs::rename(servers.dir(), &kept) {
        Ok(()) => format!("kept in {}", kept.display()),
        Err(error) => format!("not kept: {error}"),
    }
}
