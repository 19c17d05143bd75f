//! The commands of the language, one file a group.

mod calls;
mod disks;
mod inject;
mod inspect;
mod messages;
mod nodes;

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use super::network::Link;
use super::parse;
use super::world::{NodeName, World, WorldError};

/// What a command was that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// Its trace is to be shown.
    Shown,
    /// `quiet`: its trace is left out.
    Quiet,
    /// An `expect` that holds.
    Expectation,
}

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("{0}")]
    Syntax(String),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error("{0}")]
    Expectation(String),
}

type Result<T> = std::result::Result<T, CommandError>;

fn syntax<T>(message: impl Into<String>) -> Result<T> {
    Err(CommandError::Syntax(message.into()))
}

/// Words that are not taken yet.
struct Args<'a> {
    words: VecDeque<&'a str>,
}

impl<'a> Args<'a> {
    /// The next word.
    fn word(&mut self, what: &str) -> Result<&'a str> {
        self.words.pop_front().map_or_else(|| syntax(format!("{what} is missing")), Ok)
    }

    /// The next word as a number, or as whatever can be read from a word.
    fn take<T: FromStr>(&mut self, what: &str) -> Result<T> {
        parsed(what, self.word(what)?)
    }

    /// The next word as a link `A->B`.
    fn link(&mut self) -> Result<Link> {
        let word = self.word("a link A->B")?;
        link(word).map_or_else(|| syntax(format!("{word:?} is no link; write A->B")), Ok)
    }

    /// The next word if it is exactly this.
    fn flag(&mut self, flag: &str) -> bool {
        let found = self.words.front() == Some(&flag);
        if found {
            self.words.pop_front();
        }
        found
    }

    /// All remaining words as `key=value`.
    fn pairs(&mut self) -> Result<BTreeMap<&'a str, &'a str>> {
        let mut pairs = BTreeMap::new();
        while let Some(word) = self.words.pop_front() {
            let Some((key, value)) = word.split_once('=') else {
                return syntax(format!("{word:?} is not key=value"));
            };
            if pairs.insert(key, value).is_some() {
                return syntax(format!("{key} is given twice"));
            }
        }
        Ok(pairs)
    }

    /// All remaining words as node numbers.
    fn names(&mut self) -> Result<Vec<NodeName>> {
        std::mem::take(&mut self.words).into_iter().map(|w| parsed("a node number", w)).collect()
    }

    fn end(&self) -> Result<()> {
        self.words.front().map_or(Ok(()), |w| syntax(format!("{w:?} is one word too many")))
    }
}

fn parsed<T: FromStr>(what: &str, word: &str) -> Result<T> {
    word.parse().map_or_else(|_| syntax(format!("{word:?} is not {what}")), Ok)
}

fn link(word: &str) -> Option<Link> {
    let (from, to) = word.split_once("->")?;
    Some(Link { from: from.parse().ok()?, to: to.parse().ok()? })
}

/// Takes a key from pairs and reads its value.
fn key<T: FromStr>(pairs: &mut BTreeMap<&str, &str>, name: &str) -> Result<Option<T>> {
    pairs.remove(name).map(|value| parsed(&format!("a value for {name}"), value)).transpose()
}

fn no_more_keys(pairs: &BTreeMap<&str, &str>) -> Result<()> {
    pairs.keys().next().map_or(Ok(()), |k| syntax(format!("there is no key {k:?} here")))
}

/// Does one command with the words that follow its name.
type Command = fn(&mut World, &mut Args<'_>) -> Result<()>;

/// All commands by their names. `docs/scripts.md` describes each (a test sees to it).
const COMMANDS: &[(&str, Command)] = &[
    ("options", nodes::options),
    ("add-nodes", nodes::add_nodes),
    ("preset", nodes::preset),
    ("tick", nodes::tick),
    ("pause", nodes::pause),
    ("campaign", nodes::campaign),
    ("propose", nodes::propose),
    ("crash", nodes::crash),
    ("restart", nodes::restart),
    ("wipe", nodes::wipe),
    ("shutdown", nodes::shutdown),
    ("read", calls::read),
    ("change", calls::change),
    ("transfer", calls::transfer),
    ("reset-peers", calls::reset_peers),
    ("deliver", messages::deliver),
    ("drop", messages::drop_messages),
    ("dup", messages::duplicate),
    ("break", messages::break_connection),
    ("hold", messages::hold),
    ("release", messages::release),
    ("cut", messages::cut),
    ("heal", messages::heal),
    ("connect", messages::connect),
    ("stabilize", messages::stabilize),
    ("queue", inspect::queue),
    ("inject", inject::inject),
    ("manual-persist", |world, args| disks::manual(world, args, |a| a.persist = false)),
    ("auto-persist", |world, args| disks::manual(world, args, |a| a.persist = true)),
    ("persist", disks::persist),
    ("manual-apply", |world, args| disks::manual(world, args, |a| a.apply = false)),
    ("auto-apply", |world, args| disks::manual(world, args, |a| a.apply = true)),
    ("applied", disks::applied),
    ("manual-read", |world, args| disks::manual(world, args, |a| a.read = false)),
    ("auto-read", |world, args| disks::manual(world, args, |a| a.read = true)),
    ("answer-read", disks::answer_read),
    ("show", inspect::show),
    ("log", inspect::log),
    ("expect", inspect::expect),
    ("snapshot", |_, _| syntax("snapshot is not supported yet")),
];

/// Names of all commands.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| command.0)
}

/// Runs one command; `quiet` before it leaves out its trace.
pub(super) fn run(world: &mut World, command: &str) -> Result<Done> {
    let mut args = Args { words: parse::words(command) };
    let quiet = args.flag("quiet");
    let name = args.word("a command")?;
    let Some((_, command)) = COMMANDS.iter().find(|c| c.0 == name) else {
        return syntax(format!("there is no command {name:?}; docs/scripts.md lists them"));
    };
    command(world, &mut args)?;
    Ok(match name {
        "expect" => Done::Expectation,
        _ if quiet => Done::Quiet,
        _ => Done::Shown,
    })
}
