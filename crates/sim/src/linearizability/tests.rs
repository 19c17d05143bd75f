use super::*;

/// Every order that respects time is tried: slow, and too simple to be wrong in the same way.
fn brute_force(operations: &[Operation], done: u32, value: u64) -> bool {
    let open = |n: usize| done & (1 << n) == 0;
    let all: Vec<usize> = (0..operations.len()).filter(|n| open(*n)).collect();
    if all.iter().all(|n| operations[*n].answered.is_none()) {
        return true;
    }
    // Nothing may come before what was answered before it was called.
    let first_answer =
        all.iter().filter_map(|n| operations[*n].answered.map(|(at, _)| at)).min().unwrap_or(u64::MAX);
    all.iter().filter(|n| operations[**n].called <= first_answer).any(|n| {
        let mut after = value;
        let answer = operations[*n].op.apply(&mut after);
        operations[*n].answered.is_none_or(|(_, given)| given == answer)
            && brute_force(operations, done | 1 << n, after)
    })
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A history whose answers are right, wrong or missing by chance.
fn random_history(dice: &mut Dice) -> Vec<Operation> {
    let (count, mut value, mut operations) = (2 + dice.below(7) as usize, 0, Vec::new());
    let mut clock = 0;
    for _ in 0..count {
        let op = match dice.below(4) {
            0 => RegisterOp::Read,
            1 => RegisterOp::Write(dice.below(3)),
            2 => RegisterOp::Add(1 + dice.below(2)),
            _ => RegisterOp::CompareAndSet { expected: dice.below(3), new: dice.below(3) },
        };
        clock += 1 + dice.below(3);
        let (happens, called) = (dice.below(8) != 0, clock * 100 - dice.below(300).min(clock * 100));
        let answer = if happens { op.apply(&mut value) } else { dice.below(3) };
        let answer = if dice.below(12) == 0 { dice.below(3) } else { answer };
        let answered = (dice.below(5) != 0).then(|| (clock * 100 + 1 + dice.below(300), answer));
        operations.push(Operation { op, called, answered });
    }
    operations
}

#[test]
fn agrees_with_brute_force() {
    let (mut dice, mut broken) = (Dice(3), 0);
    for round in 0..20_000 {
        let history = random_history(&mut dice);
        let expected = brute_force(&history, 0, 0);
        broken += usize::from(!expected);
        let verdict = if expected { Verdict::Linearizable } else { Verdict::Broken };
        assert_eq!(check(&history, 1_000_000), verdict, "round {round}: {history:?}");
    }
    assert!((2000..18_000).contains(&broken), "both kinds of history were tried: {broken} broken");
}

fn op(op: RegisterOp, called: u64, answered: Option<(u64, u64)>) -> Operation {
    Operation { op, called, answered }
}

#[test]
fn a_stale_read_is_broken() {
    let history = [op(RegisterOp::Write(1), 1, Some((2, 0))), op(RegisterOp::Read, 3, Some((4, 0)))];
    assert_eq!(check(&history, 100), Verdict::Broken);
    let overlapping = [op(RegisterOp::Write(1), 1, Some((4, 0))), op(RegisterOp::Read, 2, Some((3, 0)))];
    assert_eq!(check(&overlapping, 100), Verdict::Linearizable);
}

#[test]
fn a_lost_write_may_show_later_and_not_vanish_again() {
    let lost = op(RegisterOp::Write(7), 1, None);
    let read = |at, value| op(RegisterOp::Read, at, Some((at + 1, value)));
    assert_eq!(check(&[lost, read(3, 0), read(5, 7)], 100), Verdict::Linearizable);
    assert_eq!(check(&[lost, read(3, 7), read(5, 0)], 100), Verdict::Broken);
}

#[test]
fn a_long_history_is_quick_and_a_limit_is_kept() {
    let mut dice = Dice(9);
    let (mut value, mut history) = (0, Vec::new());
    for n in 0..2000 {
        let op = if dice.below(2) == 0 { RegisterOp::Read } else { RegisterOp::Write(n) };
        let answer = op.apply(&mut value);
        let called = (n * 10).saturating_sub(dice.below(40));
        history.push(Operation { op, called, answered: Some((n * 10 + 1 + dice.below(40), answer)) });
    }
    assert_eq!(check(&history, 1_000_000), Verdict::Linearizable);
    assert_eq!(check(&history, 100), Verdict::Unknown);
}
