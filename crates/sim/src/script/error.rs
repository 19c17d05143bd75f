//! Why a script does not pass.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::world::WorldError;
use crate::checkers::Violation;

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

/// An `expect` that is false.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{command}` is false:\n{message}\nwhat happened before it:\n{trace}")]
pub struct FalseExpectation {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command.
    pub command: String,
    /// Each key with what was expected and what is.
    pub message: String,
    /// The commands since the last `expect` that held, with their traces, those of quiet commands too.
    pub trace: String,
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
    #[error(transparent)]
    Expectation(#[from] FalseExpectation),
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
    /// The script failed behind a line at which its traces had differed already, which may be why.
    #[error("{error}\nand before that, {difference}")]
    After {
        /// Where the traces first differ.
        difference: Difference,
        /// What failed later.
        error: Box<ScriptError>,
    },
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
            ScriptError::Expectation(_) | ScriptError::Violation { .. } | ScriptError::Difference(_) => 1,
            ScriptError::After { error, .. } => error.exit_code(),
        }
    }

    /// The same, with what differed before it. That a trace is not written yet says nothing.
    pub(super) fn after(self, difference: Option<Difference>) -> ScriptError {
        match difference.filter(|d| d.diff.lines().any(|line| !line.starts_with("  +"))) {
            Some(difference) => ScriptError::After { difference, error: Box::new(self) },
            None => self,
        }
    }
}

/// What happened since the last `expect` that held: enough of it to see why the next one is false.
#[derive(Debug, Default)]
pub(super) struct History {
    lines: VecDeque<String>,
    left_out: usize,
}

impl History {
    /// Lines that an error shows at most.
    pub(super) const MOST: usize = 100;

    pub(super) fn push(&mut self, command: &str, trace: &[String]) {
        self.lines.push_back(command.to_owned());
        self.lines.extend(trace.iter().map(|line| format!("  {line}")));
        let surplus = self.lines.len().saturating_sub(Self::MOST);
        self.lines.drain(..surplus);
        self.left_out += surplus;
    }

    /// An expectation held.
    pub(super) fn clear(&mut self) {
        *self = History::default();
    }

    pub(super) fn text(&self) -> String {
        let mut lines: Vec<String> = match self.left_out {
            0 => Vec::new(),
            n => vec![format!("    … {n} lines before")],
        };
        lines.extend(self.lines.iter().map(|line| format!("    {line}")));
        lines.join("\n")
    }
}
