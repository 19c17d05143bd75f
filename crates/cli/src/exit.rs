//! What the program's exit status says.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Fine.
    Fine,
    /// A check failed or the operation was refused.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// Nobody knows whether the operation was carried out.
    Unknown,
}

impl Exit {
    /// Says why on stderr.
    pub fn say(self, message: &str) -> Exit {
        eprintln!("ringraft: {message}");
        self
    }

    /// Says why on stderr and becomes the status.
    pub fn report(self, message: &str) -> ExitCode {
        self.say(message).into()
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
