//! File descriptors of the process: how many there may be, and whether a host has enough.
//!
//! A store that finds no descriptor waits for one, and so do connections. So that strangers who connect cannot starve
//! the log, connections get what files leave over.

use std::io;

use crate::error::StartError;
use crate::host::options::{HostOptions, StoreOptions, TransportOptions};

/// Descriptors for whatever else is open: peers, the loops' own, the directory and its lock, standard streams, and what the
/// program around the host has open.
const RESERVE: u64 = 128;

/// Inbound connections that a host is of no use without.
const LEAST_INBOUND: u64 = 64;

/// Files of the log that stay open for reading when descriptors are short: others are opened when they are read, which only takes longer.
const LEAST_OPEN_FILES: usize = 8;

/// Raises the soft limit of open files (`RLIMIT_NOFILE`) to the hard one, which every process may do, and returns the limit that
/// holds then. The soft one is usually 1024, for the sake of programs that use `select`.
///
/// # Errors
/// The system's, when the limit cannot be read. A limit that cannot be raised stays as it is.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = limit()?;
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if let Err(error) = set_limit(&raised) {
            tracing::warn!(%error, soft = limit.rlim_cur, hard = limit.rlim_max, "the limit of open files stays as it is");
            return Ok(limit.rlim_cur);
        }
    }
    Ok(limit.rlim_max)
}

#[allow(unsafe_code)]
fn limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one struct, to which the pointer leads and which outlives it.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code)]
fn set_limit(limit: &libc::rlimit) -> io::Result<()> {
    // SAFETY: the call reads one struct, to which the pointer leads and which outlives it.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the limit for a host, and lets it accept no more connections than files leave descriptors for.
///
/// # Errors
/// [`StartError::Descriptors`] when there are too few to be of use.
pub(crate) fn share_out(options: &mut HostOptions) -> Result<(), StartError> {
    match raise_descriptor_limit() {
        Ok(limit) => share_out_of(limit, options),
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            Ok(())
        }
    }
}

fn share_out_of(limit: u64, options: &mut HostOptions) -> Result<(), StartError> {
    let TransportOptions::Tcp { .. } = &options.transport else { return Ok(()) };
    let wanted = options.net.max_inbound_connections as u64;
    let least = wanted.min(LEAST_INBOUND);
    let files = match &mut options.store {
        StoreOptions::Segment { options, .. } => {
            // Prepared, written; a batch may go on in a few files more.
            let written = options.prepared_files as u64 + 16;
            let left = limit.saturating_sub(written + RESERVE + least);
            let fewer = usize::try_from(left).unwrap_or(usize::MAX).max(LEAST_OPEN_FILES);
            if fewer < options.open_files {
                tracing::warn!(
                    limit,
                    open_files = fewer,
                    "fewer files of the log stay open for reading than open_files says"
                );
                options.open_files = fewer;
            }
            options.open_files as u64 + written
        }
        StoreOptions::Memory | StoreOptions::Custom { .. } => 0,
    };
    let left = limit.saturating_sub(files + RESERVE);
    if left < least {
        return Err(StartError::Descriptors { limit, needed: files + RESERVE + least });
    }
    if left < wanted {
        tracing::warn!(
            limit,
            connections = left,
            "fewer connections are accepted than net.max_inbound_connections says; for all of them raise ulimit -n to {}",
            files + RESERVE + wanted
        );
        let net = &mut options.net;
        net.max_inbound_connections = left as usize;
        net.max_unproven_connections = net.max_unproven_connections.min(left as usize / 2).max(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> HostOptions {
        let mut options = HostOptions::new("127.0.0.1:8081", StoreOptions::segment("unused"));
        options.net.max_inbound_connections = 4096;
        options.net.max_unproven_connections = 1024;
        options
    }

    #[test]
    fn connections_get_what_files_leave_over() {
        let files = 64 + 2 + 16;
        for (limit, inbound, unproven) in [
            (1 << 20, 4096, 1024),
            (4096 + 128 + files, 4096, 1024),
            (4095 + 128 + files, 4095, 1024),
            (1024, 1024 - 128 - files, (1024 - 128 - files) / 2),
            (64 + 128 + files, 64, 32),
        ] {
            let mut options = options();
            share_out_of(limit, &mut options).unwrap();
            let net =
                (options.net.max_inbound_connections as u64, options.net.max_unproven_connections as u64);
            assert_eq!(net, (inbound, unproven), "limit {limit}");
            options.validate().unwrap();
        }
    }

    fn open_files(options: &HostOptions) -> usize {
        let StoreOptions::Segment { options, .. } = &options.store else { panic!("a log of segments") };
        options.open_files
    }

    #[test]
    fn where_descriptors_are_short_fewer_files_stay_open() {
        for (limit, files) in [(274, 64), (273, 63), (256, 46), (218, 8)] {
            let mut options = options();
            share_out_of(limit, &mut options).unwrap();
            assert_eq!(
                (open_files(&options), options.net.max_inbound_connections),
                (files, 64),
                "limit {limit}"
            );
            options.validate().unwrap();
        }
    }

    #[test]
    fn too_few_are_refused_with_the_number_that_is_needed() {
        let needed = 64 + 128 + 8 + 2 + 16;
        let error = share_out_of(needed - 1, &mut options()).unwrap_err();
        assert!(error.to_string().contains(&format!("raise ulimit -n to {needed}")), "{error}");
        let mut few = options();
        few.net.max_inbound_connections = 3;
        few.net.max_unproven_connections = 3;
        share_out_of(needed - 1, &mut few).unwrap();
        assert_eq!(open_files(&few), 64, "they have room");
        assert_eq!(few.net.max_inbound_connections, 3);
        let mut none = options();
        none.transport = TransportOptions::Inproc(crate::inproc::Network::new());
        share_out_of(64, &mut none).unwrap();
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        let now = limit().unwrap();
        assert_eq!((now.rlim_cur, raised), (now.rlim_max, now.rlim_max));
    }
}
