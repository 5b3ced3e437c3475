//! Where requests may lead: not into private networks, unless the plan allows it.
//!
//! A URL that comes from somebody else could make us ask what only we can reach (server-side request forgery). What counts is the address
//! that is connected to, so names are judged where they are resolved, at every connection: a name that was harmless at the start may lead
//! elsewhere later. One forbidden address among several forbids the name.
//!
//! Reference: IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890).

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// An address that requests must not go to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} leads to {address}, which is not on the public internet, so nothing was sent; if it is the receiver, allow it with \
     `private: on`"
)]
pub(super) struct Forbidden {
    host: String,
    address: IpAddr,
}

/// Whether an address is on the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || matches!((a, b, c), (0 | 240.., ..))
        // Shared by the customers of a provider (RFC 6598), the protocols' own (RFC 6890), and measurements (RFC 2544).
        || (a == 100 && (64..128).contains(&b))
        || matches!((a, b, c), (192, 0, 0) | (198, 18 | 19, _));
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let special = address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        // Site-local, abolished but still routed inside (RFC 3879).
        || first & 0xffc0 == 0xfec0;
    !special
}

/// The address of version 4 that a packet to this one ends at: mapped, compatible, translated (RFC 6052, 8215) or tunnelled (RFC 3056).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        // The unspecified address and loopback look like compatible ones.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Refuses a URL whose host is a forbidden address: such a one is connected to without being resolved.
pub(super) fn check_literal(url: &Url) -> Result<(), Forbidden> {
    let address: IpAddr = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    check(url.host_str().unwrap_or_default(), address)
}

fn check(host: &str, address: IpAddr) -> Result<(), Forbidden> {
    if is_public(address) { Ok(()) } else { Err(Forbidden { host: host.to_owned(), address }) }
}

/// The refusal that made a request fail, if that is why.
pub(super) fn forbidden<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Forbidden> {
    let mut error = Some(error);
    while let Some(inner) = error {
        if let Some(forbidden) = inner.downcast_ref() {
            return Some(forbidden);
        }
        error = inner.source();
    }
    None
}

/// Resolves names as the system does, and refuses those that lead into private networks.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            for address in &found {
                check(host, address.ip())?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_forbidden_in_all_their_forms() {
        let forbidden = [
            "127.0.0.1",
            "127.255.0.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::10.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:a00:1::1",
            "2002:7f00:1::",
        ];
        for text in forbidden {
            assert!(!is_public(text.parse().expect(text)), "{text}");
        }
        let allowed = [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ];
        for text in allowed {
            assert!(is_public(text.parse().expect(text)), "{text}");
        }
    }

    #[test]
    fn addresses_of_urls_are_read_as_they_are_connected_to() {
        let check = |text: &str| check_literal(&Url::parse(text).expect("a URL"));
        for url in
            ["http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/", "http://[::ffff:7f00:1]/"]
        {
            assert!(check(url).is_err(), "{url}");
        }
        assert!(check("https://1.1.1.1/").is_ok() && check("https://example.org/").is_ok());
    }
}
