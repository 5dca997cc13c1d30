//! What the operator wrote about listeners and routes.

mod access_log;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::access_log::AccessLog;
pub(super) use self::access_log::AccessRule;
use crate::{duration::Span, listen::UnixConfig, secret::SecretRef};

/// The section `[proxy]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Where callers connect: an address and a port, or `unix:` and the path of a socket.
    pub listen: String,
    /// What Unix sockets of callers need; a route with a socket of its own may say otherwise.
    pub unix: UnixConfig,
    /// Let another process of the same user listen on the same TCP ports, the admin port too, and take them over.
    pub reuse_port: bool,
    /// Threads that serve requests; 0 means as many as the CPU quota allows, at most 4.
    pub workers: usize,
    /// Connections of callers at once; further ones are answered 503.
    pub max_connections: usize,
    /// Further names that the `Host` of a request may have.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may send requests.
    pub allowed_origins: Vec<String>,
    /// A header that every request must carry; it is not forwarded.
    pub required_header: Option<String>,
    /// How long the head of a request may take, from its first byte.
    pub header_timeout: Span,
    /// How long a caller's connection may be idle between requests, or take nothing of its answer.
    pub idle_timeout: Span,
    /// Largest head of a request or an answer, in bytes.
    pub max_header_bytes: usize,
    /// Which requests get a line in the log.
    pub access_log: AccessLog,
    /// With `access_log = "all"`: the share of the good requests that get one, from 0 to 1.
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    pub access_log_sample: f64,
    /// Whether a line shows the query of its request.
    pub access_log_query: bool,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7080".into(),
            unix: UnixConfig::default(),
            reuse_port: false,
            workers: 0,
            max_connections: 16_384,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            required_header: None,
            header_timeout: Span::secs(10),
            idle_timeout: Span::secs(300),
            max_header_bytes: 64 * 1024,
            access_log: AccessLog::Off,
            access_log_sample: 1.0,
            access_log_query: false,
        }
    }
}

// `NaN` is refused when the configuration is read.
impl Eq for ProxyConfig {}

/// A section `[routes.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Requests for this path and below it belong here.
    #[serde(default = "root")]
    pub path: String,
    /// Only requests for this host belong here.
    pub host: Option<String>,
    /// A listener of its own, instead of the one in `[proxy]`.
    pub listen: Option<String>,
    /// What its own Unix socket needs, instead of what `[proxy.unix]` says.
    pub unix: Option<UnixConfig>,
    /// Remove `path` from what is forwarded.
    #[serde(default)]
    pub strip_prefix: bool,
    /// What becomes of a credential that the caller sends.
    #[serde(default)]
    pub caller_authorization: CallerAuthorization,
    /// Which requests are sent once more with a new token after the upstream refused the old one with 401.
    #[serde(default)]
    pub replay: Replay,
    /// Ask the upstream for the `Host` that the caller asked for, instead of its own.
    #[serde(default)]
    pub preserve_host: bool,
    /// Turn a redirect of the upstream to itself into a local one.
    #[serde(default)]
    pub rewrite_location: bool,
    /// Further headers that every request carries, in place of the caller's own.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Where requests go: https, or http to a loopback address.
    pub upstream: String,
    /// The credential that is injected; `none` injects nothing.
    pub credential: String,
    /// An HTTP proxy on the way to the upstream. The environment's proxy variables are ignored.
    pub http_proxy: Option<String>,
    /// The name and the password that the proxy wants.
    #[serde(default)]
    pub http_proxy_auth: HttpProxyAuthConfig,
    /// Which HTTP is spoken to the upstream.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// How long connecting may take, with a proxy and TLS.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: Span,
    /// Connections to the upstream at once, over all workers; further requests wait for one to come free.
    #[serde(default = "max_connections")]
    pub max_connections: usize,
    /// Requests that may wait for a connection at once; further ones are answered 503.
    #[serde(default = "max_waiting")]
    pub max_waiting: usize,
    /// How long a request may wait for a connection; then it is answered 503.
    #[serde(default = "wait_timeout")]
    pub wait_timeout: Span,
    /// How long the upstream may take until the head of its answer; `0s` means as long as it wants.
    #[serde(default = "response_timeout")]
    pub response_timeout: Span,
    /// Allow an upstream that is not loopback without TLS.
    #[serde(default)]
    pub unsafe_plaintext: bool,
    /// How the credential is injected.
    #[serde(default)]
    pub inject: InjectConfig,
    /// TLS towards the upstream.
    #[serde(default)]
    pub tls: RouteTlsConfig,
}

