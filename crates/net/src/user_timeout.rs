//! TCP's user time-out (RFC 5482): how long sent data may go unacknowledged before the system gives the connection up. Without it that
//! takes as long as the system's back-off, which grows with the outage: after half a minute without a network it is another half a
//! minute until the next attempt.

use std::io;
use std::time::Duration;

use mio::net::TcpStream;

/// Sets the user time-out of a socket, in whole milliseconds. It counts for data that the peer's system does not acknowledge, and for
/// a peer that has had no room for more for so long. Where the system has no such option this does nothing.
///
/// # Errors
/// The system's, when the socket takes no option.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code)]
pub(crate) fn set_user_timeout(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let millis = libc::c_uint::try_from(limit.as_millis()).unwrap_or(libc::c_uint::MAX);
    let size = size_of::<libc::c_uint>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `stream` is borrowed, and the system reads `size` bytes from `millis`, which has as many.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            (&raw const millis).cast(),
            size,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn set_user_timeout(_: &TcpStream, _: Duration) -> io::Result<()> {
    Ok(())
}
