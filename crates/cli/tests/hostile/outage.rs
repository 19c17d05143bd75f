//! Networks that lose everything without a word, and then are back.

use std::time::{Duration, Instant};

use crate::attack::load::{LoadOptions, silent_seconds};
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::{Plan, SERVERS};
use crate::attack::verdict::Verdict;
use crate::trial::{self, Elections, Rules, Trial};

/// How long nothing gets through.
const OUTAGE: Duration = Duration::from_secs(15);
/// How long the others may be without a leader.
const ELECTION: Duration = Duration::from_secs(5);
/// How long the cluster may take to be whole afterwards.
const HEALED: Duration = Duration::from_secs(5);
/// Each group may tell of its elections.
const LOG_LINES: u64 = 8 * GROUPS as u64;
/// What a server warns of is a link, however many groups use it.
const WARNINGS: u64 = 100;
/// Many groups, most of which are idle.
const GROUPS: usize = 64;

/// The leader of a group, which may lead others too.
pub(crate) fn leader(sandbox: &Sandbox) -> Result<Verdict, String> {
    run(sandbox, |trial| {
        let leader = trial.servers.leader_of(0).ok_or("nobody leads the first group")?;
        let others = trial.servers.groups_not_led_by(leader);
        trial.servers.cut(leader, true)?;
        let cut = Instant::now();
        let elected = next_leader(trial, leader);
        trial.note_pause("new leader", elected);
        trial.verdict.expect(elected.is_some(), || format!("no new leader within {ELECTION:?}"));
        let left = ELECTION.saturating_sub(cut.elapsed());
        let commit = trial.load.wait_for_ack(Some(0), cut + Duration::from_millis(200), left);
        trial.verdict.expect(commit.is_some(), || {
            format!("no commit in the group within {ELECTION:?} without its leader")
        });
        trial.note_pause("its first commit", commit);
        if trial.servers.describe(leader).is_some() {
            return Err("the leader is cut off and answers".into());
        }
        std::thread::sleep(OUTAGE.saturating_sub(cut.elapsed()));
        let acks = trial.load.acks_between(cut, Instant::now());
        let silent = silent_seconds(&acks, cut, Instant::now(), |group| others.contains(&group));
        trial.verdict.expect(silent.is_empty(), || {
            format!("no commit in the seconds {silent:?} in groups whose leaders were not cut off")
        });
        trial.servers.cut(leader, false)
    })
}

/// How long the others take until one of them leads the first group.
fn next_leader(trial: &Trial<'_>, cut: usize) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < ELECTION {
        let leads = |server: usize| {
            let description = trial.servers.describe(server)?;
            Some(description.groups.first()?.leader == description.node)
        };
        if (0..SERVERS).any(|server| server != cut && leads(server) == Some(true)) {
            return Some(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// Everybody.
pub(crate) fn everybody(sandbox: &Sandbox) -> Result<Verdict, String> {
    run(sandbox, |trial| {
        for server in 0..SERVERS {
            trial.servers.cut(server, true)?;
        }
        let cut = Instant::now();
        std::thread::sleep(OUTAGE);
        let meanwhile = trial.load.acks_between(cut + Duration::from_secs(1), Instant::now()).len();
        if meanwhile > 0 {
            return Err(format!("all are cut off, and {meanwhile} writes were acknowledged"));
        }
        for server in 0..SERVERS {
            trial.servers.cut(server, false)?;
        }
        Ok(())
    })
}

fn run(
    sandbox: &Sandbox,
    outage: impl FnOnce(&mut Trial<'_>) -> Result<(), String>,
) -> Result<Verdict, String> {
    let plan = Plan { groups: GROUPS, bridged: true, ..Plan::default() };
    let load = LoadOptions { writers: 1, pause: Duration::from_millis(200), ..LoadOptions::default() };
    let rules = Rules {
        log_lines: LOG_LINES,
        warnings: WARNINGS,
        elections: Elections::Anywhere,
        ..Rules::default()
    };
    trial::run(sandbox, plan, load, &rules, |trial| {
        outage(trial)?;
        let healed = Instant::now();
        // What follows is the verdict, however long it takes.
        let whole = trial.servers.wait_until_whole(8 * HEALED);
        let commit = trial.load.wait_for_ack(None, healed + Duration::from_millis(1), HEALED);
        trial.note_pause("first commit after healing", commit);
        trial.verdict.expect(commit.is_some(), || format!("no commit within {HEALED:?} after healing"));
        let whole = whole?;
        trial.verdict.note(format!("whole after {} ms", whole.as_millis()));
        trial.verdict.expect(whole <= HEALED, || {
            format!("whole {} ms after healing, {} allowed", whole.as_millis(), HEALED.as_millis())
        });
        Ok(())
    })
}
