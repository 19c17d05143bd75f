//! `make hostile`: attacks on real clusters of three servers under honest load. docs/testing.md says what each must come to.

#[path = "../attack/mod.rs"]
mod attack;
mod entries;
mod floods;
mod outage;
mod planted;
mod resources;
mod stderr;
mod strangers;
mod trial;

use std::process::ExitCode;

use attack::sandbox::{self, Sandbox};
use attack::verdict::{Table, Verdict};

type Attack = fn(&Sandbox) -> Result<Verdict, String>;

/// Every attack, by the name of its line. `cargo test … -- WORD` runs those whose names hold the word.
const ATTACKS: [(&str, Attack); 14] = [
    ("descriptors: 1,500 connections, 256 allowed", resources::descriptors),
    ("descriptors: as many files as are allowed", resources::files),
    ("one entry of 64 MiB and a high term", entries::large_entry),
    ("bystanders of five that hold 64 MiB each", resources::bystanders),
    ("memory: 40 that announce 64 MiB and send", resources::announced_frames),
    ("5,000 connections with a heartbeat each", resources::slots),
    ("frames of classes nobody knows", floods::unknown_classes),
    ("frames of random bytes", floods::random_bytes),
    ("queries of 8 that never read, 64 groups", floods::queries),
    ("silence: a leader is cut off for 15 s", outage::leader),
    ("silence: all are cut off for 15 s", outage::everybody),
    ("stderr: its reader goes away", stderr::reader_goes_away),
    ("stderr: its reader stands still", stderr::reader_stands_still),
    ("stderr: its disk is full", stderr::disk_is_full),
];

fn main() -> ExitCode {
    let sandbox = match sandbox::enter() {
        Ok(sandbox) => sandbox,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    println!(
        "{} descriptors for this process; {}",
        sandbox.descriptors,
        if sandbox.networks { "networks of its own" } else { "no namespaces: networks cannot be cut off" }
    );
    // A run that cannot see what is wrong says nothing about what it finds right.
    if wanted("planted")
        && let Err(error) = planted::are_seen(&sandbox)
    {
        println!("the run itself is wrong: {error}");
        println!("0 of {} held", ATTACKS.len());
        return ExitCode::FAILURE;
    }
    let mut table = Table::new();
    for (name, attack) in ATTACKS.into_iter().filter(|(name, _)| wanted(name)) {
        if name.starts_with("silence") && !sandbox.networks {
            println!(
                "{name:<44} not run: it needs network namespaces (root, or user namespaces that are allowed)"
            );
            continue;
        }
        table.run(name, || attack(&sandbox));
    }
    table.finish()
}
