//! State machines as declarations: which event leads from which states to which.
//!
//! A state is changed by naming an event, never by writing the new state in place. What is not declared does not happen:
//! [`check`] stops the node at an event that its state does not allow. `docs/transitions.md` has the pictures, which a test keeps
//! as they are declared.

use std::fmt::Debug;

use crate::mutants::Mutant;

/// Declares the events of a state machine, after a list of all its states: `event: from | from => to;`. Each event has one line
/// of documentation, which the page of pictures shows.
macro_rules! transitions {
    (
        $(#[$doc:meta])*
        $vis:vis enum $Event:ident moves $State:ident [$($state:ident),+] {
            $(#[doc = $what:literal] $event:ident: $($from:ident)|+ => $to:ident;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $Event {
            $(#[doc = $what] $event,)*
        }

        impl $crate::transitions::Event for $Event {
            type State = $State;

            const STATES: &'static [$State] = {
                // A state that is missing in the list does not compile.
                const fn listed(state: $State) -> $State {
                    match state { $($State::$state => state,)+ }
                }
                &[$(listed($State::$state),)+]
            };

            const ALL: &'static [($Event, &'static str)] = &[$(($Event::$event, $what),)*];

            fn leads(self, from: $State) -> Option<$State> {
                match self {
                    $($Event::$event if matches!(from, $($State::$from)|+) => Some($State::$to),)*
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use transitions;

/// An event of a declared state machine.
pub(crate) trait Event: Copy + Debug + 'static {
    /// The states that it moves between.
    type State: Copy + Debug + PartialEq;

    /// Every state.
    #[cfg_attr(not(test), allow(dead_code))] // for tables and pictures
    const STATES: &'static [Self::State];

    /// Every event, and what it means.
    #[cfg_attr(not(test), allow(dead_code))] // for tables and pictures
    const ALL: &'static [(Self, &'static str)];

    /// Where the event leads from a state; `None` where it must not happen.
    fn leads(self, from: Self::State) -> Option<Self::State>;
}

/// Sees to it that `event` leads from `from` to `to`.
///
/// # Panics
/// When it does not. A node in a state that nobody declared may do anything, such as lead a term twice; a panic drops the effects
/// of the step as a whole and retires this group alone. Transitions are rare, so this is checked in every build, except where a
/// known bug is put back, which the simulator is to find by what the node does.
#[track_caller]
pub(crate) fn check<E: Event>(event: E, from: E::State, to: E::State) {
    assert!(
        event.leads(from) == Some(to) || Mutant::any_is_active(),
        "{event:?} does not lead from {from:?} to {to:?}"
    );
}

#[cfg(test)]
mod tests;
