//! A new connection: name, address, TCP, a proxy on the way, TLS.

use std::{cell::Cell, io, net::SocketAddr, os::fd::AsFd as _, rc::Rc, sync::Arc};

use tokio::{
    net::{TcpSocket, TcpStream},
    time,
};
use tokio_rustls::TlsConnector;

use super::{Connection, Permit, Resolver, Upstream, UpstreamStream, dial::dial, terms::Terms};
use crate::{
    loopback,
    proxy::{config::UpstreamProtocol, error::Reason, presence},
    tls::Edition,
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum ConnectError {
    #[error("the name does not resolve: {0}")]
    Unresolved(io::Error),
    #[error("no address accepts a connection: {0}")]
    Unreachable(io::Error),
    #[error("the proxy does not answer: {0}")]
    ProxyUnreachable(io::Error),
    #[error("the proxy wants a name and a password, or others")]
    ProxyAuthentication,
    #[error("the proxy refuses, with status {0}")]
    ProxyRefused(u16),
    #[error("what the proxy answers is not HTTP/1")]
    ProxyInvalid,
    #[error("TLS failed: {0}")]
    Tls(io::Error),
    // Never more of the error: a GOAWAY carries what the upstream likes (RFC 9113 §6.8), the token of an earlier request included.
    #[error("it does not speak HTTP/2: {0}")]
    NotHttp2(h2::Reason),
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
            Self::ProxyUnreachable(_) => Reason::ProxyUnreachable,
            Self::ProxyAuthentication => Reason::ProxyAuthentication,
            Self::ProxyRefused(_) => Reason::ProxyRefused,
            Self::ProxyInvalid => Reason::ProxyInvalid,
            Self::Tls(_) => Reason::UpstreamTls,
            Self::NotHttp2(_) => Reason::UpstreamInvalid,
            Self::Timeout => Reason::UpstreamConnectTimeout,
            Self::Busy => Reason::UpstreamBusy,
        }
    }
}

/// An attempt that failed, for all that waited for it.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Failed(Rc<Attempt>);

#[derive(Debug)]
struct Attempt {
    error: ConnectError,
    counted: Cell<bool>,
}

impl From<ConnectError> for Failed {
    fn from(error: ConnectError) -> Self {
        Self(Rc::new(Attempt { error, counted: Cell::new(false) }))
    }
}

impl Failed {
    /// Why.
    pub(in crate::proxy) fn error(&self) -> &ConnectError {
        &self.0.error
    }

    /// Whether the attempt is new to whoever counts them: true once.
    pub(in crate::proxy) fn count_once(&self) -> bool {
        !self.0.counted.replace(true)
    }
}

/// What a new connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Offer {
    /// Whatever the route allows.
    Any,
    /// Nothing but HTTP/1.1: for a request that needs a connection of its own.
    Http1,
}

/// A connection on which nothing has been said yet.
pub(in crate::proxy) struct Established {
    pub(super) stream: UpstreamStream,
    pub(super) edition: Option<Edition>,
    /// Whether HTTP/2 is spoken on it.
    pub(super) http2: bool,
}

/// Opens a connection for HTTP/1.1.
pub(super) async fn connect(
    upstream: &Upstream,
    permit: Permit,
    now: u32,
) -> Result<Connection, ConnectError> {
    let Established { stream, edition, .. } = establish(upstream, Offer::Http1).await?;
    let terms = Terms { permit, edition, born: now };
    Ok(Connection::new(stream, upstream, terms))
}

/// Connects within the upstream's `connect_timeout`. The name is resolved each time, so that new connections follow it.
pub(in crate::proxy) async fn establish(
    upstream: &Upstream,
    offer: Offer,
) -> Result<Established, ConnectError> {
    time::timeout(upstream.connect_timeout, async {
        let tcp = match &upstream.http_proxy {
            None => tcp(&upstream.resolver).await?,
            Some(proxy) => proxy.connect(&upstream.name).await?,
        };
        let Some((tls, name)) = &upstream.tls else {
            let http2 = upstream.protocol == UpstreamProtocol::H2c && offer == Offer::Any;
            return Ok(Established { stream: UpstreamStream::Plain(tcp), edition: None, http2 });
        };
        let (mut config, edition) = tls.current();
        if offer == Offer::Http1 && config.alpn_protocols.len() > 1 {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let tls = TlsConnector::from(config).connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Established { stream: UpstreamStream::Tls(Box::new(tls)), edition: Some(edition), http2 })
    })
    .await
    .unwrap_or(Err(ConnectError::Timeout))
}

/// The first address of a name that accepts.
pub(super) async fn tcp(resolver: &Resolver) -> Result<TcpStream, ConnectError> {
    let addresses = resolver.addresses().await.map_err(ConnectError::Unresolved)?;
    let stream = dial(&addresses, open).await.map_err(ConnectError::Unreachable)?;
    // Small requests must not wait for the acknowledgement of earlier ones. Failing costs speed, nothing else.
    let _ = stream.set_nodelay(true);
    presence::keep_alive(stream.as_fd());
    Ok(stream)
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    loopback::do_not_pace(&socket, address.ip());
    socket.connect(address).await
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_to_this_machine_is_not_paced() {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = upstream.local_addr().unwrap().port();
        let stream = tcp(&Resolver::new("127.0.0.1", port, false)).await.unwrap();
        assert_eq!(rustix::net::sockopt::tcp_congestion(&stream).unwrap(), "reno");
    }
}
