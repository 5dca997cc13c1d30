//! A new connection: name, address, TCP, a proxy on the way, TLS.

use std::{io, os::fd::AsFd as _};

use tokio::{net::TcpStream, time};
use tokio_rustls::TlsConnector;

use super::{Connection, Permit, Resolver, Upstream, connection::Terms, dial::dial};
use crate::proxy::{error::Reason, io::UpstreamStream, presence};

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
            Self::Timeout => Reason::UpstreamConnectTimeout,
            Self::Busy => Reason::UpstreamBusy,
        }
    }
}

/// Connects within the upstream's `connect_timeout`.
pub(in crate::proxy) async fn connect(
    upstream: &Upstream,
    permit: Permit,
    now: u32,
) -> Result<Connection, ConnectError> {
    time::timeout(upstream.connect_timeout, async {
        let tcp = match &upstream.http_proxy {
            None => tcp(&upstream.resolver).await?,
            Some(proxy) => proxy.connect(&upstream.name).await?,
        };
        let (stream, edition) = match &upstream.tls {
            None => (UpstreamStream::Plain(tcp), None),
            Some((tls, name)) => {
                let (config, edition) = tls.current();
                let tls = TlsConnector::from(config).connect(name.clone(), tcp).await;
                (UpstreamStream::Tls(Box::new(tls.map_err(ConnectError::Tls)?)), Some(edition))
            }
        };
        let terms = Terms { permit, edition, born: now };
        Connection::open(stream, upstream, terms).await.map_err(ConnectError::Unreachable)
    })
    .await
    .unwrap_or(Err(ConnectError::Timeout))
}

/// The first address of a name that accepts.
pub(super) async fn tcp(resolver: &Resolver) -> Result<TcpStream, ConnectError> {
    let addresses = resolver.addresses().await.map_err(ConnectError::Unresolved)?;
    let stream = dial(&addresses, TcpStream::connect).await.map_err(ConnectError::Unreachable)?;
    // Small requests must not wait for the acknowledgement of earlier ones. Failing costs speed, nothing else.
    let _ = stream.set_nodelay(true);
    presence::keep_alive(stream.as_fd());
    Ok(stream)
}
