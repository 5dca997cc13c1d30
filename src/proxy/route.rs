//! Which route a request belongs to: by host, then by the longest path prefix on segment boundaries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fnv::FnvBuildHasher;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    complaint::Complaints,
    config::{CallerAuthorization, Replay, RouteConfig},
    error::{Error, Reason},
    inject::Injection,
    location::Local,
    path::{self, Rewrite},
    upstream::{Target, Upstream},
};
use crate::{
    invalid::Invalid,
    telemetry::metrics::RouteMetrics,
    token::{Credential, Current, Format, Unavailable},
};

/// A route that is ready: nothing in it can be invalid, and everything that a request needs is resolved.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: Box<str>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) rewrite: Rewrite,
    /// Whether a path could leave what the route stands for.
    pub(super) has_prefix: bool,
    pub(super) injection: Injection,
    /// Headers of the operator.
    pub(super) headers: Box<[(Injection, HeaderValue)]>,
    pub(super) replay: Replay,
    pub(super) preserve_host: bool,
    pub(super) caller_authorization: CallerAuthorization,
    /// How redirects come back, if they are rewritten.
    pub(super) local: Option<Local>,
    /// Without one, nothing is injected.
    pub(super) credential: Option<Credential>,
    pub(super) response_timeout: Duration,
    pub(super) metrics: RouteMetrics,
    pub(super) complaints: Complaints,
}

impl Route {
    pub(super) fn build(
        name: &str,
        config: &RouteConfig,
        target: &Target,
        upstream: Arc<Upstream>,
        credential: Option<&Credential>,
        metrics: RouteMetrics,
    ) -> Result<Self, Invalid> {
        let header = HeaderName::try_from(config.inject.header.as_str())
            .map_err(|_| Invalid::new("inject.header", "is not the name of a header"))?;
        if !Injection::may_carry(&header) {
            return Err(Invalid::new("inject.header", "is a header that frames or routes requests")
                .hint("most services read tokens from `authorization` or a header of their own"));
        }
        let credential = match (&config.inject.format, credential) {
            (_, None) => None,
            (Some(format), Some(credential)) => {
                let format: Format = format.parse().map_err(|why| Invalid::new("inject.format", why))?;
                Some(credential.with_format(&format))
            }
            (None, Some(credential)) => Some(credential.clone()),
        };
        let path = prefix(&config.path)?;
        let strip = if config.strip_prefix { path.len() } else { 0 };
        Ok(Self {
            name: name.into(),
            upstream,
            has_prefix: !path.is_empty() || !target.base.is_empty(),
            rewrite: Rewrite { strip, base: target.base.clone() },
            headers: headers(config, &header)?,
            replay: config.replay,
            preserve_host: config.preserve_host,
            caller_authorization: config.caller_authorization,
            local: config.rewrite_location.then(|| Local::new(target, &path[..strip])),
            injection: Injection::new(header),
            credential,
            response_timeout: config.response_timeout.0,
            metrics,
            complaints: Complaints::default(),
        })
    }
}

/// What is injected: nothing, where the route has no credential or the caller's own takes its place.
pub(super) type Injected = Option<Current>;

impl Route {
    /// The current token, or the one that is being fetched. Never a request without one, on a route that has a
    /// credential.
    pub(super) async fn token(&self) -> Result<Injected, Error> {
        let Some(credential) = &self.credential else { return Ok(None) };
        match credential.current() {
            Some(current) => Ok(Some(current)),
            None => credential.wait().await.map(Some).map_err(|Unavailable { retry_after }| Error {
                retry_after: Some(retry_after),
                ..Reason::TokenUnavailable.into()
            }),
        }
    }

    /// Takes the token of now, after a time in which the one that was to be sent can have ended.
    pub(super) async fn renew(&self, injected: &mut Injected) -> Result<(), Error> {
        if injected.is_some() {
            *injected = self.token().await?;
        }
        Ok(())
    }

    /// Whether the caller's own credential is sent in place of the token. What is left behind the hop-by-hop set is looked
    /// at: a field that `Connection` names does not cross.
    pub(super) fn keeps(&self, headers: &HeaderMap) -> Result<bool, Reason> {
        match self.caller_authorization {
            CallerAuthorization::Keep => {
                self.injection.only(headers).map_err(|()| Reason::CallerAuthorization)
            }
            CallerAuthorization::Replace | CallerAuthorization::Reject => Ok(false),
        }
    }

    /// Sets the one credential, last of all.
    pub(super) fn inject(&self, headers: &mut HeaderMap, injected: &Injected) {
        if let Some(current) = injected {
            self.injection.set(headers, current.header());
        }
    }

