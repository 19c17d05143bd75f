//! What a connection needs of its byte stream.

use std::io::{self, IoSlice};
use std::time::Duration;

use crate::user_timeout::set_user_timeout;

/// A non-blocking ordered byte stream, read by the loop and written by any thread.
pub(crate) trait Socket: Send + Sync + 'static {
    /// Reads what is there; `WouldBlock` when nothing is, `Ok(0)` at the end.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits; `WouldBlock` when nothing does. A writable edge follows then.
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Has the connection end with an error when what was sent stays unacknowledged by the other system for so long. Where there is no
    /// network between the two this does nothing.
    fn give_up_after(&self, _limit: Duration) {}

    /// Ends both directions, so that the peer knows although some thread may still hold the socket.
    fn shutdown(&self);
}

impl Socket for mio::net::TcpStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut &*self, buffer)
    }

    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        io::Write::write_vectored(&mut &*self, slices)
    }

    fn give_up_after(&self, limit: Duration) {
        if let Err(error) = set_user_timeout(self, limit) {
            tracing::debug!(%error, "cannot set the user time-out of a connection");
        }
    }

    fn shutdown(&self) {
        // An error means that the connection is gone already.
        let _ = mio::net::TcpStream::shutdown(self, std::net::Shutdown::Both);
    }
}
