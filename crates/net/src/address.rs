//! Where a connection comes from, as far as it says who may be at the other end.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::Endpoint;

/// A host without its port: connections arrive from ports that mean nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Ip(IpAddr),
    /// Of a host of the in-process network, or a name that is not resolved yet.
    Name(Arc<str>),
}

impl Address {
    /// The host of an endpoint.
    pub(crate) fn of(endpoint: &Endpoint) -> Address {
        match endpoint.0.parse::<std::net::SocketAddr>() {
            Ok(address) => Address::of_ip(address.ip()),
            Err(_) => {
                let text = &*endpoint.0;
                Address::Name(text.rsplit_once(':').map_or(text, |(host, _)| host).into())
            }
        }
    }

    /// An address of the network. What arrives at a listener for both families is an IPv4 address all the same.
    pub(crate) fn of_ip(ip: IpAddr) -> Address {
        Address::Ip(ip.to_canonical())
    }

    /// What one customer of a network has for himself: an IPv4 address, or the 2^64 addresses of an IPv6 subnet.
    pub(crate) fn block(&self) -> Address {
        match self {
            Address::Ip(IpAddr::V6(ip)) => {
                let subnet = u128::from(*ip) >> 64 << 64;
                Address::Ip(IpAddr::V6(Ipv6Addr::from(subnet)))
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Address {
        Address::of(&Endpoint(text.into()))
    }

    #[test]
    fn ports_and_spellings_do_not_matter() {
        assert_eq!(of("10.0.0.1:80"), of("10.0.0.1:9"));
        assert_eq!(of("[::ffff:10.0.0.1]:80"), of("10.0.0.1:80"));
        assert_ne!(of("10.0.0.1:80"), of("10.0.0.2:80"));
        assert_eq!(of("host:1"), Address::Name("host".into()));
        assert_eq!(of("no port"), Address::Name("no port".into()));
    }

    #[test]
    fn an_ipv6_subnet_is_one_block() {
        assert_eq!(of("[2001:db8:1:2:3::1]:1").block(), of("[2001:db8:1:2:ffff::9]:1").block());
        assert_ne!(of("[2001:db8:1:2::1]:1").block(), of("[2001:db8:1:3::1]:1").block());
        assert_ne!(of("10.0.0.1:1").block(), of("10.0.0.2:1").block());
    }
}
