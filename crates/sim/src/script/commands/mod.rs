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
use super::world::{NodeName, World, WorldError};
use super::{ScriptError, parse};

/// Why a command did not succeed; the line comes later.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("{0}")]
    Syntax(String),
    #[error(transparent)]
    World(#[from] WorldError),
    #[error("{0}")]
    Expectation(String),
}

impl CommandError {
    pub(super) fn at(self, line: usize, command: &str) -> ScriptError {
        match self {
            CommandError::Syntax(message) => ScriptError::Syntax { line, message },
            CommandError::World(source) => ScriptError::World { line, source },
            CommandError::Expectation(message) => {
                ScriptError::Expectation { line, command: command.to_owned(), message }
            }
        }
    }
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

/// Runs one command; `quiet` before it leaves out its trace.
pub(super) fn run(world: &mut World, command: &str) -> Result<()> {
    let mut args = Args { words: parse::words(command) };
    let quiet = args.flag("quiet");
    let result = run_words(world, &mut args);
    if quiet && result.is_ok() && world.violation().is_none() {
        world.take_trace();
    }
    result
}

fn run_words(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.word("a command")?;
    match name {
        "options" => nodes::options(world, args),
        "add-nodes" => nodes::add_nodes(world, args),
        "preset" => nodes::preset(world, args),
        "tick" => nodes::tick(world, args),
        "pause" => nodes::pause(world, args),
        "campaign" => nodes::campaign(world, args),
        "propose" => nodes::propose(world, args),
        "crash" => nodes::crash(world, args),
        "restart" => nodes::restart(world, args),
        "wipe" => nodes::wipe(world, args),
        "shutdown" => nodes::shutdown(world, args),
        "deliver" => messages::deliver(world, args),
        "drop" => messages::drop_messages(world, args),
        "dup" => messages::duplicate(world, args),
        "hold" => messages::hold(world, args, true),
        "release" => messages::hold(world, args, false),
        "cut" => messages::cut(world, args, true),
        "heal" => messages::cut(world, args, false),
        "break" => messages::break_connection(world, args),
        "connect" => messages::connect(world, args),
        "stabilize" => messages::stabilize(world, args),
        "inject" => inject::inject(world, args),
        "persist" => disks::persist(world, args),
        "manual-persist" => disks::manual(world, args, |a| a.persist = false),
        "auto-persist" => disks::manual(world, args, |a| a.persist = true),
        "manual-apply" => disks::manual(world, args, |a| a.apply = false),
        "auto-apply" => disks::manual(world, args, |a| a.apply = true),
        "manual-read" => disks::manual(world, args, |a| a.read = false),
        "auto-read" => disks::manual(world, args, |a| a.read = true),
        "applied" => disks::applied(world, args),
        "answer-read" => disks::answer_read(world, args),
        "show" => inspect::show(world, args),
        "log" => inspect::log(world, args),
        "queue" => inspect::queue(world, args),
        "expect" => inspect::expect(world, args),
        "change" => calls::change(world, args),
        "transfer" => calls::transfer(world, args),
        "read" => calls::read(world, args),
        "reset-peers" => calls::reset_peers(world, args),
        "snapshot" => syntax(format!("{name} is not supported yet")),
        _ => syntax(format!("there is no command {name:?}; docs/scripts.md lists them")),
    }
}
