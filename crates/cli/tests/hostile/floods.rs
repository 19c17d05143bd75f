//! Attacks with many small frames: lines in the log, and work that strangers choose.

use std::time::Duration;

use crate::attack::frames;
use crate::attack::load::LoadOptions;
use crate::attack::sandbox::Sandbox;
use crate::attack::servers::Plan;
use crate::attack::verdict::Verdict;
use crate::strangers::{Strangers, flood};
use crate::trial::{self, Rules};

/// Frames that are sent with one write.
const BLOCK: u32 = 500;
/// What answers may take that nobody reads: 32 MiB for each of eight connections by default, and the server itself.
const ANSWERS_MIB: u64 = 8 * 32 + 128;

/// Classes that nobody knows, with what would forge lines and colour a terminal.
pub(crate) fn unknown_classes(sandbox: &Sandbox) -> Result<Verdict, String> {
    trial::run(sandbox, Plan::default(), LoadOptions::default(), &Rules::default(), |trial| {
        let bad = |id| frames::request(id, b"a\n\x1b[31mFORGED\nFORGED line\r\x1b]0;title\x07", b"x");
        let block: Vec<u8> = (0..BLOCK).flat_map(bad).collect();
        let mut strangers = Strangers::new();
        for address in trial.addresses() {
            let (block, one) = (block.clone(), bad(1));
            strangers.send(move |orders| flood(orders, address, &block, true));
            // A limit for each connection would not hold this one.
            strangers.send(move |orders| {
                while !orders.over() {
                    if let Some(stream) = orders.connect(address) {
                        orders.write(&stream, &one);
                    }
                    orders.pause(Duration::from_millis(1));
                }
            });
        }
        trial.wait(Duration::from_secs(4));
        trial.verdict.note(format!("{} MiB, {} connections", strangers.sent_mib(), strangers.opened()));
        Ok(())
    })
}

/// Connections that send what is no frame.
pub(crate) fn random_bytes(sandbox: &Sandbox) -> Result<Verdict, String> {
    trial::run(sandbox, Plan::default(), LoadOptions::default(), &Rules::default(), |trial| {
        let mut strangers = Strangers::new();
        for (number, address) in trial.addresses().into_iter().enumerate() {
            strangers.send(move |orders| {
                let mut random = number as u64 + 1;
                while !orders.over() {
                    let mut bytes = frames::request(1, frames::GET_SLOTS, b"\x1b[31m\n");
                    for byte in &mut bytes {
                        // Marsaglia's xorshift; one byte of eight becomes another.
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        if random.is_multiple_of(8) {
                            *byte = (random >> 32) as u8;
                        }
                    }
                    if let Some(stream) = orders.connect(address) {
                        orders.write(&stream, &bytes);
                    }
                    orders.pause(Duration::from_millis(1));
                }
            });
        }
        trial.wait(Duration::from_secs(4));
        trial.verdict.note(format!("{} connections", strangers.opened()));
        Ok(())
    })
}

/// Requests that cost the server more than their sender, whose answers are never read.
pub(crate) fn queries(sandbox: &Sandbox) -> Result<Verdict, String> {
    let plan = Plan { groups: 64, ..Plan::default() };
    let load = LoadOptions { writers: 1, pause: Duration::from_millis(200), ..LoadOptions::default() };
    let rules = Rules { rss_mib: ANSWERS_MIB, ..Rules::default() };
    trial::run(sandbox, plan, load, &rules, |trial| {
        let both = |id: u32| {
            let class = if id.is_multiple_of(2) { frames::GET_SLOTS } else { frames::DESCRIBE };
            frames::request(id, class, b"")
        };
        let block: Vec<u8> = (0..BLOCK).flat_map(both).collect();
        let mut strangers = Strangers::new();
        for address in trial.addresses() {
            for _ in 0..8 {
                let block = block.clone();
                strangers.send(move |orders| flood(orders, address, &block, false));
            }
        }
        trial.wait(Duration::from_secs(8));
        trial.verdict.note(format!("{} KiB of queries", strangers.sent_kib()));
        Ok(())
    })
}
