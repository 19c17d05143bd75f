//! The search itself (Wing and Gong 1993, Lowe 2017).

use rustc_hash::FxHashSet;

use super::Operation;

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order of the operations that explains every answer.
    Linearizable,
    /// There is none.
    Broken,
    /// The limit of steps was reached first.
    Unknown,
}

/// One place in the doubly linked list of calls and answers in order of time.
struct Place {
    operation: usize,
    /// Place of the answer, at a call whose answer came.
    answer: Option<usize>,
    is_call: bool,
    previous: usize,
    next: usize,
}

struct History {
    places: Vec<Place>,
}

impl History {
    /// Places 0 and 1 are head and tail.
    fn new(operations: &[Operation]) -> History {
        let mut moments: Vec<(u64, usize, bool)> = Vec::with_capacity(operations.len() * 2);
        for (number, operation) in operations.iter().enumerate() {
            moments.push((operation.called, number, true));
            moments.extend(operation.answered.map(|(at, _)| (at, number, false)));
        }
        // A call at the same moment as an answer counts as before it: the two overlap.
        moments.sort_unstable_by_key(|(at, number, is_call)| (*at, !is_call, *number));
        let end =
            |previous, next| Place { operation: usize::MAX, answer: None, is_call: false, previous, next };
        let mut places = vec![end(0, 1), end(0, 1)];
        let mut calls = vec![0; operations.len()];
        for (_, operation, is_call) in moments {
            let at = places.len();
            let previous = places[1].previous;
            places.push(Place { operation, answer: None, is_call, previous, next: 1 });
            places[previous].next = at;
            places[1].previous = at;
            if is_call {
                calls[operation] = at;
            } else {
                places[calls[operation]].answer = Some(at);
            }
        }
        History { places }
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.places[at].previous, self.places[at].next);
        self.places[previous].next = next;
        self.places[next].previous = previous;
    }

    fn relink(&mut self, at: usize) {
        let (previous, next) = (self.places[at].previous, self.places[at].next);
        self.places[previous].next = at;
        self.places[next].previous = at;
    }

    /// Takes the operation of the call at `at` out.
    fn lift(&mut self, at: usize) {
        self.unlink(at);
        if let Some(answer) = self.places[at].answer {
            self.unlink(answer);
        }
    }

    /// Puts it back; calls must be in reverse order of [`lift`](History::lift).
    fn unlift(&mut self, at: usize) {
        if let Some(answer) = self.places[at].answer {
            self.relink(answer);
        }
        self.relink(at);
    }
}

/// Looks for an order of the operations of one register that explains every answer; gives up after `limit` steps.
pub fn check(operations: &[Operation], limit: u64) -> Verdict {
    let mut history = History::new(operations);
    let mut done = vec![0_u64; operations.len().div_ceil(64).max(1)];
    let mut seen: FxHashSet<(Box<[u64]>, u64)> = FxHashSet::default();
    let mut taken: Vec<(usize, u64)> = Vec::new();
    let mut left = operations.iter().filter(|operation| operation.answered.is_some()).count();
    let (mut value, mut at, mut steps) = (0_u64, history.places[0].next, 0_u64);
    while left > 0 {
        steps += 1;
        if steps > limit {
            return Verdict::Unknown;
        }
        let place = &history.places[at];
        if place.is_call {
            let number = place.operation;
            let operation = &operations[number];
            let mut after = value;
            let answer = operation.op.apply(&mut after);
            let explained = operation.answered.is_none_or(|(_, given)| given == answer);
            // Taking a lost operation that changes nothing leads nowhere new.
            if explained && (operation.answered.is_some() || after != value) {
                done[number / 64] |= 1 << (number % 64);
                if seen.insert((done.clone().into_boxed_slice(), after)) {
                    taken.push((at, value));
                    value = after;
                    left -= usize::from(operation.answered.is_some());
                    history.lift(at);
                    at = history.places[0].next;
                    continue;
                }
                done[number / 64] &= !(1 << (number % 64));
            }
            at = history.places[at].next;
            continue;
        }
        // An answer, or the end: the operations before it can stand in no other order. Step back.
        let Some((call, before)) = taken.pop() else { return Verdict::Broken };
        history.unlift(call);
        let number = history.places[call].operation;
        done[number / 64] &= !(1 << (number % 64));
        left += usize::from(operations[number].answered.is_some());
        value = before;
        at = history.places[call].next;
    }
    Verdict::Linearizable
}
