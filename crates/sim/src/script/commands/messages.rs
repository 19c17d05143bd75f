//! What happens to messages on their way.

use super::{Args, Result, key, link, no_more_keys, parsed, syntax};
use crate::script::network::{Filter, Kind, Link};
use crate::script::world::{NodeName, World};

/// `[A->B] [KIND] [skip=K] [n=K]`; without a link every busy one, and nothing that is held. Who names a link means what is
/// held on it, too.
fn selection(world: &World, args: &mut Args<'_>) -> Result<(Vec<Link>, Filter)> {
    let (links, named) = match args.words.front().and_then(|w| link(w)) {
        Some(link) => {
            args.words.pop_front();
            known(world, link)?;
            (vec![link], true)
        }
        None => (world.network().busy_links(), false),
    };
    let mut filter = Filter { held: named, ..Filter::default() };
    if let Some(word) = args.words.front().filter(|w| !w.contains('=')) {
        filter.kind = Some(kind(word)?);
        args.words.pop_front();
    }
    let mut pairs = args.pairs()?;
    filter.skip = key(&mut pairs, "skip")?.unwrap_or(0);
    filter.count = key(&mut pairs, "n")?;
    no_more_keys(&pairs)?;
    Ok((links, filter))
}

fn kind(word: &str) -> Result<Kind> {
    word.parse().or_else(|e: crate::script::InvalidKind| syntax(e.to_string()))
}

/// A selection that is empty is a mistake; says where the messages are that one might have meant.
fn something(world: &World, links: &[Link], filter: Filter, count: usize) -> Result<()> {
    if count > 0 {
        return Ok(());
    }
    let mut message = "no message matches; `queue` shows what is under way".to_owned();
    let wanted = |kind: Kind| filter.kind.is_none_or(|k| k == kind);
    for link in links {
        let here = world.network().queued(*link);
        let held = here.filter(|m| wanted(m.kind) && world.network().is_held(*link, m.kind)).count();
        if held > 0 {
            message += &format!("\n  {link}: {held} held; `release` lets them go");
        }
        let waiting = world.waiting(*link).filter(|kind| wanted(*kind)).count();
        if waiting > 0 {
            message += &format!("\n  {link}: {waiting} not sent before a write of {} is durable", link.from);
        }
    }
    syntax(message)
}

/// `deliver …`: what is under way now and not held, link by link.
pub(super) fn deliver(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, selected) = selection(world, args)?;
    let filter = Filter { held: false, ..selected };
    let moved = world.deliver_from(&links, filter)?;
    something(world, &links, filter, moved)
}

/// `drop …`.
pub(super) fn drop_messages(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, filter) = selection(world, args)?;
    let count = links.iter().map(|l| world.drop_messages(*l, filter)).sum();
    something(world, &links, filter, count)
}

/// `dup …`.
pub(super) fn duplicate(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, filter) = selection(world, args)?;
    let count = links.iter().map(|l| world.duplicate(*l, filter)).sum();
    something(world, &links, filter, count)
}

/// `break …`: lost, and the asker learns of it.
pub(super) fn break_connection(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (links, filter) = selection(world, args)?;
    let mut count = 0;
    for link in &links {
        count += world.break_connection(*link, filter)?;
    }
    something(world, &links, filter, count)
}

/// `hold A->B [KIND]`.
pub(super) fn hold(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (link, kind) = held(world, args)?;
    world.network_mut().hold(link, kind);
    Ok(())
}

/// `release A->B [KIND]`.
pub(super) fn release(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (link, kind) = held(world, args)?;
    if world.network_mut().release(link, kind) {
        return Ok(());
    }
    match kind.filter(|k| world.network().is_held(link, *k)) {
        Some(_) => syntax(format!("every kind is held on {link}: release {link}, then hold what shall stay")),
        None => syntax(format!("nothing of the kind is held on {link}")),
    }
}

fn held(world: &World, args: &mut Args<'_>) -> Result<(Link, Option<Kind>)> {
    let link = args.link()?;
    let kind = args.words.pop_front().map(kind).transpose()?;
    args.end()?;
    known(world, link)?;
    Ok((link, kind))
}

/// Both ends exist.
fn known(world: &World, link: Link) -> Result<()> {
    for name in [link.from, link.to] {
        world.disk(name)?;
    }
    Ok(())
}

/// A link, or a node with all its links.
enum Ways {
    One(Link),
    All(NodeName),
}

fn ways(world: &World, word: &str) -> Result<Ways> {
    if let Some(link) = link(word) {
        known(world, link)?;
        return Ok(Ways::One(link));
    }
    let name: NodeName = parsed("a link A->B or a node number", word)?;
    world.disk(name)?;
    Ok(Ways::All(name))
}

/// `cut A->B` or `cut N` (every link from and to N, also to nodes that come later).
pub(super) fn cut(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let ways = ways(world, args.word("a link A->B or a node number")?)?;
    args.end()?;
    match ways {
        Ways::One(link) => world.network_mut().cut(link),
        Ways::All(name) => world.network_mut().cut_node(name),
    }
    Ok(())
}

/// `heal A->B`, `heal N`, or `heal` for everything.
pub(super) fn heal(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let Some(word) = args.words.pop_front() else {
        world.network_mut().heal_all();
        return Ok(());
    };
    let ways = ways(world, word)?;
    args.end()?;
    let healed = match ways {
        Ways::One(link) => {
            if let Some(name) = world.network().cut_by_node(link) {
                return syntax(format!("{link} is cut with all of node {name}: heal {name}"));
            }
            let was_cut = world.network().is_cut(link);
            world.network_mut().heal(link);
            was_cut
        }
        Ways::All(name) => world.network_mut().heal_node(name),
    };
    if healed { Ok(()) } else { syntax(format!("nothing is cut at {word}")) }
}

/// `connect N PEER`: a connection came up at N.
pub(super) fn connect(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let (name, peer) = (args.take("a node number")?, args.take("a peer's number")?);
    args.end()?;
    Ok(world.connect(name, peer)?)
}

/// `stabilize [N…]`: delivers everything, among these nodes only, until nothing moves.
pub(super) fn stabilize(world: &mut World, args: &mut Args<'_>) -> Result<()> {
    let names = args.names()?;
    Ok(world.stabilize(&names)?)
}
