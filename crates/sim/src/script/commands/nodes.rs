//! Nodes, their time and what is proposed to them.

use ringraft_core::{Configuration, CoreOptions, HardState, Vote};

use super::inject::{Pairs, member};
use super::{Args, Result, key, no_more_keys, parsed, syntax};
use crate::log_image::LogImage;
use crate::script::format;
use crate::script::parse;
use crate::script::world::{NodeName, World};

/// `options key=value…`: settings for the nodes that are added next.
pub(super) fn options(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let mut pairs = args.pairs()?;
    set_options(&mut world.settings, &mut pairs)?;
    no_more_keys(&pairs)
}

/// Takes the settings out of `pairs`.
fn set_options(s: &mut CoreOptions, pairs: &mut Pairs<'_>) -> Result<()> {
    macro_rules! set {
        ($($name:literal => $field:ident,)*) => {
            $(if let Some(value) = key(pairs, $name)? { s.$field = value; })*
        };
    }
    set! {
        "election-timeout-ms" => election_timeout_ms,
        "max-election-delay-ms" => max_election_delay_ms,
        "election-heartbeat-factor" => election_heartbeat_factor,
        "leader-lease-time-ratio" => leader_lease_time_ratio,
        "lease-reads" => lease_reads,
        "read-index-timeout-ms" => read_index_timeout_ms,
        "max-pending-reads" => max_pending_reads,
        "catchup-margin" => catchup_margin,
        "decay-priority-gap" => decay_priority_gap,
        "disk-stall-timeout-ms" => disk_stall_timeout_ms,
        "step-down-when-vote-timedout" => step_down_when_vote_timedout,
        "max-entries-size" => max_entries_size,
        "max-body-size" => max_body_size,
        "max-replicator-inflight-msgs" => max_replicator_inflight_msgs,
        "max-replicator-inflight-bytes" => max_replicator_inflight_bytes,
        "rpc-default-timeout-ms" => rpc_default_timeout_ms,
        "max-unstable-entries" => max_unstable_entries,
        "max-unstable-bytes" => max_unstable_bytes,
        "max-unapplied-entries" => max_unapplied_entries,
        "max-unapplied-bytes" => max_unapplied_bytes,
        "max-tail-bytes" => max_tail_bytes,
    }
    if let Some(lag) = key(pairs, "max-read-index-lag")? {
        s.max_read_index_lag = Some(lag);
    }
    Ok(())
}

/// `add-nodes 1 2 3 [learner 4…]`, `add-nodes 1:100 2:40` with priorities, or `add-nodes 5 conf=none` for a node that knows
/// no configuration.
pub(super) fn add_nodes(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (mut conf, mut learner) = (Configuration::default(), false);
    while let Some(word) = args.words.pop_front() {
        match word {
            "learner" => learner = true,
            "conf=none" => {
                for name in conf.peers.iter().filter_map(format::name_of) {
                    world.add_node(name, Configuration::default())?;
                }
                return args.end();
            }
            _ if learner => conf.learners.push(member(word)?),
            _ => conf.peers.push(member(word)?),
        }
    }
    if conf.peers.is_empty() {
        return syntax("add-nodes needs at least one voter");
    }
    let mut names = conf.peers.iter().chain(&conf.learners).map(format::name_of);
    if names.any(|name| name.is_none_or(|n| n == 0 || n > 999)) {
        return syntax("nodes are numbered 1 to 999");
    }
    Ok(world.add_group(&conf)?)
}

/// `preset N [term=T] [vote=V] [log=1,1,2]`: starts the node anew over a disk with this content.
pub(super) fn preset(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let mut pairs = args.pairs()?;
    let terms: String = key(&mut pairs, "log")?.unwrap_or_default();
    let terms = terms.split(',').filter(|t| !t.is_empty());
    let terms = terms.map(|t| parsed("a term", t)).collect::<Result<Vec<u64>>>()?;
    let term = key(&mut pairs, "term")?.or(terms.last().copied()).unwrap_or(0);
    let vote = key(&mut pairs, "vote")?.map_or(Vote::None, |name| Vote::For(format::peer_of(name)));
    no_more_keys(&pairs)?;
    if terms.windows(2).any(|w| w[0] > w[1]) {
        return syntax("terms never decrease along a log");
    }
    if world.is_running(name) {
        world.crash(name)?;
        world.take_trace();
    }
    world.set_disk(name, LogImage::preset(HardState { term, vote }, &terms))?;
    Ok(world.restart(name, 0)?)
}

/// `tick N MS`; `*` for every running node.
pub(super) fn tick(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let names = some_or_all(world, args)?;
    let ms = args.take("a number of milliseconds")?;
    args.end()?;
    for name in names {
        world.tick(name, ms)?;
    }
    Ok(())
}

/// `pause N MS`: the node's clock moves, the node is not told.
pub(super) fn pause(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let names = some_or_all(world, args)?;
    let ms = args.take("a number of milliseconds")?;
    args.end()?;
    for name in names {
        world.pause(name, ms)?;
    }
    Ok(())
}

fn some_or_all(world: &World, args: &mut Args<'_>) -> Result<Vec<NodeName>> {
    if args.flag("*") {
        return Ok(world.names().into_iter().filter(|n| world.is_running(*n)).collect());
    }
    Ok(vec![args.take("a node number")?])
}

/// `campaign N`: moves the node's clock until its election time-out.
pub(super) fn campaign(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    args.end()?;
    Ok(world.campaign(name)?)
}

/// `propose N DATA…`: all as one chunk.
pub(super) fn propose(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let payloads: Vec<Vec<u8>> = args.words.drain(..).map(parse::payload).collect();
    if payloads.is_empty() {
        return syntax("there is nothing to propose");
    }
    Ok(world.propose(name, &payloads)?)
}

/// `crash N`.
pub(super) fn crash(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    args.end()?;
    Ok(world.crash(name)?)
}

/// `restart N [lose-unsynced | keep-unsynced=K] [key=value…]`, with other settings perhaps.
pub(super) fn restart(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    let lost = args.flag("lose-unsynced").then_some(0);
    let mut pairs = args.pairs()?;
    let kept = match lost {
        Some(kept) => kept,
        None => key(&mut pairs, "keep-unsynced")?.unwrap_or(usize::MAX),
    };
    set_options(world.settings_of(name)?, &mut pairs)?;
    no_more_keys(&pairs)?;
    Ok(world.restart(name, kept)?)
}

/// `wipe N [rejoin]`: empties the disk of a node that is down; with `rejoin` it starts as one that has lost its disk.
pub(super) fn wipe(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    if args.flag("rejoin") {
        world.rejoin(name)?;
    }
    args.end()?;
    Ok(world.wipe(name)?)
}

/// `shutdown N`.
pub(super) fn shutdown(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let name = args.take("a node number")?;
    args.end()?;
    Ok(world.shutdown(name)?)
}
