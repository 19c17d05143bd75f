//! Rows of runs against a plain list.

use proptest::prelude::*;

use super::*;

/// What a step does to the list.
#[derive(Clone, Debug)]
enum Step {
    Push {
        count: u64,
        gap: u64,
        term: u64,
        kind: u8,
        file: u64,
        skip: u64,
        len: u32,
    },
    CutBack(u64),
    CutFront(u64),
    /// Cuts all but some entries at the end.
    KeepLast(u64),
    /// Cuts near the first entry of one of the elements.
    CutAtBound {
        which: usize,
        beside: u64,
        back: bool,
    },
    Move {
        which: usize,
        file: u64,
        offset: u64,
        len: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let push = (1..4u64, 0..2u64, 0..2u64, 5..8u8, 0..2u64, 0..200_000u64, 1..30u32).prop_map(
        |(count, gap, term, kind, file, skip, len)| Step::Push { count, gap, term, kind, file, skip, len },
    );
    let moved = (any::<usize>(), 0..90u64, 0..(1u64 << 27), 1..200u32);
    let at_bound = (any::<usize>(), 0..3u64, any::<bool>())
        .prop_map(|(which, beside, back)| Step::CutAtBound { which, beside, back });
    // Cuts are few and mostly small, so that logs grow over several elements.
    prop_oneof![
        400 => push,
        3 => (0..12u64).prop_map(Step::CutBack),
        1 => (0..900u64).prop_map(Step::CutBack),
        3 => (0..60u64).prop_map(Step::CutFront),
        1 => (1..300u64).prop_map(Step::CutFront),
        2 => (0..5u64).prop_map(Step::KeepLast),
        2 => at_bound,
        20 => moved.prop_map(|(which, file, offset, len)| Step::Move { which, file, offset, len }),
    ]
}

fn cut_back(runs: &mut Runs, model: &mut Vec<RunAt>, from: LogIndex) {
    let from = from.max(model.first().map_or(10, |run| run.first));
    let (mut gone, mut expected) = (Vec::new(), Vec::new());
    runs.cut_back(from, |run| gone.push(run.sequence));
    while model.last().is_some_and(|run| run.first >= from) {
        expected.extend(model.pop().map(|run| run.sequence));
    }
    if let Some(run) = model.last_mut() {
        run.last = run.last.min(from - 1);
    }
    assert_eq!(gone, expected);
}

fn cut_front(runs: &mut Runs, model: &mut Vec<RunAt>, to: LogIndex) {
    let mut gone = Vec::new();
    runs.cut_front(to, |run| gone.push(run.sequence));
    let stays = model.iter().position(|run| run.last > to).unwrap_or(model.len());
    let expected: Vec<u64> = model.drain(..stays).map(|run| run.sequence).collect();
    if let Some(run) = model.first_mut() {
        run.first = run.first.max(to + 1);
    }
    assert_eq!(gone, expected);
}

/// Does the step on both; the runs that went must be the same.
fn apply(runs: &mut Runs, model: &mut Vec<RunAt>, step: Step) {
    match step {
        Step::Push { count, gap, term, kind, file, skip, len } => {
            let before = model.last().copied().unwrap_or(RunAt { file: 1, ..RunAt::before(10) });
            let first = before.last + 1;
            let run = RunAt {
                first,
                last: first + count - 1,
                term: before.term + term,
                sequence: before.sequence + 1 + gap,
                kind: RunKind::from_byte(kind).unwrap(),
                file: before.file + file,
                offset: if file > 0 { skip * 8 } else { before.offset + u64::from(before.len) + skip * 8 },
                len: len * 8,
            };
            runs.push(run);
            model.push(run);
        }
        Step::CutBack(less) => {
            let end = model.last().map_or(10, |run| run.last + 1);
            cut_back(runs, model, end.saturating_sub(less));
        }
        Step::CutFront(more) => {
            let to = model.first().map_or(9, |run| run.first) + more;
            cut_front(runs, model, to);
        }
        Step::KeepLast(some) => {
            let last = model.last().map_or(10, |run| run.last);
            cut_front(runs, model, last - some);
        }
        Step::CutAtBound { which, beside, back } => {
            let which = which.checked_rem(runs.elements.len()).unwrap_or(0);
            let near = runs.elements.get(which).map_or(10, |element| element.first) + beside;
            match back {
                true => cut_back(runs, model, near - 1),
                false => cut_front(runs, model, near - 2),
            }
        }
        Step::Move { which, file, offset, len } => {
            let Some(run) = model.get_mut(which.checked_rem(runs.iter().count()).unwrap_or(0)) else {
                return;
            };
            let moved = RunAt { file, offset: offset * 8, len: len * 8, ..*run };
            let other = RunAt { last: moved.last + 1, ..moved };
            assert_eq!(runs.replace(other), None, "it has another range");
            assert_eq!(runs.replace(moved), Some(*run));
            *run = moved;
        }
    }
}

fn compare(runs: &Runs, model: &[RunAt]) {
    assert_eq!(runs.iter().collect::<Vec<_>>(), model);
    assert_eq!(runs.last(), model.last());
    for run in model.iter().step_by(7).chain(model.last()) {
        assert_eq!(runs.find(run.sequence), Some(*run));
        for index in [run.first, run.last] {
            assert_eq!(runs.holding(index), Some(*run));
            assert_eq!(runs.from(index).next(), Some(*run));
        }
        let there: Vec<RunAt> = model.iter().filter(|r| r.file == run.file).copied().collect();
        assert_eq!(runs.in_file(run.file).collect::<Vec<_>>(), there);
    }
    assert_eq!(runs.from(model.last().map_or(0, |run| run.last + 1)).next(), None);
    let mut bytes = Vec::new();
    runs.encode(&mut bytes);
    let mut cursor = Cursor::new(&bytes);
    let back = Runs::decode(&mut cursor).unwrap();
    assert!(cursor.is_empty());
    assert_eq!(back.iter().collect::<Vec<_>>(), model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn rows_say_what_a_plain_list_says(steps in proptest::collection::vec(step(), 0..2000)) {
        let (mut runs, mut model) = (Runs::default(), Vec::new());
        for (at, step) in steps.into_iter().enumerate() {
            apply(&mut runs, &mut model, step);
            if at % 61 == 0 {
                compare(&runs, &model);
            }
        }
        compare(&runs, &model);
        let mut gone = 0;
        runs.clear(|_| gone += 1);
        assert_eq!((gone, runs.iter().count(), runs.last()), (model.len(), 0, None));
    }

    #[test]
    fn bytes_that_are_no_rows_are_an_error_and_no_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        runs in 0..40u32,
    ) {
        let mut framed = Vec::new();
        put32(&mut framed, 1);
        put64(&mut framed, u64::from(runs) * 0x0666_6666_6666_6666);
        put32(&mut framed, runs);
        put32(&mut framed, bytes.len() as u32);
        framed.append(&mut bytes);
        let _ = Runs::decode(&mut Cursor::new(&framed));
    }
}

#[test]
fn a_run_of_one_entry_between_those_of_ten_thousand_groups_costs_four_bytes() {
    let mut runs = Runs::default();
    for index in 1..=1000 {
        let offset = 4096 + (index - 1) * 10_000 * 80;
        runs.push(RunAt {
            first: index,
            last: index,
            term: 3,
            sequence: index,
            kind: RunKind::Data,
            file: 1 + offset / (64 << 20),
            offset: offset % (64 << 20) / 8 * 8,
            len: 80,
        });
    }
    let bytes: usize = runs.elements.iter().map(|e| e.rows.capacity() + size_of::<Element>()).sum();
    assert!(bytes < 5 * 1000, "{bytes} bytes for 1000 runs");
    let most = runs.elements.iter().map(|e| e.runs as usize).max();
    assert!(most <= Some(ELEMENT_RUNS), "{most:?} rows are decoded to find one");
}
