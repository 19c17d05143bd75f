//! `ringraft script`: replays a golden script.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use ringraft_sim::script::{self, ScriptError};

use crate::exit::Exit;

const EXAMPLE: &str = "Example:
  ringraft script crates/core/testdata/election.txt

docs/scripts.md describes the language. --rewrite writes the traces as they are now; commit them only if you understand what changed.";

/// Runs a golden script: raft nodes, their messages and disks, step by step
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct ScriptArgs {
    /// The script, or - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the traces as they are into the file (to stdout for stdin)
    #[arg(long)]
    rewrite: bool,
}

/// Runs the script.
pub fn run(args: &ScriptArgs) -> Exit {
    let outcome = match (args.file == Path::new("-"), args.rewrite) {
        (true, _) => run_stdin(args.rewrite),
        (false, true) => script::rewrite(&args.file).map(|changed| {
            println!("{} {}", args.file.display(), if changed { "rewritten" } else { "is as it was" });
        }),
        (false, false) => script::check_file(&args.file).map(|outcome| {
            println!("{}: {} commands, every trace as it should be", args.file.display(), outcome.commands);
        }),
    };
    match outcome {
        Ok(()) => Exit::Fine,
        Err(error) => {
            let exit = if error.exit_code() == 2 { Exit::Usage } else { Exit::Failed };
            exit.say(&format!("{}: {error}", args.file.display()))
        }
    }
}

fn run_stdin(rewrite: bool) -> Result<(), ScriptError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|source| ScriptError::Io { path: "-".into(), source })?;
    if rewrite {
        let mut outcome = script::run(&text)?;
        print!("{}", outcome.rewritten);
        outcome.difference = None;
        outcome.failure().map_or(Ok(()), Err)?;
    } else {
        let commands = script::check(&text)?.commands;
        println!("stdin: {commands} commands, every trace as it should be");
    }
    Ok(())
}
