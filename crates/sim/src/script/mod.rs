//! Golden scripts: commands with the exact trace that each must have. `docs/scripts.md` describes the language.

mod commands;
mod error;
pub(crate) mod format;
mod host;
mod network;
mod parse;
mod world;

use std::fs;
use std::path::Path;

pub use error::{Difference, FalseExpectation, ScriptError};
pub use host::{Automatic, ModelFsm};
pub use network::{Body, Filter, InvalidKind, Kind, Link, Message, Network, What};
pub use world::{NodeName, ReadAnswer, Settings, World, WorldError};

use commands::{CommandError, Done};
use error::History;

/// What a script that ran to its end did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The script with the traces as they are.
    pub rewritten: String,
    /// Where the traces first differ from what the script says.
    pub difference: Option<Difference>,
    /// The first `expect` that is false. Differences of traces behind it are not looked for.
    pub expectation: Option<FalseExpectation>,
    /// Commands that were run.
    pub commands: usize,
}

impl Outcome {
    /// Takes what was not as the script says.
    pub fn failure(&mut self) -> Option<ScriptError> {
        let difference = self.difference.take();
        match self.expectation.take() {
            Some(expectation) => Some(ScriptError::from(expectation).after(difference)),
            None => difference.map(ScriptError::from),
        }
    }
}

/// Runs a script to its end, also behind traces that differ and expectations that are false.
///
/// # Errors
/// Everything but a difference of traces and a false `expect`, which are in the [`Outcome`]; when the script cannot go
/// on after an `expect` was false, that `expect`.
pub fn run(text: &str) -> Result<Outcome, ScriptError> {
    let mut outcome = Outcome::default();
    match run_into(text, &mut outcome) {
        Ok(()) => Ok(outcome),
        Err(error) => Err(match outcome.expectation {
            Some(first) => ScriptError::from(first).after(outcome.difference),
            None => error.after(outcome.difference),
        }),
    }
}

fn run_into(text: &str, outcome: &mut Outcome) -> Result<(), ScriptError> {
    let mut world = World::new();
    let mut history = History::default();
    for block in parse::blocks(text)? {
        let parse::Block { line, comments, command, expected } = block;
        comments.iter().for_each(|c| outcome.rewritten.push_str(&format!("{c}\n")));
        let Some(command) = command else { continue };
        outcome.commands += 1;
        let result = commands::run(&mut world, &command);
        let trace = world.take_trace();
        let quiet = matches!(result, Ok(Done::Quiet));
        match result {
            Ok(Done::Expectation) => history.clear(),
            Ok(Done::Shown | Done::Quiet) => history.push(&command, &trace),
            Err(CommandError::Expectation(message)) => {
                let (command, trace) = (command.clone(), history.text());
                outcome.expectation.get_or_insert(FalseExpectation { line, command, message, trace });
            }
            Err(CommandError::Syntax(message)) => return Err(ScriptError::Syntax { line, message }),
            Err(CommandError::World(source)) => return Err(ScriptError::World { line, source }),
        }
        if let Some(violation) = world.violation() {
            let (violation, trace) = (violation.clone(), trace.join("\n"));
            return Err(ScriptError::Violation { line, command, violation, trace });
        }
        let shown = if quiet { Vec::new() } else { trace };
        // Indentation is for the reader: a script keeps its own, and what is printed may be nested.
        let actual: Vec<String> = shown.iter().map(|line| line.trim().to_owned()).collect();
        if actual != expected && outcome.difference.is_none() && outcome.expectation.is_none() {
            let diff = parse::diff(&expected, &actual);
            outcome.difference = Some(Difference { line, command: command.clone(), diff });
        }
        outcome.rewritten.push_str(&format!("{command}\n"));
        shown.iter().for_each(|l| outcome.rewritten.push_str(&format!("  {}\n", l.trim_end())));
        outcome.rewritten.push('\n');
    }
    outcome.rewritten = format!("{}\n", outcome.rewritten.trim_end());
    Ok(())
}

/// Runs a script; a difference of traces and a false `expect` are errors.
///
/// # Errors
/// See [`ScriptError`].
pub fn check(text: &str) -> Result<Outcome, ScriptError> {
    let mut outcome = run(text)?;
    match outcome.failure() {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// Runs the script in a file; a difference of traces and a false `expect` are errors.
///
/// # Errors
/// See [`ScriptError`].
pub fn check_file(path: &Path) -> Result<Outcome, ScriptError> {
    check(&read(path)?)
}

/// Runs the script in a file and writes the traces into it as they are. Gives whether the file changed.
///
/// # Errors
/// See [`ScriptError`]. The file is left alone then, unless all that is wrong is an `expect`: the traces of a script
/// that ran to its end are written.
pub fn rewrite(path: &Path) -> Result<bool, ScriptError> {
    let text = read(path)?;
    let mut outcome = run(&text)?;
    let changed = outcome.rewritten != text;
    if changed {
        let written = fs::write(path, &outcome.rewritten);
        written.map_err(|source| ScriptError::Io { path: path.to_owned(), source })?;
    }
    outcome.difference = None;
    outcome.failure().map_or(Ok(changed), Err)
}

fn read(path: &Path) -> Result<String, ScriptError> {
    fs::read_to_string(path).map_err(|source| ScriptError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
