//! The service behind a route, and how a request gets to it.
//!
//! 1. An [`Upstream`] is where requests go: scheme, host, port, TLS. Routes with the same ones share it.
//! 2. The [`Pool`] of a worker keeps connections between requests; the last one used is the first one taken.
//! 3. Without a kept one, `acquire` opens another within the `limit` of the upstream, or waits in the `queue` of its worker.
//! 4. `connect` makes it: `resolve` finds addresses, `dial` one that accepts, an `http_proxy` may be on the way; then TLS.
//!    `watch` follows the files that TLS is made of.
//! 5. A `connection` (and the `line` that it is on) is driven by the task that forwards the request; a [`Lease`] ties it to the
//!    answer and gives it back at its end.
//! 6. Where HTTP/2 may be spoken, `share` finds a seat on one of the connections that a worker has (`shared`), or opens
//!    one for all that wait; `http2` is such a connection, and a `seat` what a request is sent from.

mod acquire;
mod attach;
mod connect;
mod connection;
mod dial;
mod fields;
mod heads;
mod hpack;
mod http2;
mod http_proxy;
mod limit;
mod line;
mod pool;
mod queue;
mod resolve;
mod seat;
mod share;
mod shared;
mod stream;
mod terms;
mod watch;

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, uri::Authority};
use rustls::pki_types::ServerName;
use tokio::sync::Notify;
use url::{Host, Url};

pub(super) use self::{
    acquire::{Wanted, acquire},
    connect::{ConnectError, Failed, Offer, establish},
    connection::{Connection, Lease},
    fields::Fields,
    limit::{Limit, Permit},
    line::SendError,
    pool::Pool,
    seat::{Arrived, Connected, Held, Seat, StreamError},
    share::{Sharing, at_hand, share},
    shared::Shared,
    stream::UpstreamStream,
    watch::Watch,
};
use self::{http_proxy::HttpProxy, resolve::Resolver};
use super::config::{RouteConfig, RouteTlsConfig, UpstreamProtocol};
use crate::{
    invalid::{Invalid, not_a_url},
    telemetry::metrics::{Metrics, UpstreamMetrics},
    tls::{KeptTls, TlsFiles},
};

/// Where the requests of a route go. It is ready: nothing in it can be invalid.
pub(super) struct Upstream {
    /// Its number, by which a worker finds its pool.
    pub(super) slot: usize,
    /// Host and port, for people.
    pub(super) name: Box<str>,
    resolver: Resolver,
    http_proxy: Option<HttpProxy>,
    /// The `Host` that it is asked for (RFC 9110 §7.2).
    pub(super) authority: HeaderValue,
    /// The same as HTTP/2 has it, read once.
    pub(super) uri_authority: Authority,
    pub(super) tls: Option<(KeptTls, ServerName<'static>)>,
    pub(super) protocol: UpstreamProtocol,
    pub(super) limit: Arc<Limit>,
    pub(super) metrics: UpstreamMetrics,
    pub(super) connect_timeout: Duration,
    pub(super) max_header_bytes: usize,
}

impl Upstream {
    /// Whether requests may share a connection.
    pub(super) fn may_speak_http_2(&self) -> bool {
        match self.protocol {
            UpstreamProtocol::Auto => self.tls.is_some(),
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::H2c => true,
        }
    }

    /// Whether a request may have a connection of its own.
    pub(super) fn may_speak_http_1(&self) -> bool {
        self.protocol != UpstreamProtocol::H2c
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upstream({})", self.name)
    }
}

/// A checked `upstream` key: where to go, and the path that is put in front.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) base: String,
}

