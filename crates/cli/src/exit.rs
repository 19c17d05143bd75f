//! What the program's exit status says.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Fine.
    Fine,
    /// A check failed, the operation was refused, or what was to be printed could not be.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// Nobody knows whether the operation was carried out.
    Unknown,
}

impl Exit {
    /// Says why on stderr, where it can be said.
    pub fn say(self, message: &str) -> Exit {
        crate::logging::say(&format!("ringraft: {message}"));
        self
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unknown => 3,
        })
    }
}
