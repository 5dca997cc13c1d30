//! Everything that requests meet, built from the configuration: listeners, guards, routes, upstreams.

mod check;
mod identity;
mod refused;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderName;
use tokio::sync::Notify;

use self::{identity::Identity, refused::Told};
use super::{
    config::{
        AccessRule, HttpProxyAuthConfig, NO_CREDENTIAL, ProxyConfig, RouteConfig, RouteTlsConfig,
        UpstreamProtocol,
    },
    route::{self, Route, RouteTable},
    upstream::{Target, Upstream, Watch},
};
use crate::{
    guard::Guard,
    invalid::Invalid,
    listen::{Listen, UnixConfig, UnixRules},
    telemetry::{
        metrics::{Metrics, RouteMetrics},
        traces::Tracer,
    },
    token::Credential,
};

/// The label of requests that no route took.
const NO_ROUTE: &str = "(none)";

/// The listeners and their routes, ready to serve.
#[derive(Debug)]
pub struct Routes {
    pub(super) listeners: Vec<Site>,
    pub(super) kept: Kept,
}

impl Kept {
    /// Every upstream of the routes.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.upstreams.values().map(|upstream| &**upstream)
    }
}

/// What requests meet now; a reload puts another site in its place. Requests read it, reloads write it: a pointer swap keeps
/// the readers wait-free.
pub(super) type Live = Arc<ArcSwap<Site>>;

/// What outlives a change of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    upstreams: HashMap<(Target, Reached), Arc<Upstream>>,
    // Numbers are not used again: a worker may still hold connections under an old one.
    next_slot: usize,
    identity: Option<Arc<Identity>>,
    pub(super) watch: Watch,
    /// Tells the workers that requests wait for connections.
    pub(super) pressure: Arc<Notify>,
    traces: Tracer,
}

/// What the requests of one listener meet.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) listen: Listen,
    pub(super) unix: UnixRules,
    pub(super) guard: Guard,
    pub(super) required_header: Option<HeaderName>,
    pub(super) table: RouteTable,
    pub(super) unrouted: RouteMetrics,
    pub(super) access_log: AccessRule,
    pub(super) traces: Tracer,
    pub(super) identity: Arc<Identity>,
    told: Told,
}

impl Routes {
    /// Checks and builds everything. `credential` finds a credential by its name.
    pub fn build(
        proxy: &ProxyConfig,
        routes: &BTreeMap<String, RouteConfig>,
        credential: &dyn Fn(&str) -> Option<Credential>,
        metrics: &Metrics,
    ) -> Result<Self, Invalid> {
        Self::build_after(&Kept::default(), proxy, routes, credential, metrics)
    }

    /// The same after a change: what has not changed is what it was, its connections included.
    pub(super) fn build_after(
        before: &Kept,
        proxy: &ProxyConfig,
        routes: &BTreeMap<String, RouteConfig>,
        credential: &dyn Fn(&str) -> Option<Credential>,
        metrics: &Metrics,
    ) -> Result<Self, Invalid> {
        let in_proxy = |invalid: Invalid| invalid.under("proxy");
        check::limits(proxy).map_err(in_proxy)?;
        let required_header = match &proxy.required_header {
            None => None,
            Some(name) => Some(
                HeaderName::try_from(name.as_str())
                    .map_err(|_| in_proxy(Invalid::new("required_header", "is not the name of a header")))?,
            ),
        };
        if routes.is_empty() {
            return Err(Invalid::new("routes", "there are no routes, so there is nothing to forward")
                .hint("add a section `[routes.main]` with `upstream` and `credential`"));
        }
        let identity = before.identity.clone().unwrap_or_else(|| Arc::new(Identity::random()));
        let mut next_slot = before.next_slot;
        let main = Listen::parse(&proxy.listen).map_err(in_proxy)?;
        let unix = UnixRules::new(&proxy.unix).map_err(|invalid| in_proxy(invalid.under("unix")))?;
        let site = |listen: Listen| Site {
            listen,
            unix: unix.clone(),
            guard: Guard::default(),
            required_header: required_header.clone(),
            table: RouteTable::default(),
            unrouted: metrics.route(NO_ROUTE),
            access_log: AccessRule::of(proxy),
            traces: before.traces.clone(),
            identity: Arc::clone(&identity),
            told: Told::default(),
        };
        let mut sites: Vec<Site> = Vec::new();
        let mut hosts: Vec<Vec<String>> = Vec::new();
        // What routes say of the Unix sockets of their own.
        let mut said: Vec<Option<UnixRules>> = Vec::new();
        let mut upstreams: HashMap<(Target, Reached), Arc<Upstream>> = HashMap::new();
        for (name, config) in routes {
            let section = format!("routes.{name}");
            let in_route = |invalid: Invalid| invalid.under(&section);
            let listen = match &config.listen {
                Some(listen) => Listen::parse(listen).map_err(in_route)?,
                None => main.clone(),
            };
            // Port 0 is a port of its own each time, except for the routes that share the one of `[proxy]`.
            let known = sites.iter().position(|site| {
                site.listen == listen && (!listen.is_always_new() || config.listen.is_none())
            });
            let at = known.unwrap_or_else(|| {
                sites.push(site(listen));
                said.push(None);
                hosts.push(Vec::new());
                sites.len() - 1
            });
            let is_own = config.listen.is_some() && sites[at].listen != main;
            own_unix(config, is_own && sites[at].listen.path().is_some(), &mut said[at]).map_err(in_route)?;
            let target = Target::parse(config).map_err(in_route)?;
            let key = (Target { base: String::new(), ..target.clone() }, Reached::of(config));
            let upstream = match upstreams.get(&key).or_else(|| before.upstreams.get(&key)) {
                Some(upstream) => Arc::clone(upstream),
                None => {
                    let (slot, bytes) = (next_slot, proxy.max_header_bytes);
                    next_slot += 1;
                    let upstream = Upstream::build(slot, &target, config, bytes, metrics, &before.pressure);
                    let upstream = Arc::new(upstream.map_err(in_route)?);
                    before.watch.add(&upstream);
                    upstream
                }
            };
            upstreams.insert(key, Arc::clone(&upstream));
            let credential = find(credential, &config.credential).map_err(in_route)?;
            let route =
                Route::build(name, config, &target, upstream, credential.as_ref(), metrics.route(name))
                    .map_err(in_route)?;
            let host = config.host.as_deref().map(check::host).transpose().map_err(in_route)?;
            let prefix = route::prefix(&config.path).map_err(in_route)?;
            sites[at].table.add(host, prefix, Arc::new(route)).map_err(|other| {
                in_route(
                    Invalid::new("path", format!("matches the same requests as the route `{other}`"))
                        .hint("give one of them another `path`, `host` or `listen`"),
                )
            })?;
            hosts[at].extend(host.map(str::to_owned));
        }
        for ((site, hosts), said) in sites.iter_mut().zip(hosts).zip(said) {
            site.unix = said.unwrap_or_else(|| site.unix.clone());
            site.guard = Guard::new(site.listen.tcp())
                .hosts(&proxy.allowed_hosts)
                .hosts(hosts)
                .origins(proxy.allowed_origins.iter().cloned())
                .required_header(required_header.clone());
        }
        // The listener of `[proxy]` comes first: its address is the one that is told.
        sites.sort_by_key(|site| site.listen != main);
        let (watch, pressure) = (before.watch.clone(), Arc::clone(&before.pressure));
        let traces = before.traces.clone();
        let kept = Kept { upstreams, next_slot, identity: Some(identity), watch, pressure, traces };
        Ok(Self { listeners: sites, kept })
    }
}