impl Target {
    /// Reads and checks the `upstream` of a route.
    pub(super) fn parse(config: &RouteConfig) -> Result<Self, Invalid> {
        let invalid = |message: &str| Invalid::new("upstream", message);
        let url = Url::parse(&config.upstream)
            .map_err(|error| invalid(&not_a_url(error)).hint("write it like `https://orders.internal/v2`"))?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(invalid("is neither https nor http")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("holds a user name or a password")
                .hint("credentials have sections of their own: `[credentials.NAME]`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("holds a query or a fragment").hint("only a path can stand behind the host"));
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(invalid("names no host")),
        };
        if !tls && !loopback && !config.unsafe_plaintext {
            return Err(invalid("would carry the token in plain text to another machine").hint(
                "use https, or set `unsafe_plaintext = true` if everybody on the way may read the token",
            ));
        }
        let base = url.path().trim_end_matches('/').to_owned();
        if super::path::check_within_prefix(&format!("{base}/")).is_err() {
            return Err(invalid("has a path that can be read in more than one way"));
        }
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        // A URL takes more than a request can name, `{` among it.
        if Authority::try_from(host.as_str()).is_err() {
            return Err(invalid("has a host that no request can name"));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        Ok(Self { tls, host, port, base })
    }

    /// Host and port; a default port is left out.
    fn host_and_port(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The `Host` field for it.
    fn authority(&self) -> HeaderValue {
        HeaderValue::try_from(self.host_and_port()).expect("a host of a parsed URL is visible ASCII")
    }

    fn uri_authority(&self) -> Authority {
        Authority::try_from(self.host_and_port()).expect("such hosts only are taken")
    }
}

impl Upstream {
    /// Makes it ready: reads authorities, checks the server name.
    pub(super) fn build(
        slot: usize,
        target: &Target,
        config: &RouteConfig,
        max_header_bytes: usize,
        metrics: &Metrics,
        pressure: &Arc<Notify>,
    ) -> Result<Self, Invalid> {
        if config.connect_timeout.0.is_zero() {
            return Err(Invalid::new("connect_timeout", "is 0, so that no connection would ever be made"));
        }
        if config.max_connections == 0 {
            return Err(Invalid::new("max_connections", "is 0, so that no connection would ever be made"));
        }
        let host = target.host.trim_start_matches('[').trim_end_matches(']');
        if target.tls && config.protocol == UpstreamProtocol::H2c {
            return Err(Invalid::new("protocol", "is `h2c`, HTTP/2 without TLS, but `upstream` is https")
                .hint("remove `protocol`: over TLS, HTTP/2 is spoken where the upstream offers it"));
        }
        let tls = if target.tls {
            Some(tls(&config.tls, host, config.protocol)?)
        } else if config.tls == RouteTlsConfig::default() {
            None
        } else {
            return Err(Invalid::new("tls", "is given, but `upstream` is not https")
                .hint("remove the section, or begin `upstream` with `https://`"));
        };
        let http_proxy = HttpProxy::build(config)?;
        if http_proxy.is_some() && !target.tls && !config.unsafe_plaintext {
            return Err(Invalid::new("http_proxy", "would read the token, because `upstream` is not https")
                .hint(
                    "a proxy of another machine cannot reach a loopback address either: remove `http_proxy`",
                ));
        }
        let name = format!("{}:{}", target.host, target.port);
        let metrics = metrics.upstream(&name);
        Ok(Self {
            slot,
            name: name.into(),
            limit: Limit::new(
                config.max_connections,
                config.max_waiting,
                config.wait_timeout.0,
                Arc::clone(pressure),
                metrics.clone(),
            ),
            metrics,
            // Of a plain upstream this was promised when its URL was checked, of the name; it holds for the address too.
            resolver: Resolver::new(host, target.port, !target.tls && !config.unsafe_plaintext),
            http_proxy,
            authority: target.authority(),
            uri_authority: target.uri_authority(),
            protocol: config.protocol,
            tls,
            connect_timeout: config.connect_timeout.0,
            max_header_bytes,
        })
    }
}

/// Reads the files, and checks the name that the certificate must have.
fn tls(
    config: &RouteTlsConfig,
    host: &str,
    protocol: UpstreamProtocol,
) -> Result<(KeptTls, ServerName<'static>), Invalid> {
    let name = match &config.server_name {
        None => ServerName::try_from(host.to_owned())
            .map_err(|_| Invalid::new("upstream", "has a host that no certificate can name"))?,
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| {
            Invalid::new("tls.server_name", "is not a name that a certificate can have")
                .hint("write a host name or an IP address, without a scheme and without a port")
        })?,
    };
    let files = TlsFiles {
        ca_file: config.ca_file.clone(),
        certificate: config.certificate.clone(),
        private_key: config.private_key.clone(),
    };
    let offered: &[&[u8]] = match protocol {
        UpstreamProtocol::Http1 => &[b"http/1.1"],
        UpstreamProtocol::Auto | UpstreamProtocol::H2c => &[b"h2", b"http/1.1"],
    };
    let kept = KeptTls::build(files, offered).map_err(|invalid| invalid.under("tls"))?;
    Ok((kept, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(upstream: &str) -> RouteConfig {
        RouteConfig::new(upstream, "orders")
    }

    #[test]
    fn an_upstream_is_https_or_loopback() {
        for good in ["https://a.example/v2/", "http://127.0.0.1:1", "http://localhost", "http://[::1]:8080/x"]
        {
            assert!(Target::parse(&route(good)).is_ok(), "{good}");
        }
        for bad in [
            "a.example",
            "ftp://a.example",
            "http://a.example",
            "https://",
            "https://u:p@a.example",
            "https://a.example/?q",
            "https://a.example/#f",
            "https://a.example/a//b",
            "https://a.example/%2e%2e%2fb",
            "https://a{b}.example",
        ] {
            assert_eq!(Target::parse(&route(bad)).unwrap_err().key(), "upstream", "{bad}");
        }
    }

    #[test]
    fn the_host_field_leaves_a_default_port_out() {
        for (url, host) in [
            ("https://a.example:443", "a.example"),
            ("https://a.example:80", "a.example:80"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(Target::parse(&route(url)).unwrap().authority(), host);
        }
    }
}
