//! What the handlers write into the log, line by line: as much as helps, and no line for each group on one cause.

use std::cell::Cell;
use std::fmt::{self, Write};

use ringraft_proto::RequestKind;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::*;

/// Keeps warnings and errors as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// The lines that `run` writes.
    fn of(run: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), run);
        std::mem::take(&mut *lines.0.lock())
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().push(text.0);
    }
}

#[test]
fn a_peer_that_hangs_is_told_of_once_and_not_once_a_group() {
    let mut world = World::new(LaneLimits::default());
    world.learner = Some("b:1".parse().unwrap());
    let groups: Vec<_> = (0..20).map(|number| world.open(&format!("g{number}"))).collect();
    let timeout_ms = CoreOptions::new(
        "g".parse().unwrap(),
        PEER.parse().unwrap(),
        Configuration::of_peers(vec![PEER.parse().unwrap()]),
    )
    .rpc_default_timeout_ms;
    let mut rounds = |count: u32| {
        for _ in 0..count {
            world.now = world.now.after_millis(timeout_ms + 1);
            world.turn(Vec::new());
            world.settle();
        }
    };
    let lines = Lines::of(|| rounds(2));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("no answer in time") && lines[0].contains("host=b:1"), "{lines:?}");
    let later = Lines::of(|| rounds(10));
    assert!((1..=2).contains(&later.len()), "again after a while: {later:#?}");
    assert!(later[0].contains("left_out=") && !later[0].contains("left_out=0 "), "with a count: {later:?}");
    for handle in groups {
        let described = world.describe(handle).unwrap();
        assert!(described.replicators[0].consecutive_errors > 0, "every group misses it: {described}");
    }
}

/// It may be meant, for a server that is to be added, or a slip of the pen: nobody elects it, and it elects nobody.
#[test]
fn a_server_that_its_initial_configuration_does_not_name_says_so() {
    for (members, told) in [("b:1,c:1", 1), ("a:1,b:1,c:1", 0)] {
        let mut world = World::new(LaneLimits::default());
        world.members = members.parse().unwrap();
        let lines = Lines::of(|| {
            let _ = world.open("g");
        });
        assert_eq!(lines.len(), told, "{lines:?}");
        assert!(
            lines.iter().all(|line| line.contains("does not name this server") && line.contains(members))
        );
    }
}

/// A peer whose store is smaller, say: without a line here nobody would know why its replica stays behind.
#[test]
fn a_peer_that_refuses_entries_is_told_of_once_with_its_words() {
    let mut world = World::new(LaneLimits::default());
    world.learner = Some("b:1".parse().unwrap());
    let groups: Vec<_> = (0..20).map(|number| world.open(&format!("g{number}"))).collect();
    world.settle();
    let refusal = |handle: GroupHandle, kind: RequestKind, error| {
        let context = RequestContext {
            lane: handle.lane,
            kind: kind.into(),
            slot: handle.slot,
            generation: handle.generation,
            ticket: 0,
        };
        let words = "entry 7 has 70000000 bytes and the log store here takes 67104704\nERROR forged\u{1b}[2J";
        let result = Err(Status::new(error, words));
        LaneEvent::Response(Box::new(ResponseEvent { context, result }))
    };
    let append = RequestKind::AppendEntries;
    let mut refuse = |kind, error| {
        Lines::of(|| {
            world.turn(groups.iter().map(|handle| refusal(*handle, kind, error)).collect());
        })
    };
    assert_eq!(refuse(RequestKind::RequestVote, RaftError::Invalid), Vec::<String>::new());
    assert_eq!(refuse(append, RaftError::Busy), Vec::<String>::new(), "that is flow control");
    let lines = refuse(append, RaftError::Invalid);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("entry 7 has 70000000 bytes") && lines[0].contains("host="), "{lines:?}");
    assert!(!lines[0].contains('\n') && !lines[0].contains('\u{1b}'), "{lines:?}");
}

/// Heartbeats that anybody could make up, from two who claim to lead each term.
#[test]
fn made_up_leaders_write_a_line_and_not_one_a_request() {
    let mut world = world_of_three(LaneLimits::default());
    let handle = world.open("g");
    let mut claims = |pause_ms: u64, terms: std::ops::Range<Term>| {
        world.now = world.now.after_millis(pause_ms);
        Lines::of(|| {
            for (term, leader) in terms.flat_map(|term| [(term, "b:1"), (term, "c:1")]) {
                let mut event = world.heartbeat(handle, term);
                let LaneEvent::Request(request) = &mut event else { panic!("a request") };
                request.from = leader.parse().unwrap();
                world.turn(vec![event]);
                world.stages();
            }
        })
    };
    let lines = claims(0, 5..105);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("both claim to lead term 5"), "{lines:?}");
    assert_eq!(claims(10_001, 200..201).len(), 1, "again after a while");
}

thread_local! {
    static CLOCK_MS: Cell<u64> = const { Cell::new(0) };
    static CALL_MS: Cell<u64> = const { Cell::new(0) };
}

/// Each look at the clock finds it later by `CALL_MS`.
fn clock() -> Time {
    CLOCK_MS.set(CLOCK_MS.get() + CALL_MS.get());
    Time(CLOCK_MS.get() * 1000)
}

#[test]
fn a_slow_call_of_on_apply_is_told_of_with_a_bound() {
    let mut world = World::new(LaneLimits::default());
    let handle = world.open("slow");
    world.workers[0].tell_slow_calls(1000, clock);
    let mut apply = |tag, call_ms| {
        CALL_MS.set(call_ms);
        Lines::of(|| {
            world.turn(vec![world.task(handle, tag)]);
            world.settle();
        })
    };
    assert_eq!(apply(1, 100), Vec::<String>::new(), "as fast as it should be");
    let lines = apply(2, 2000);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("group=slow") && lines[0].contains("took_ms=2000"), "{lines:?}");
    assert_eq!(apply(3, 1000), Vec::<String>::new(), "one has just been told of");
    let lines = apply(4, 12_000);
    assert!(lines.len() == 1 && lines[0].contains("not_told=1"), "{lines:?}");
}