impl Routes {
    /// Traces their requests, and those of the routes that a reload puts in their place.
    #[must_use]
    pub fn traced(mut self, traces: &Tracer) -> Self {
        self.kept.traces = traces.clone();
        for site in &mut self.listeners {
            site.traces = traces.clone();
        }
        self
    }

    /// Reads the `listen` key of another port, which must not be one of these.
    pub fn address_of(&self, listen: &str) -> Result<Listen, Invalid> {
        let listen = Listen::parse(listen)?;
        if self.listeners.iter().any(|site| site.listen.collides_with(&listen)) {
            return Err(Invalid::new("listen", "is where callers connect too")
                .hint("give the two different ports or paths"));
        }
        Ok(listen)
    }
}

/// The credential of a route, if it has one.
fn find(credential: &dyn Fn(&str) -> Option<Credential>, name: &str) -> Result<Option<Credential>, Invalid> {
    if name == NO_CREDENTIAL {
        return Ok(None);
    }
    credential(name).map(Some).ok_or_else(|| {
        Invalid::new("credential", format!("names `{name}`, which is not defined"))
            .hint(format!("add a section `[credentials.{name}]`"))
    })
}

/// What a route says of the Unix socket that it listens on; all routes of one socket must say the same.
fn own_unix(config: &RouteConfig, has_socket: bool, said: &mut Option<UnixRules>) -> Result<(), Invalid> {
    let Some(unix) = &config.unix else { return Ok(()) };
    if !has_socket && *unix == UnixConfig::default() {
        return Ok(());
    }
    if !has_socket {
        return Err(Invalid::new("unix", "has no meaning without a Unix socket of the route's own")
            .hint("add `listen = \"unix:/run/attache/NAME.sock\"`, or write it in `[proxy.unix]`"));
    }
    let rules = UnixRules::new(unix).map_err(|invalid| invalid.under("unix"))?;
    match said.get_or_insert_with(|| rules.clone()) == &rules {
        true => Ok(()),
        false => Err(Invalid::new("unix", "says something else than another route with this `listen`")),
    }
}

/// What else two routes must have in common to share connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reached {
    tls: RouteTlsConfig,
    protocol: UpstreamProtocol,
    connect_timeout: Duration,
    limits: (usize, usize, Duration),
    http_proxy: Option<(String, HttpProxyAuthConfig)>,
    unsafe_plaintext: bool,
}

impl Reached {
    fn of(config: &RouteConfig) -> Self {
        Self {
            tls: config.tls.clone(),
            protocol: config.protocol,
            connect_timeout: config.connect_timeout.0,
            http_proxy: config.http_proxy.clone().map(|proxy| (proxy, config.http_proxy_auth.clone())),
            unsafe_plaintext: config.unsafe_plaintext,
            limits: (config.max_connections, config.max_waiting, config.wait_timeout.0),
        }
    }
}
