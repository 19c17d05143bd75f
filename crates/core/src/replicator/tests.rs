use super::*;
use crate::types::LogId;

fn inflight(ticket: u64, last: LogIndex) -> Inflight {
    let kind = AppendKind::Entries;
    let heartbeat_before = RepeatedTimer::default();
    Inflight {
        ticket: Ticket(ticket),
        kind,
        prev: last - 1,
        last,
        bytes: 10,
        sent_at: Time(0),
        heartbeat_before,
    }
}

fn replicator() -> Replicator {
    Replicator::new("a:1".parse().unwrap(), 10, Time(0))
}

#[test]
fn an_answer_covers_the_earlier_requests() {
    let mut r = replicator();
    (1..=3).for_each(|n| r.sent(inflight(n, 10 + n)));
    assert_eq!(r.answered(Ticket(2)).unwrap().last, 12);
    assert_eq!((r.inflight_count(), r.inflight_bytes), (1, 10));
    assert!(r.answered(Ticket(1)).is_none());
}

/// sofa-jraft#416/#829 (catalogue D16): answers of a reset window never advance anything.
#[test]
fn answers_of_a_reset_window_are_unknown() {
    let mut r = replicator();
    r.sent(inflight(1, 11));
    r.reset_inflights();
    assert!(r.answered(Ticket(1)).is_none());
    assert_eq!(r.inflight_bytes, 0);
}

#[test]
fn a_full_link_takes_back_what_was_not_sent_and_no_more() {
    let mut r = replicator();
    r.state = ReplicatorState::Replicate;
    (1..=4).for_each(|n| r.sent(inflight(n, 10 + n)));
    r.next_index = 15;
    r.reading = Some(Ticket(9));
    r.read_entries = vec![Arc::new(EntryChunk::no_op(LogId::new(15, 1)))];
    r.not_sent(Ticket(3), Time(0), 100);
    // A read of 15 that came now would be taken for damage of the log: 13 goes out next.
    assert!(r.reading.is_none() && r.read_entries.is_empty());
    // The failure of what followed comes as well, and changes nothing.
    r.not_sent(Ticket(4), Time(0), 100);
    assert_eq!((r.state, r.next_index), (ReplicatorState::Replicate, 13));
    assert_eq!((r.inflight_count(), r.inflight_bytes), (2, 20));
    assert_eq!((r.consecutive_errors, r.block_timer.deadline()), (0, Some(Time(100_000))));
    assert_eq!(r.answered(Ticket(2)).unwrap().last, 12, "what was sent before still counts");
}

#[test]
fn the_block_doubles_up_to_eight_periods() {
    let mut r = replicator();
    let waits: Vec<u64> = (0..5)
        .map(|_| {
            r.block(Time(0), 100);
            r.block_timer.deadline().unwrap().0 / 100_000
        })
        .collect();
    assert_eq!(waits, [1, 2, 4, 8, 8]);
}

#[test]
fn the_window_is_bounded_in_messages_and_bytes() {
    let conf = "a:1".parse().unwrap();
    let mut options = CoreOptions::new("g".parse().unwrap(), "a:1".parse().unwrap(), conf);
    options.max_replicator_inflight_msgs = 2;
    let mut r = replicator();
    r.sent(inflight(1, 11));
    assert!(r.window_open(&options));
    options.max_replicator_inflight_bytes = 10;
    assert!(!r.window_open(&options));
    options.max_replicator_inflight_bytes = 100;
    r.sent(inflight(2, 12));
    assert!(!r.window_open(&options));
}

#[test]
fn a_busy_peer_gets_less_at_once_and_then_more() {
    let options = CoreOptions::new("g".parse().unwrap(), "a:1".parse().unwrap(), "a:1".parse().unwrap());
    let mut r = replicator();
    (1..=8).for_each(|n| r.sent(inflight(n, 10 + n)));
    assert!(r.window_open(&options));
    r.too_busy();
    r.block(Time(0), 100);
    (9..=11).for_each(|n| r.sent(inflight(n, 10 + n)));
    assert!(r.window_open(&options), "half of eight is four");
    r.sent(inflight(12, 22));
    assert!(!r.window_open(&options));
    (0..31).for_each(|_| r.took_entries());
    assert!(!r.window_open(&options));
    r.took_entries();
    assert!(r.window_open(&options), "after eight windows");
    r.reset_inflights();
    r.too_busy();
    r.sent(inflight(13, 23));
    assert!(!r.window_open(&options), "one at least");
}

#[test]
fn who_has_lost_its_disk_counts_when_it_was_told_so() {
    let mut r = replicator();
    r.match_index = 7;
    r.note_rejoining(5, Ticket(3), 9);
    assert_eq!((r.match_index, r.counts_for()), (0, 0));
    r.match_index = 9;
    r.note_rejoining(0, Ticket(2), 9);
    assert_eq!(r.counts_for(), 0, "an answer of the process that had the disk");
    r.rejoining.as_mut().unwrap().told = Some(Ticket(4));
    r.note_rejoining(0, Ticket(3), 9);
    assert_eq!(r.counts_for(), 0);
    r.note_rejoining(0, Ticket(4), 9);
    assert_eq!(r.counts_for(), 9);
}

#[test]
fn a_late_promise_of_a_lost_disk_holds_nobody() {
    let mut r = replicator();
    r.alive(Ticket(1), Time(10), 100);
    assert_eq!(r.promised_until, Some(Time(110)));
    r.note_rejoining(5, Ticket(3), 9);
    // An answer of the process that had the disk comes last.
    r.note_rejoining(0, Ticket(2), 9);
    r.alive(Ticket(2), Time(20), 100);
    assert_eq!(r.promised_until, None);
    r.rejoining.as_mut().unwrap().told = Some(Ticket(4));
    r.note_rejoining(0, Ticket(4), 9);
    assert_eq!(r.promised_until, None, "counts again");
    r.alive(Ticket(4), Time(30), 100);
    assert_eq!(r.promised_until, Some(Time(130)));
}

#[test]
fn a_rejection_skips_a_whole_term() {
    let last_of_term = |term| [(1, 4), (3, 9)].iter().find(|t| t.0 == term).map(|t| t.1);
    let next = |prev, last, hint: Option<(u64, u64)>| {
        let hint = hint.map(|(term, first_index)| ConflictHint { term, first_index });
        next_after_rejection(prev, last, hint, last_of_term)
    };
    assert_eq!(next(9, Some(4), None), 5, "shorter log: its end");
    assert_eq!(next(9, Some(20), None), 9, "longer log: one back");
    assert_eq!(next(9, Some(20), Some((2, 6))), 6, "a term that the leader lacks is skipped whole");
    assert_eq!(next(9, Some(20), Some((1, 2))), 5, "a common term: after the leader's last of it");
    assert_eq!(next(9, Some(3), Some((0, 4))), 4);
    assert_eq!(next(1, Some(0), None), 1, "never below 1");
    assert_eq!(next(3, Some(u64::MAX), None), 3, "nor overflowing");
    assert_eq!(next(3, None, Some((0, 99))), 3, "a hostile hint cannot move it forward");
}
