//! Why an event was not published. Every error hands back what it was given.

use std::fmt;

/// [`Producer::publish`](crate::Producer::publish) found the ring closed; here is the event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<T>(pub T);

impl<T> Closed<T> {
    /// The event that was not published.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ring is closed; the event was not published and is handed back in the error")
    }
}

impl<T> std::error::Error for Closed<T> {}

/// [`Producer::try_publish`](crate::Producer::try_publish) did not publish; here is the event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPublishError<T> {
    /// Every slot holds an event that the consumer has not drained. Try later, or use
    /// [`publish`](crate::Producer::publish), which waits.
    Full(T),
    /// The ring is closed, or its consumer is gone. No later try can succeed.
    Closed(T),
}

impl<T> TryPublishError<T> {
    /// The event that was not published.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(event) | Self::Closed(event) => event,
        }
    }

    /// Whether a later try may succeed.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether the ring is closed for good.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<T> From<Closed<T>> for TryPublishError<T> {
    fn from(closed: Closed<T>) -> Self {
        Self::Closed(closed.0)
    }
}

impl<T> fmt::Debug for TryPublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for TryPublishError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => {
                "the ring is full; try again once the consumer has drained, or wait with `publish`"
            }
            Self::Closed(_) => {
                "the ring is closed; the event was not published and is handed back in the error"
            }
        })
    }
}

impl<T> std::error::Error for TryPublishError<T> {}

/// [`Producer::try_publish_batch`](crate::Producer::try_publish_batch) found the ring closed; all events are still in
/// the caller's `Vec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedBatch;

impl fmt::Display for ClosedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the ring is closed; none of the batch was published and all of it is still in the vector",
        )
    }
}

impl std::error::Error for ClosedBatch {}
