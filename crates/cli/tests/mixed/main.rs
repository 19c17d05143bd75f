//! `make mixed`: the program of an earlier commit and this one in one cluster. docs/testing.md says what must hold.

#[path = "../attack/mod.rs"]
mod attack;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use attack::load::{Load, LoadOptions, p99_ms};
use attack::sandbox::{self, Sandbox};
use attack::servers::{Plan, SERVERS, START_LIMIT, Servers, program};
use attack::verdict::{Table, Verdict};

/// Range groups of the cluster.
const GROUPS: usize = 8;
/// Load in each state of the cluster.
const STATE: Duration = Duration::from_secs(3);
/// How long a group may be without a commit after something was done to its leader.
const BACK: Duration = Duration::from_secs(15);

/// A cluster under load, of which each server runs the earlier program or this one.
struct Mixed {
    servers: Servers,
    load: Load,
    verdict: Verdict,
    kills: usize,
}

fn main() -> ExitCode {
    let sandbox = match sandbox::enter() {
        Ok(sandbox) => sandbox,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let Some(old) = std::env::var_os("RINGRAFT_OLD").map(PathBuf::from) else {
        eprintln!("RINGRAFT_OLD must name the earlier program; `make mixed` builds it");
        return ExitCode::FAILURE;
    };
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    // A run that cannot see what is wrong says nothing about what it finds right.
    if wanted("planted") {
        match planted(&sandbox, &old) {
            Ok(()) => println!("planted: lost sum, wrong counter and stale reads were seen"),
            Err(error) => {
                println!("the run itself is wrong: {error}");
                println!("0 of 3 held");
                return ExitCode::FAILURE;
            }
        }
    }
    let mut table = Table::new();
    let mut run = |name: &str, act: &dyn Fn() -> Result<Verdict, String>| {
        if wanted(name) {
            table.run(name, act);
        }
    };
    run("two earlier programs and this one", &|| together(&sandbox, &old, 1));
    run("one earlier program and two of this", &|| together(&sandbox, &old, 2));
    run("the earlier program replaced one by one", &|| replaced(&sandbox, &old));
    table.finish()
}

/// The run must see what it is there to see: a reader that is answered less than was acknowledged, and a sum that is lost.
fn planted(sandbox: &Sandbox, old: &Path) -> Result<(), String> {
    let mixed = Mixed::start(sandbox, old, 1)?;
    let client = mixed.servers.client()?;
    for _ in 0..20 {
        let set = client.set(mixed.load.key_of(0), -1_000_000);
        set.map_err(|error| format!("cannot set a counter back: {error}"))?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let done = mixed.load.finish();
    let sums = done.failures.len() as u64;
    if done.lost == 1 && done.stale > 0 && sums > 0 {
        return Ok(());
    }
    Err(format!(
        "of one counter that was set back {} wrong counters, {} stale reads and {sums} wrong sums were seen",
        done.lost, done.stale
    ))
}

/// `new` of three servers run this program. Each leads everything in turn, and is killed as leader; so are all at once.
fn together(sandbox: &Sandbox, old: &Path, new: usize) -> Result<Verdict, String> {
    let mut mixed = Mixed::start(sandbox, old, new)?;
    for leader in [SERVERS - 1, 0, 1] {
        mixed.lead(leader)?;
        std::thread::sleep(STATE);
        mixed.kill(&[leader])?;
    }
    // A follower, and everybody.
    mixed.lead(SERVERS - 1)?;
    mixed.kill(&[0])?;
    mixed.kill(&[0, 1, 2])?;
    mixed.finish()
}

/// Each server in turn ends and goes on with this program on the directory that it has; once it is killed right afterwards.
fn replaced(sandbox: &Sandbox, old: &Path) -> Result<Verdict, String> {
    let mut mixed = Mixed::start(sandbox, old, 0)?;
    mixed.kill(&[0])?;
    for server in 0..SERVERS {
        mixed.lead(server)?;
        let replaced = Instant::now();
        let fine = mixed.servers.terminate(server)?;
        mixed.verdict.expect(fine, || format!("the earlier program of server {server} did not end with 0"));
        mixed.servers.replace_program(server, program());
        mixed.servers.spawn(server, &[])?;
        mixed.commits_after(replaced)?;
        mixed.lead(server)?;
        std::thread::sleep(STATE);
        mixed.kill(&[server])?;
    }
    mixed.finish()
}

impl Mixed {
    /// The last `new` servers run this program.
    fn start(sandbox: &Sandbox, old: &Path, new: usize) -> Result<Mixed, String> {
        let mut programs = [old.to_owned(), old.to_owned(), old.to_owned()];
        for last in programs.iter_mut().rev().take(new) {
            *last = program();
        }
        let plan = Plan { groups: GROUPS, lease_reads: true, programs, ..Plan::default() };
        let servers = Servers::start(sandbox.dir.path(), plan)?;
        let options = LoadOptions { pause: Duration::from_millis(20), readers: 6, ..LoadOptions::default() };
        let load = Load::start(servers.client()?, options);
        let mut mixed = Mixed { servers, load, verdict: Verdict::new(), kills: 0 };
        mixed.commits_after(Instant::now())?;
        Ok(mixed)
    }

    /// Has one server lead every group.
    fn lead(&mut self, server: usize) -> Result<(), String> {
        let target = self.servers.address(server);
        let start = Instant::now();
        for group in 0..GROUPS {
            // It may be busy, or a leader may have fallen: what counts is who leads in the end.
            while self.servers.leader_of(group) != Some(server) {
                if start.elapsed() > START_LIMIT {
                    return Err(format!("server {server} does not come to lead group {group}"));
                }
                self.servers.admin(&["transfer", "--to", &target], group)?;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self.commits_after(Instant::now())
    }

    /// Kills servers at one moment and starts them again.
    fn kill(&mut self, servers: &[usize]) -> Result<(), String> {
        let killed = Instant::now();
        for server in servers {
            self.servers.kill(*server);
            self.kills += 1;
        }
        if servers.len() < SERVERS {
            // Without them, before they are back.
            self.commits_after(killed)?;
        }
        for server in servers {
            self.servers.spawn(*server, &[])?;
        }
        self.commits_after(Instant::now())
    }

    /// Waits until the cluster is whole and every group has acknowledged a write that was answered after `since`.
    fn commits_after(&mut self, since: Instant) -> Result<(), String> {
        self.servers.wait_until_whole(START_LIMIT)?;
        for group in 0..GROUPS {
            let commit = self.load.wait_for_ack(Some(group), since, BACK);
            self.verdict.expect(commit.is_some(), || format!("no commit in group {group} within {BACK:?}"));
        }
        Ok(())
    }

    /// Stops the load and reads everything.
    fn finish(mut self) -> Result<Verdict, String> {
        std::thread::sleep(STATE);
        self.servers.wait_until_whole(START_LIMIT)?;
        let done = self.load.finish();
        self.verdict.expect(done.lost == 0, || format!("{} counters are wrong or cannot be read", done.lost));
        self.verdict.expect(done.stale == 0, || format!("{} reads were stale", done.stale));
        self.verdict.expect(!done.acks.is_empty() && done.reads > 0, || "no load, no proof".into());
        self.verdict.failures.extend(done.failures);
        self.verdict.failures.extend(self.servers.ended());
        match diverged(&self.servers) {
            Ok(()) => {}
            Err(error) => self.verdict.failures.push(error),
        }
        let (acks, unknown) = (done.acks.len(), done.unknown);
        self.verdict.note(format!("{acks} acks, p99 {:.0} ms, {unknown} unknown", p99_ms(&done.acks)));
        self.verdict.note(format!("{} reads, {} kills", done.reads, self.kills));
        self.verdict.note(format!("lost {}, stale {}", done.lost, done.stale));
        Ok(self.verdict)
    }
}

/// Whether replicas that have applied the same commands differ. Without load all come to have applied the same.
fn diverged(servers: &Servers) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let all: Vec<_> = servers.describe_all().into_iter().flatten().collect();
        let replica = |server: usize, group: usize| {
            all[server].groups.get(group).map(|group| (group.fsm_index, group.fsm_hash))
        };
        let equal = |group: usize| (1..SERVERS).all(|server| replica(server, group) == replica(0, group));
        if all.len() == SERVERS && (0..GROUPS).all(equal) {
            return Ok(());
        }
        if start.elapsed() > START_LIMIT {
            return Err(format!("replicas are not equal {START_LIMIT:?} after the load"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
