//! Log lines that cannot be written.

use std::time::{Duration, Instant};

use crate::attack::load::LoadOptions;
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::{Plan, Stderr};
use crate::attack::verdict::Verdict;
use crate::trial::{self, Elections, Rules, Trial};

/// How long a transfer may take until the group commits again.
const TRANSFER: Duration = Duration::from_secs(5);

/// Nobody is at the other end of the pipe when the servers have something to say.
pub(crate) fn reader_goes_away(sandbox: &Sandbox) -> Result<Verdict, String> {
    run(sandbox, Stderr::Pipe, |trial| trial.servers.close_readers())
}

/// The pipe is full, and nobody takes anything from it.
pub(crate) fn reader_stands_still(sandbox: &Sandbox) -> Result<Verdict, String> {
    run(sandbox, Stderr::FullPipe, |_| ())
}

/// No line has ever been written.
pub(crate) fn disk_is_full(sandbox: &Sandbox) -> Result<Verdict, String> {
    run(sandbox, Stderr::Full, |_| ())
}

fn run(sandbox: &Sandbox, stderr: Stderr, breaks: impl FnOnce(&mut Trial<'_>)) -> Result<Verdict, String> {
    let plan = Plan { stderr, ..Plan::default() };
    let rules = Rules { elections: Elections::Of(0), ..Rules::default() };
    trial::run(sandbox, plan, LoadOptions::default(), &rules, |trial| {
        breaks(trial);
        // Every server logs a change of leaders.
        let transfer = trial.servers.admin(&["transfer"], 0)?;
        trial.verdict.expect(transfer.status.success(), || "the transfer failed".into());
        let moved = Instant::now();
        let commit = trial.load.wait_for_ack(Some(0), moved, TRANSFER);
        trial.note_pause("commit after the transfer", commit);
        trial.verdict.expect(commit.is_some(), || format!("no commit within {TRANSFER:?} of the transfer"));
        trial.wait(Duration::from_secs(3));
        Ok(())
    })
}
