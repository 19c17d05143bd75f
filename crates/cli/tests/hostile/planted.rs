//! Weaknesses that the run itself puts into a cluster: each must show as not held.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use crate::attack::load::LoadOptions;
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::Plan;
use crate::trial::{self, Rules};

/// Words of the failures that must be there.
const WORDS: [&str; 10] = [
    "no commit in the seconds",
    "leaders fell",
    "has ended",
    "MiB of memory",
    "descriptors",
    "log lines",
    "warnings",
    "raw escape bytes",
    "forged lines",
    "counters are wrong",
];

/// Checks the run.
///
/// # Errors
/// What it did not see.
pub(crate) fn are_seen(sandbox: &Sandbox) -> Result<(), String> {
    let rules = Rules { rss_mib: 1, descriptors: 1, log_lines: 0, warnings: 0, ..Rules::default() };
    let verdict = trial::run(sandbox, Plan::default(), LoadOptions::default(), &rules, |trial| {
        let log = |error| format!("cannot write to a log: {error}");
        let mut file = File::options().append(true).open(trial.servers.log(0)).map_err(log)?;
        file.write_all(b"FORGED  WARN \x1b[31mline\n").map_err(log)?;

        // Two of three stand still: nothing is acknowledged.
        for name in ["STOP", "CONT"] {
            trial.servers.signal(1, name)?;
            trial.servers.signal(2, name)?;
            trial.wait(Duration::from_secs(4));
        }
        // Somebody writes to a counter that one client has for itself.
        let client = trial.servers.client()?;
        let overwritten = client.set(trial.load.key_of(0), -1_000_000);
        overwritten.map_err(|error| format!("cannot overwrite a counter: {error}"))?;
        let leader = trial.servers.leader_of(0).ok_or("nobody leads")?;
        trial.servers.signal(leader, "KILL")?;
        trial.wait(Duration::from_secs(5));
        Ok(())
    })?;
    let all = verdict.failures.join("; ");
    let unseen: Vec<&str> = WORDS.into_iter().filter(|word| !all.contains(word)).collect();
    println!("planted weaknesses: {} of {} seen", WORDS.len() - unseen.len(), WORDS.len());
    if unseen.is_empty() { Ok(()) } else { Err(format!("not seen: {unseen:?}, only: {all}")) }
}
