//! What may be wrong with a configuration file.

use std::path::PathBuf;

use ringraft::{Configuration, PeerId};

/// What is wrong with a configuration file, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {message}; give the path of the server's configuration file")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        message: String,
    },
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// No such key.
    #[error("unknown key {key:?}; {hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What to write instead.
        hint: String,
    },
    /// A key that must be there is not.
    #[error("key {key:?} is missing; add it, for example {key} = {example}")]
    Missing {
        /// The key.
        key: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A value of the wrong type.
    #[error("{key} is {value}, which is {found}; write {expected}, for example {key} = {example}")]
    Type {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// Its type.
        found: &'static str,
        /// The type that is wanted.
        expected: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// An empty text.
    #[error("{key} is blank; fill it in, for example {key} = {example}")]
    Blank {
        /// The key.
        key: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A number out of its range.
    #[error("{key} is {value}; it must be between {min} and {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: i64,
        /// The smallest that is allowed.
        min: i64,
        /// The largest that is allowed.
        max: i64,
    },
    /// Files of the log end where a sector ends.
    #[error("segment_file_bytes is {0}; it must be a multiple of 512")]
    FileBytes(u64),
    /// The range ends before it begins.
    #[error("min_slot is {min} and max_slot is {max}; min_slot must not be above max_slot")]
    SlotBounds {
        /// `min_slot`.
        min: i64,
        /// `max_slot`.
        max: i64,
    },
    /// More ranges than the bounds can be cut into.
    #[error(
        "total_slots is {total}, but {min}..{max} cannot be cut into that many ranges of equal step without an empty one; lower total_slots"
    )]
    SlotCount {
        /// `total_slots`.
        total: usize,
        /// `min_slot`.
        min: i64,
        /// `max_slot`.
        max: i64,
    },
    /// A name of which no group can be made.
    #[error("group_id is {value:?}: {message}")]
    GroupId {
        /// The name.
        value: String,
        /// Why not.
        message: String,
    },
    /// An address that is none.
    #[error(
        "{key} holds {value:?}, which is not an address; write ip:port or name:port, for example \"127.0.0.1:8081\""
    )]
    Address {
        /// The key.
        key: &'static str,
        /// The address as written.
        value: String,
    },
    /// An address that means "any of mine" to each who reads it.
    #[error(
        "{key} holds {value}, which every server would take for itself; write the ip under which the other servers reach it"
    )]
    Unspecified {
        /// The key.
        key: &'static str,
        /// The address as written.
        value: String,
    },
    /// A path that only a shell understands.
    #[error(
        "{key} is {value:?}, but ~ has no meaning here; write the whole path, for example {key} = \"/home/me/ringraft\""
    )]
    Home {
        /// The key.
        key: &'static str,
        /// The path as written.
        value: String,
    },
    /// `listen` is no address of this machine, by its looks.
    #[error(
        "listen is {0:?}; write ip:port in digits, for example \"0.0.0.0:8081\" for every address of this machine"
    )]
    Listen(String),
    /// A server is known by a name, at which nothing can listen.
    #[error(
        "server_address {server} is a name and no address to listen at; say where to listen, for example listen = {example}, or write \
         server_address as ip:port"
    )]
    NameWithoutListen {
        /// `server_address`.
        server: PeerId,
        /// A value of `listen` that would do.
        example: String,
    },
    /// A member that stands twice.
    #[error("conf lists {0} more than once; list each member once")]
    Duplicate(PeerId),
    /// A configuration in which nobody votes.
    #[error("conf is {0:?}, in which nobody votes; list at least one member without /learner")]
    NoVoter(String),
    /// This server is not a member.
    #[error(
        "server_address {server} is not in conf ({conf}); add it there, on every server, or correct server_address"
    )]
    NotMember {
        /// `server_address`.
        server: PeerId,
        /// `conf`.
        conf: Configuration,
    },
    /// A word that is not one of those allowed.
    #[error("{key} is {value:?}; write one of {allowed}")]
    Word {
        /// The key.
        key: &'static str,
        /// The word as written.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A rule of the engine that the values break together.
    #[error("{0}")]
    Options(String),
}
