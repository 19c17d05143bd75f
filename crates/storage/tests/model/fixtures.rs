//! Directories that earlier programs wrote, and what they hold.

use std::path::PathBuf;

use ringraft_core::{LogId, Vote};
use ringraft_storage::{Disk, MemoryDisk, SegmentLog};

use super::contents;

/// What `expected.txt` says of a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) name: String,
    pub(crate) before_first: LogId,
    pub(crate) term: u64,
    pub(crate) vote: Vote,
    pub(crate) entries: Vec<(u64, Vec<u8>)>,
}

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "testdata", name].iter().collect()
}

/// The files of a fixture on a disk that can be cut off; `name` is a folder in `testdata`.
pub(crate) fn fixture(name: &str) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        let file_name = entry.file_name().into_string().unwrap();
        if file_name == "expected.txt" {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        let file = disk.create(&file_name, bytes.len() as u64).unwrap();
        file.write_at(0, &bytes).unwrap();
        file.sync_data().unwrap();
    }
    disk.sync_dir().unwrap();
    disk
}

pub(crate) fn expected(name: &str) -> Vec<Told> {
    let text = std::fs::read_to_string(folder(name).join("expected.txt")).unwrap();
    let mut groups: Vec<Told> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["group", name, index, before_term, term, vote] => groups.push(Told {
                name: name.to_owned(),
                before_first: LogId::new(index.parse().unwrap(), before_term.parse().unwrap()),
                term: term.parse().unwrap(),
                vote: match vote {
                    "-" => Vote::None,
                    peer => Vote::For(peer.parse().unwrap()),
                },
                entries: Vec::new(),
            }),
            [term, hex] => {
                let bytes =
                    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
                groups.last_mut().unwrap().entries.push((term.parse().unwrap(), bytes.collect()));
            }
            _ => panic!("{line:?}"),
        }
    }
    groups
}

pub(crate) fn told(log: &mut SegmentLog) -> Vec<Told> {
    let groups = contents(log).unwrap();
    groups
        .into_iter()
        .filter(|(_, group)| !group.removed)
        .map(|(name, group)| Told {
            name,
            before_first: group.before_first,
            term: group.hard_state.term,
            vote: group.hard_state.vote,
            entries: group.entries,
        })
        .collect()
}