/// What becomes of a caller's own header of the name that carries the token, in any spelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CallerAuthorization {
    /// It is removed, and the token takes its place.
    #[default]
    Replace,
    /// It is sent in place of the token, if there is exactly one, in the plain spelling; several are refused.
    Keep,
    /// The request is refused.
    Reject,
}

/// Which requests are sent once more after a 401, while their body is held: at most 64 KiB of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// Those whose method is idempotent (RFC 9110 §9.2.2).
    #[default]
    Idempotent,
    /// All: for upstreams that do nothing before they have looked at the token.
    All,
}

/// Which HTTP is spoken to an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum UpstreamProtocol {
    /// Over TLS, HTTP/2 where the upstream offers it (ALPN), and HTTP/1.1 otherwise; without TLS, HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, which the upstream must expect.
    H2c,
}

/// The `credential` of a route that injects nothing. No credential can have this name.
pub const NO_CREDENTIAL: &str = "none";

impl RouteConfig {
    /// A route for everything, with the default of every key.
    pub fn new(upstream: impl Into<String>, credential: impl Into<String>) -> Self {
        Self {
            path: root(),
            host: None,
            listen: None,
            unix: None,
            strip_prefix: false,
            caller_authorization: CallerAuthorization::default(),
            replay: Replay::default(),
            preserve_host: false,
            rewrite_location: false,
            headers: BTreeMap::new(),
            upstream: upstream.into(),
            credential: credential.into(),
            http_proxy: None,
            http_proxy_auth: HttpProxyAuthConfig::default(),
            protocol: UpstreamProtocol::default(),
            connect_timeout: connect_timeout(),
            max_connections: max_connections(),
            max_waiting: max_waiting(),
            wait_timeout: wait_timeout(),
            response_timeout: response_timeout(),
            unsafe_plaintext: false,
            inject: InjectConfig::default(),
            tls: RouteTlsConfig::default(),
        }
    }
}

fn root() -> String {
    "/".into()
}

fn connect_timeout() -> Span {
    Span::secs(5)
}

fn max_connections() -> usize {
    4096
}

fn max_waiting() -> usize {
    1024
}

fn wait_timeout() -> Span {
    Span::secs(5)
}

fn response_timeout() -> Span {
    Span::secs(60)
}

/// A section `[routes.NAME.inject]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct InjectConfig {
    /// The header that carries the token.
    pub header: String,
    /// What stands in it; `{token}` is where the token goes. Left out, it is `Bearer {token}`, or `Basic {token}` for a
    /// credential of type `basic`.
    pub format: Option<String>,
}

impl Default for InjectConfig {
    fn default() -> Self {
        Self { header: "authorization".into(), format: None }
    }
}

/// A section `[routes.NAME.http_proxy_auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HttpProxyAuthConfig {
    /// The name for the proxy.
    pub username: Option<String>,
    /// The password for the proxy. It is read again for each connection.
    pub password: Option<SecretRef>,
    /// Allow a proxy that is not loopback: everybody on the way to it reads the password.
    pub unsafe_plaintext: bool,
}

/// A section `[routes.NAME.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RouteTlsConfig {
    /// A PEM file with an authority for the upstream's certificate, beside those of the machine.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with a client certificate for the upstream, and those that lead to its authority behind it.
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    pub private_key: Option<SecretRef>,
    /// The name that the upstream's certificate must have, and that it is asked for, instead of the upstream's host.
    pub server_name: Option<String>,
}
