//! The network of a host: whether it can listen, and the event loop.

#[cfg(not(shuttle))]
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ringraft_net::Transport;
#[cfg(not(shuttle))]
use ringraft_net::{
    Endpoint,
    tcp::{ListenError, NetLoop},
};

#[cfg(not(shuttle))]
use crate::error::HostOptionsError;
use crate::error::StartError;
use crate::host::options::TransportOptions;
use crate::pipeline::HostLoop;

/// The event loop, what sends through it, and where it listens.
pub(super) type Network = (HostLoop, Arc<dyn Transport>, Option<SocketAddr>);

/// Under shuttle there is one network, whatever the options say: no schedule reaches into a socket.
#[cfg(shuttle)]
pub(super) fn open_network(
    _: &TransportOptions,
    _: &str,
    _: ringraft_net::NetLoopOptions,
) -> Result<Network, StartError> {
    let (event_loop, transport) = HostLoop::new();
    Ok((event_loop, transport, None))
}

#[cfg(not(shuttle))]
pub(super) fn open_network(
    transport: &TransportOptions,
    endpoint: &str,
    options: ringraft_net::NetLoopOptions,
) -> Result<Network, StartError> {
    let net = StartError::of_net;
    match transport {
        TransportOptions::Tcp { listen } => {
            let address = listening_address(*listen, endpoint)?;
            let (mut event_loop, transport) =
                NetLoop::new(options).map_err(|error| net(error.to_string()))?;
            let bound = event_loop.listen(address).map_err(|error| match error {
                ListenError::InUse(address) => {
                    cannot_listen(address, &io::Error::from(io::ErrorKind::AddrInUse))
                }
                ListenError::Io { address, error } => cannot_listen(address, &error),
            })?;
            Ok((HostLoop::Tcp(Box::new(event_loop)), Arc::new(transport), Some(bound)))
        }
        TransportOptions::Inproc(network) => {
            let (event_loop, transport) =
                network.host(&Endpoint(endpoint.into()), options).map_err(|error| net(error.to_string()))?;
            Ok((HostLoop::Inproc(Box::new(event_loop)), Arc::new(transport), None))
        }
    }
}

/// Tries whether the host can listen where it shall, and listens no longer: nobody is to connect before the store, whose recovery may
/// take long, can answer. That another program takes the port until then does no harm to the directory: the address is the right one.
#[cfg(not(shuttle))]
pub(super) fn check_listening(transport: &TransportOptions, endpoint: &str) -> Result<(), StartError> {
    let TransportOptions::Tcp { listen } = transport else { return Ok(()) };
    let address = listening_address(*listen, endpoint)?;
    std::net::TcpListener::bind(address).map(drop).map_err(|error| cannot_listen(address, &error))
}

#[cfg(shuttle)]
pub(super) fn check_listening(_: &TransportOptions, _: &str) -> Result<(), StartError> {
    Ok(())
}

#[cfg(not(shuttle))]
fn listening_address(listen: Option<SocketAddr>, endpoint: &str) -> Result<SocketAddr, StartError> {
    let parsed = || endpoint.parse().map_err(|_| HostOptionsError::Name(endpoint.to_owned()).into());
    listen.map_or_else(parsed, Ok)
}

#[cfg(not(shuttle))]
fn cannot_listen(address: SocketAddr, error: &io::Error) -> StartError {
    match error.kind() {
        kind @ (io::ErrorKind::AddrInUse
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied) => {
            StartError::Listen { address, kind, message: error.to_string() }
        }
        _ => StartError::of_net(format!("cannot listen at {address}: {error}")),
    }
}
