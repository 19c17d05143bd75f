//! Golden scripts: commands with the exact trace that each must have. `docs/scripts.md` describes the language.

mod commands;
pub(crate) mod format;
mod host;
mod network;
mod parse;
mod world;

use std::fs;
use std::path::{Path, PathBuf};

pub use host::{Automatic, ModelFsm};
pub use network::{Body, Filter, InvalidKind, Kind, Link, Message, Network, What};
pub use world::{NodeName, ReadAnswer, Settings, World, WorldError};

use crate::checkers::Violation;

/// What a script that ran to its end did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The script with the traces as they are.
    pub rewritten: String,
    /// Where the traces first differ from what the script says.
    pub difference: Option<Difference>,
    /// Commands that were run.
    pub commands: usize,
}

/// A trace that is not as the script says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: the trace of `{command}` differs (- expected, + actual)\n{diff}")]
pub struct Difference {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command.
    pub command: String,
    /// Expected and actual lines: unchanged ones start with a blank, missing ones with `-`, new ones with `+`.
    pub diff: String,
}

/// Why a script did not pass.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A line is no command, or its arguments are wrong.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line in the script, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// A command cannot be done in the state that the world is in.
    #[error("line {line}: {source}")]
    World {
        /// Line in the script, from 1.
        line: usize,
        /// Why.
        source: WorldError,
    },
    /// An `expect` is false.
    #[error("line {line}: `{command}` is false:\n{message}")]
    Expectation {
        /// Line in the script, from 1.
        line: usize,
        /// The command.
        command: String,
        /// Each key with what was expected and what is.
        message: String,
    },
    /// A safety rule is broken.
    #[error("line {line}: `{command}`: {violation}\n{trace}")]
    Violation {
        /// Line in the script, from 1.
        line: usize,
        /// The command.
        command: String,
        /// The rule and what happened.
        violation: Violation,
        /// The trace of the command.
        trace: String,
    },
    /// A trace is not as the script says.
    #[error(transparent)]
    Difference(#[from] Difference),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl ScriptError {
    /// Exit status of `ringraft script`: 1 when the script ran and something is not as it says, 2 when it cannot be
    /// run as it stands.
    pub fn exit_code(&self) -> u8 {
        match self {
            ScriptError::Syntax { .. } | ScriptError::World { .. } | ScriptError::Io { .. } => 2,
            ScriptError::Expectation { .. } | ScriptError::Violation { .. } | ScriptError::Difference(_) => 1,
        }
    }
}

/// Runs a script.
///
/// # Errors
/// Everything but a difference of traces, which is in the [`Outcome`].
pub fn run(text: &str) -> Result<Outcome, ScriptError> {
    let mut world = World::new();
    let (mut rewritten, mut difference) = (String::new(), None);
    let mut blocks = 0;
    for block in parse::blocks(text)? {
        let parse::Block { line, comments, command, expected } = block;
        comments.iter().for_each(|c| rewritten.push_str(&format!("{c}\n")));
        let Some(command) = command else { continue };
        blocks += 1;
        let result = commands::run(&mut world, &command);
        let actual = world.take_trace();
        result.map_err(|e| e.at(line, &command))?;
        if let Some(violation) = world.violation() {
            let (violation, trace) = (violation.clone(), actual.join("\n"));
            return Err(ScriptError::Violation { line, command, violation, trace });
        }
        if difference.is_none() && actual != expected {
            let diff = parse::diff(&expected, &actual);
            difference = Some(Difference { line, command: command.clone(), diff });
        }
        rewritten.push_str(&format!("{command}\n"));
        actual.iter().for_each(|l| rewritten.push_str(&format!("  {l}\n")));
        rewritten.push('\n');
    }
    let rewritten = format!("{}\n", rewritten.trim_end());
    Ok(Outcome { rewritten, difference, commands: blocks })
}

/// Runs a script; a difference of traces is an error.
///
/// # Errors
/// See [`ScriptError`].
pub fn check(text: &str) -> Result<Outcome, ScriptError> {
    let mut outcome = run(text)?;
    match outcome.difference.take() {
        Some(difference) => Err(difference.into()),
        None => Ok(outcome),
    }
}

/// Runs the script in a file; a difference of traces is an error.
///
/// # Errors
/// See [`ScriptError`].
pub fn check_file(path: &Path) -> Result<Outcome, ScriptError> {
    check(&read(path)?)
}

/// Runs the script in a file and writes the traces into it as they are. Gives whether the file changed.
///
/// # Errors
/// See [`ScriptError`]; the file is left alone then.
pub fn rewrite(path: &Path) -> Result<bool, ScriptError> {
    let text = read(path)?;
    let rewritten = run(&text)?.rewritten;
    if rewritten == text {
        return Ok(false);
    }
    fs::write(path, rewritten).map_err(|source| ScriptError::Io { path: path.to_owned(), source })?;
    Ok(true)
}

fn read(path: &Path) -> Result<String, ScriptError> {
    fs::read_to_string(path).map_err(|source| ScriptError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
