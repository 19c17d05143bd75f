//! Looking at nodes, and saying what must be so.

use super::{Args, CommandError, Result, syntax};
use crate::script::format;
use crate::script::world::{NodeName, World};

/// `show N`: the node's own description, its disk and its state machine.
pub(super) fn show(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    args.end()?;
    let description = format::short(&world.node(name)?.describe().to_string());
    let disk = world.disk(name)?;
    let in_flight: Vec<String> = disk.in_flight().map(|s| s.to_string()).collect();
    let stable = format!(
        "disk {} log {}..={} in flight: {}",
        format::hard_state(disk.stable().hard_state()),
        disk.stable().first_index(),
        disk.stable().last_index(),
        if in_flight.is_empty() { "-".to_owned() } else { in_flight.join(" ") }
    );
    let data: Vec<String> = world.fsm(name)?.data.iter().map(|d| format::data(d)).collect();
    let clock = world.clock(name)?.0 / 1000;
    description.lines().for_each(|line| world.note(|| line.to_owned()));
    world.note(|| stable);
    world.note(|| format!("fsm {}", if data.is_empty() { "-".to_owned() } else { data.join(" ") }));
    world.note(|| format!("clock {clock} ms"));
    Ok(())
}

/// `log N`: what the node accepted, one entry a line.
pub(super) fn log(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    args.end()?;
    let disk = world.disk(name)?;
    let (accepted, stable) = (disk.accepted(), disk.stable());
    let lines: Vec<String> = accepted
        .read(accepted.first_index(), accepted.last_index(), usize::MAX)
        .iter()
        .flat_map(|c| (c.first_index()..=c.last_index()).filter_map(|i| c.slice(i, i)))
        .map(|entry| {
            let index = entry.first_index();
            let durable = stable.chain_at(index) == accepted.chain_at(index);
            format!("{}{}", format::chunk(&entry), if durable { "" } else { " (not durable)" })
        })
        .collect();
    lines.into_iter().for_each(|line| world.note(|| line));
    Ok(())
}

/// `queue`: every message under way, and which of them are held.
pub(super) fn queue(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    args.end()?;
    let mut lines = Vec::new();
    for link in world.network().busy_links() {
        lines.extend(world.network().queued(link).map(|m| {
            let held = if world.network().is_held(link, m.kind) { " (held)" } else { "" };
            format!("{link} {}{held}", format::message(m))
        }));
    }
    lines.into_iter().for_each(|line| world.note(|| line));
    Ok(())
}

/// `expect N key=value…`: every value must be exactly this.
pub(super) fn expect(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name: NodeName = args.take("a node number")?;
    let pairs = args.pairs()?;
    if pairs.is_empty() {
        return syntax("say what is expected as key=value");
    }
    let mut wrong = Vec::new();
    for (key, expected) in pairs {
        let actual = value(world, name, key)?;
        if actual != expected {
            wrong.push(format!("  {key} is {actual}, expected {expected}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(CommandError::Expectation(wrong.join("\n"))) }
}

fn value(world: &World, name: NodeName, key: &str) -> Result<String> {
    if key == "state" && !world.is_running(name) {
        world.disk(name)?;
        return Ok("DOWN".to_owned());
    }
    let disk = world.disk(name)?;
    match key {
        "disk-term" => return Ok(disk.stable().hard_state().term.to_string()),
        "disk-vote" => return Ok(format::short(&disk.stable().hard_state().vote.to_string())),
        "disk-last" => return Ok(disk.stable().last_index().to_string()),
        "in-flight" => return Ok(disk.in_flight().count().to_string()),
        "log" => {
            let terms: Vec<String> = disk.accepted().entries().map(|(_, e)| e.term.to_string()).collect();
            return Ok(terms.join(","));
        }
        "data" => {
            let data = world.fsm(name)?.data.iter().map(|d| d.escape_ascii().to_string());
            return Ok(data.collect::<Vec<_>>().join(","));
        }
        _ => {}
    }
    let d = world.node(name)?.describe();
    if let Some((peer, what)) = key.strip_prefix("peer").and_then(|k| k.split_once('.')) {
        let Some(r) = d.replicators.iter().find(|r| format::peer(&r.peer) == peer) else {
            return syntax(format!("node {name} does not replicate to {peer}"));
        };
        return Ok(match what {
            "state" => r.state.replace(", ", "+"),
            "next" => r.next_index.to_string(),
            "match" => r.match_index.to_string(),
            "inflight" => r.inflights.to_string(),
            "errors" => r.consecutive_errors.to_string(),
            _ => {
                return syntax(format!(
                    "a peer has no {what:?}; it has state, next, match, inflight, errors"
                ));
            }
        });
    }
    Ok(match key {
        "state" => d.state.to_string(),
        "term" => d.term.to_string(),
        "vote" => format::short(&d.vote.to_string()),
        "leader" => format::optional_peer(d.leader_id.as_ref()),
        "last" => d.last_log_id.to_string(),
        "stable" => d.stable_index.to_string(),
        "commit" => d.committed_index.to_string(),
        "applied" => d.applied_index.to_string(),
        "conf" => format::short(&d.configuration).replace(' ', ""),
        "removed" => d.removed_at.map_or("-".to_owned(), |at| at.to_string()),
        "error" => d.last_error.map_or("-".to_owned(), |e| e.error.name().to_owned()),
        "clock" => (world.clock(name)?.0 / 1000).to_string(),
        "calls" => world.open_calls(name).to_string(),
        _ => {
            return syntax(format!(
                "there is no {key:?} to expect; there are state, term, vote, leader, last, stable, commit, applied, \
                 conf, removed, error, clock, calls, log, data, disk-term, disk-vote, disk-last, in-flight, and \
                 peerN.state|next|match|inflight|errors on a leader"
            ));
        }
    })
}
