//! The counters of one range group.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ringraft::LogIndex;

use crate::command::{Answer, Command};

/// Counters by name, with a hash of all of them by which replicas are compared.
///
/// The hash is a sum over the counters, so that it does not depend on their order and a write changes it in constant time.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    values: HashMap<Box<str>, i64>,
    hash: u64,
    index: LogIndex,
}

impl Counters {
    /// Carries out the command at `index` of the log.
    pub fn apply(&mut self, index: LogIndex, command: Command) -> Answer {
        self.index = index;
        match command {
            Command::Set { key, value } => {
                self.set(key, value);
                Answer::Changed(true)
            }
            Command::CompareAndSet { key, expect, new_value } => {
                let equal = self.get(&key).unwrap_or(0) == expect;
                if equal {
                    self.set(key, new_value);
                }
                Answer::Changed(equal)
            }
            Command::IncrementAndGet { key, delta } => {
                let value = self.get(&key).unwrap_or(0).wrapping_add(delta);
                self.set(key, value);
                Answer::Value(Some(value))
            }
            Command::Get { key } => Answer::Value(self.get(&key)),
        }
    }

    /// A counter's value; `None` when it was never set.
    pub fn get(&self, key: &str) -> Option<i64> {
        self.values.get(key).copied()
    }

    /// Counters that were ever set.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no counter was ever set.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Hash of every counter and its value.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Index of the last command that was carried out; 0 before the first.
    pub fn index(&self) -> LogIndex {
        self.index
    }

    fn set(&mut self, key: String, value: i64) {
        let name = hash_of_name(&key);
        match self.values.entry(key.into_boxed_str()) {
            Entry::Occupied(mut slot) => {
                let before = slot.insert(value);
                self.hash = self.hash.wrapping_sub(hash_of_counter(name, before));
            }
            Entry::Vacant(slot) => {
                slot.insert(value);
            }
        }
        self.hash = self.hash.wrapping_add(hash_of_counter(name, value));
    }
}

fn hash_of_name(key: &str) -> u64 {
    // FNV-1a: the same on every machine and in every version, which the standard hasher does not promise.
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn hash_of_counter(name: u64, value: i64) -> u64 {
    mix(mix(name).wrapping_add(value as u64))
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: i64) -> Command {
        Command::Set { key: key.into(), value }
    }

    #[test]
    fn commands_do_what_they_say() {
        let mut counters = Counters::default();
        let key = || "k".to_owned();
        let cas = |expect, new_value| Command::CompareAndSet { key: key(), expect, new_value };
        let inc = |delta| Command::IncrementAndGet { key: key(), delta };
        assert_eq!(counters.apply(1, Command::Get { key: key() }), Answer::Value(None));
        assert_eq!(counters.apply(2, cas(1, 9)), Answer::Changed(false));
        assert!(counters.is_empty(), "neither reads nor failed comparisons create a counter");
        assert_eq!(counters.apply(3, cas(0, 9)), Answer::Changed(true));
        assert_eq!(counters.apply(4, inc(3)), Answer::Value(Some(12)));
        assert_eq!(counters.apply(5, set("k", i64::MAX)), Answer::Changed(true));
        assert_eq!(counters.apply(6, inc(1)), Answer::Value(Some(i64::MIN)));
        assert_eq!(counters.get("k"), Some(i64::MIN));
        assert_eq!((counters.len(), counters.index()), (1, 6));
    }

    #[test]
    fn the_hash_is_that_of_the_state_and_not_of_the_way_to_it() {
        let run = |commands: &[Command]| {
            let mut counters = Counters::default();
            for (i, command) in commands.iter().enumerate() {
                counters.apply(i as u64 + 1, command.clone());
            }
            counters.hash()
        };
        let state = run(&[set("a", 1), set("b", 2)]);
        assert_eq!(state, run(&[set("b", 7), set("a", 1), set("b", 2)]));
        assert_ne!(state, run(&[set("a", 2), set("b", 1)]), "values that changed places");
        assert_ne!(state, run(&[set("a", 1), set("b", 3)]));
        assert_ne!(state, run(&[set("a", 1)]));
        assert_ne!(run(&[set("a", 0)]), run(&[]), "a counter of 0 is not the same as none");
    }
}