    /// Where it is set, for whoever does so elsewhere.
    pub(super) fn injected(&self) -> &HeaderName {
        self.injection.name()
    }
}

/// Checks the `headers` of a route.
fn headers(config: &RouteConfig, injected: &HeaderName) -> Result<Box<[(Injection, HeaderValue)]>, Invalid> {
    let injected = Injection::new(injected.clone());
    let header = |(name, value): (&String, &String)| {
        let invalid = |message| Invalid::new(format!("headers.{name}"), message);
        let header =
            HeaderName::try_from(name.as_str()).map_err(|_| invalid("is not the name of a header"))?;
        if !Injection::may_carry(&header) {
            return Err(invalid("is a header that frames, routes or describes a message"));
        }
        if injected.is_spelling(&header) {
            return Err(invalid("is the header that carries the token"));
        }
        let value = HeaderValue::try_from(value.as_str())
            .map_err(|_| invalid("has a value that no header can carry"))?;
        Ok((Injection::new(header), value))
    };
    config.headers.iter().map(header).collect()
}

/// The prefix of a `path` key, without a slash at its end: `/` is empty.
pub(super) fn prefix(path: &str) -> Result<&str, Invalid> {
    let invalid = |message| Invalid::new("path", message).hint("write it like `/orders`");
    if !path.starts_with('/') {
        return Err(invalid("does not begin with `/`"));
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if !path.bytes().all(plain) || path::check_within_prefix(path).is_err() {
        return Err(invalid("can be read in more than one way"));
    }
    Ok(path.trim_end_matches('/'))
}

/// The routes of one listener.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    any: Paths,
    hosts: Table<Paths>,
}

/// What the operator has named: the callers choose what is looked for, but not what is in it, so the hash needs no key.
type Table<T> = HashMap<Box<str>, T, FnvBuildHasher>;

#[derive(Debug, Default)]
struct Paths {
    root: Option<Arc<Route>>,
    prefixes: Table<Arc<Route>>,
    // No lookup is longer than this: looking for every prefix of a long path is work that a caller could choose.
    longest: usize,
}

impl RouteTable {
    /// Adds a route; the name of the other one when both match the same.
    pub(super) fn add(
        &mut self,
        host: Option<&str>,
        prefix: &str,
        route: Arc<Route>,
    ) -> Result<(), Box<str>> {
        let paths = match host {
            None => &mut self.any,
            Some(host) => self.hosts.entry(host.to_ascii_lowercase().into()).or_default(),
        };
        let earlier = if prefix.is_empty() {
            paths.root.replace(route)
        } else {
            paths.longest = paths.longest.max(prefix.len());
            paths.prefixes.insert(prefix.into(), route)
        };
        earlier.map_or(Ok(()), |earlier| Err(earlier.name.clone()))
    }

    /// How long each route waits for an answer to begin.
    pub(super) fn response_timeouts(&self) -> impl Iterator<Item = Duration> {
        let tables = self.hosts.values().chain([&self.any]);
        tables
            .flat_map(|paths| paths.prefixes.values().chain(&paths.root))
            .map(|route| route.response_timeout)
    }

    /// The route of a request that was sent as to a proxy (RFC 9112 §3.2.2): a name that belongs to routes is not taken
    /// by one that stands for every name.
    pub(super) fn find_proxied(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        match self.hosts.get(host.to_ascii_lowercase().as_str()) {
            Some(paths) => paths.find(path),
            None => self.any.find(path),
        }
    }

    /// The route of a request; one with a host wins over one without.
    pub(super) fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        if !self.hosts.is_empty() {
            let paths = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.hosts.get(host.to_ascii_lowercase().as_str())
            } else {
                self.hosts.get(host)
            };
            if let Some(route) = paths.and_then(|paths| paths.find(path)) {
                return Some(route);
            }
        }
        self.any.find(path)
    }
}

impl Paths {
    fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if self.prefixes.is_empty() {
            return self.root.as_ref();
        }
        // A segment ends before a slash and at the end of the path. A target is ASCII, so every index is a boundary.
        let bytes = path.as_bytes();
        let mut end = bytes.len().min(self.longest + 1);
        loop {
            if end > 0
                && end <= self.longest
                && (end == bytes.len() || bytes[end] == b'/')
                && let Some(route) = self.prefixes.get(&path[..end])
            {
                return Some(route);
            }
            if end == 0 {
                return self.root.as_ref();
            }
            end = memchr::memrchr(b'/', &bytes[..end]).unwrap_or(0);
        }
    }
}
