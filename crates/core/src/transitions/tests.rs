//! Every event applied to every state, beside what was declared when somebody last looked.
//!
//! `REWRITE=1 cargo test -p ringraft-core --lib transitions` writes the table and the pictures anew; commit the changes only when you
//! understand what caused them.
#![allow(clippy::disallowed_methods)] // reads files and the environment, as tests may

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::node::state::NodeEvent;
use crate::replicator::ReplicatorEvent;
use crate::stage::StageEvent;

const INTRODUCTION: &str = "# Transitions

The state machines of the core as they are declared: which event leads from which state to which. What is not here does not happen, and the
node stops at it. A test makes this page from the declarations (`REWRITE=1 cargo test -p ringraft-core --lib transitions`).
";

/// The golden table: a line an event, a column a state.
fn table<E: Event>(title: &str) -> String {
    let line = |name: String, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:<15}")).collect();
        format!("{name:<16}{cells}").trim_end().to_owned() + "\n"
    };
    let mut text = line(title.to_owned(), E::STATES.iter().map(|state| format!("{state:?}")).collect());
    for (event, _) in E::ALL {
        let to = |state: &E::State| event.leads(*state).map_or("-".to_owned(), |to| format!("{to:?}"));
        text += &line(format!("{event:?}"), E::STATES.iter().map(to).collect());
    }
    text
}

/// The picture, and what the events mean.
fn picture<E: Event>(title: &str, source: &str) -> String {
    let mut text = format!("\n## {title}\n`{source}`\n\n```mermaid\nstateDiagram-v2\n");
    for (event, _) in E::ALL {
        for from in E::STATES {
            if let Some(to) = event.leads(*from) {
                writeln!(text, "    {from:?} --> {to:?}: {event:?}").unwrap();
            }
        }
    }
    text += "```\n\n";
    for (event, what) in E::ALL {
        writeln!(text, "- **{event:?}**: {}", what.trim()).unwrap();
    }
    text
}

fn compare(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var("REWRITE").is_ok_and(|v| v == "1") {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} is not what is declared, which is\n{text}", path.display());
}

#[test]
fn every_event_leads_from_every_state_to_where_it_is_declared() {
    let tables = [
        table::<NodeEvent>("NodeState"),
        table::<ReplicatorEvent>("ReplicatorState"),
        table::<StageEvent>("Stage"),
    ];
    compare("testdata/transitions.table", &tables.join("\n"));
}

#[test]
fn the_pictures_are_what_is_declared() {
    let pictures = [
        picture::<NodeEvent>("Role and life of a node", "crates/core/src/node/state.rs"),
        picture::<ReplicatorEvent>("How entries go to a peer", "crates/core/src/replicator.rs"),
        picture::<StageEvent>("A change of the members", "crates/core/src/stage.rs"),
    ];
    compare("../../docs/transitions.md", &format!("{INTRODUCTION}{}", pictures.concat()));
}

/// No state that is listed is a dead end or out of reach, but for those in which a node begins and ends.
#[test]
fn every_state_is_reached() {
    fn unreached<E: Event>() -> Vec<E::State> {
        let reached = |state: &E::State| {
            E::ALL.iter().any(|(event, _)| {
                E::STATES.iter().any(|from| from != state && event.leads(*from) == Some(*state))
            })
        };
        E::STATES.iter().copied().filter(|state| !reached(state)).collect()
    }
    assert_eq!(unreached::<NodeEvent>(), [crate::NodeState::Uninitialized]);
    assert!(unreached::<ReplicatorEvent>().is_empty());
    assert!(unreached::<StageEvent>().is_empty());
}

#[test]
#[should_panic(expected = "Win does not lead from Follower to Leader")]
fn what_is_not_declared_stops_the_node() {
    check(NodeEvent::Win, crate::NodeState::Follower, crate::NodeState::Leader);
}
