//! A new connection: name, address, TCP, TLS.

use std::{io, net::SocketAddr, os::fd::AsFd as _, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time,
};
use tokio_rustls::TlsConnector;

use super::{Connection, Permit, Upstream, connection::Terms};
use crate::proxy::{error::Reason, io::UpstreamStream, presence};

/// How long one address has before the next is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum ConnectError {
    #[error("the name does not resolve: {0}")]
    Unresolved(io::Error),
    #[error("no address accepts a connection: {0}")]
    Unreachable(io::Error),
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    #[error("it took too long")]
    Timeout,
    #[error("max_connections are in use, and none came free")]
    Busy,
}

impl ConnectError {
    /// The reason that a caller is told.
    pub(in crate::proxy) fn reason(&self) -> Reason {
        match self {
            Self::Unresolved(_) => Reason::UpstreamUnresolved,
            Self::Unreachable(_) => Reason::UpstreamUnreachable,
            Self::Tls(_) => Reason::UpstreamTls,
            Self::Timeout => Reason::UpstreamConnectTimeout,
            Self::Busy => Reason::UpstreamBusy,
        }
    }
}

/// Connects within the upstream's `connect_timeout`. The name is resolved each time, so that new connections follow it.
pub(in crate::proxy) async fn connect(
    upstream: &Upstream,
    permit: Permit,
    now: u32,
) -> Result<Connection, ConnectError> {
    time::timeout(upstream.connect_timeout, async {
        let tcp = dial(upstream).await?;
        // Small requests must not wait for the acknowledgement of earlier ones. Failing costs speed, nothing else.
        let _ = tcp.set_nodelay(true);
        presence::keep_alive(tcp.as_fd());
        let (stream, edition) = match &upstream.tls {
            None => (UpstreamStream::Plain(tcp), None),
            Some((tls, name)) => {
                let (config, edition) = tls.current();
                let tls = TlsConnector::from(config).connect(name.clone(), tcp).await;
                (UpstreamStream::Tls(Box::new(tls.map_err(ConnectError::Tls)?)), Some(edition))
            }
        };
        Connection::open(stream, upstream, Terms { permit, edition, born: now })
            .await
            .map_err(ConnectError::Unreachable)
    })
    .await
    .unwrap_or(Err(ConnectError::Timeout))
}

/// Happy eyeballs (RFC 8305): families alternate, each address gets a head start on the next.
async fn dial(upstream: &Upstream) -> Result<TcpStream, ConnectError> {
    let found = lookup_host((&*upstream.host, upstream.port)).await.map_err(ConnectError::Unresolved)?;
    let mut addresses = interleave(found.collect()).into_iter();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut attempts = FuturesUnordered::new();
    attempts.extend(addresses.next().map(TcpStream::connect));
    loop {
        let more = addresses.len() > 0;
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    last = error;
                    attempts.extend(addresses.next().map(TcpStream::connect));
                }
                None => return Err(ConnectError::Unreachable(last)),
            },
            () = time::sleep(STAGGER), if more => attempts.extend(addresses.next().map(TcpStream::connect)),
        }
    }
}

fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut mixed = Vec::new();
    for address in same {
        mixed.push(address);
        mixed.extend(other.next());
    }
    mixed.extend(other);
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_alternate_and_the_resolver_decides_who_is_first() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1"]);
        assert_eq!(interleave(found), parse(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]));
    }
}
