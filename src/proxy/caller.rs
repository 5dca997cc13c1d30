//! What the requests of one connection of a caller have in common, and what ends with each request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use http::{HeaderMap, Method, Response, Uri, request::Parts};

use super::{
    activity::Activity,
    config::AccessRule,
    early::Early,
    error::Reason,
    grpc,
    http1::Facts,
    route::Route,
    site::{Live, Site},
    upstream::Upstream,
    worker::Worker,
};
use crate::telemetry::{
    metrics::Timer,
    traces::{OpenSpan, RequestSpan},
};

/// A site, counted within one worker: without atomic operations on a cache line that all workers share. That is worth
/// one allocation a connection.
pub(super) type LocalSite = Rc<Arc<Site>>;

/// A connection of a caller, or one stream of it, as its requests see it.
pub(super) struct Caller {
    pub(super) worker: Rc<Worker>,
    /// Its requests follow one another; over HTTP/2 each has a stream.
    pub(super) is_http_1: bool,
    /// What the head of the request under way looked like, over HTTP/1.
    pub(super) facts: Cell<Facts>,
    pub(super) activity: Rc<Activity>,
    /// Whether the end of the answer under way is that of the connection.
    pub(super) until_close: Cell<bool>,
    /// Interim answers to the request under way.
    pub(super) early: Early,
    live: Live,
    // What the last request met.
    known: RefCell<LocalSite>,
}

impl Caller {
    pub(super) fn new(worker: Rc<Worker>, live: Live, activity: Rc<Activity>) -> Self {
        let known = RefCell::new(Rc::new(live.load_full()));
        let (facts, until_close, early) = (Cell::default(), Cell::new(false), Early::default());
        Self { worker, is_http_1: true, facts, activity, until_close, early, live, known }
    }

    /// One stream of an HTTP/2 connection, with time limits of its own.
    pub(super) fn stream(&self) -> Rc<Self> {
        let activity = Rc::new(Activity::new(Rc::clone(&self.worker.ticks)));
        self.worker.registry.add(&activity);
        Rc::new(Self {
            worker: Rc::clone(&self.worker),
            is_http_1: false,
            facts: Cell::default(),
            early: Early::default(),
            activity,
            until_close: Cell::new(false),
            live: Arc::clone(&self.live),
            known: RefCell::new(self.site()),
        })
    }

    /// What a request that begins now meets.
    pub(super) fn site(&self) -> LocalSite {
        let current = self.live.load();
        let mut known = self.known.borrow_mut();
        if !Arc::ptr_eq(&current, &known) {
            *known = Rc::new(Arc::clone(&current));
        }
        Rc::clone(&known)
    }
}

/// A request from its head to the last byte of its answer. Dropping it is the end of the request, however it ends.
pub(super) struct InFlight {
    caller: Rc<Caller>,
    timer: Option<Timer>,
    // Nothing is remembered of a request that nobody wants to be told of.
    told: Option<Box<Told>>,
}

/// What the access log and the span tell of a request: never a header or a body, and a query only where it is wanted.
struct Told {
    access_log: AccessRule,
    span: Option<OpenSpan>,
    method: Method,
    uri: Uri,
    route: Option<(Box<str>, Arc<Upstream>)>,
    status: u16,
    reason: Option<Reason>,
    replayed: bool,
    is_call: bool,
    call_status: Option<&'static str>,
}

/// Stands in the extensions of an answer to a request that was sent once more with a new token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replayed;

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlight")
    }
}

impl InFlight {
    /// A request begins. If it is traced, its span takes the place of the caller's.
    pub(super) fn begin(caller: &Rc<Caller>, site: &Site, parts: &mut Parts) -> Self {
        caller.activity.serving();
        let span = site.traces.request(&mut parts.headers);
        let told = (span.is_some() || site.access_log.is_on()).then(|| {
            Box::new(Told {
                access_log: site.access_log,
                span,
                method: parts.method.clone(),
                uri: parts.uri.clone(),
                route: None,
                status: 0,
                reason: None,
                replayed: false,
                is_call: grpc::is_call(parts),
                call_status: None,
            })
        });
        Self { caller: Rc::clone(caller), timer: None, told }
    }

    /// The request belongs to a route.
    pub(super) fn routed(&mut self, route: &Route) {
        self.timer = Some(route.metrics.begin());
        if let Some(told) = &mut self.told {
            told.route = Some((route.name.clone(), Arc::clone(&route.upstream)));
        }
    }

    /// The head of the answer is known.
    pub(super) fn answered<B>(&mut self, response: &Response<B>, reason: Option<Reason>) {
        if let Some(told) = &mut self.told {
            told.status = response.status().as_u16();
            told.reason = reason;
            told.replayed = response.extensions().get::<Replayed>().is_some();
        }
        self.ended(response.headers());
    }

    /// What may say how a gRPC call went: the trailers of its answer, or its head when there is nothing else.
    pub(super) fn ended(&mut self, fields: &HeaderMap) {
        if let Some(told) = self.told.as_mut().filter(|told| told.is_call) {
            told.call_status = grpc::status(fields);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let activity = &self.caller.activity;
        if self.caller.is_http_1 {
            activity.idle();
        } else {
            // Between two requests there is no stream. Its connection is timed instead.
            activity.serving();
        }
        if let Some(told) = &self.told {
            told.tell(self.timer.as_ref());
        }
    }
}

impl Told {
    fn tell(&self, timer: Option<&Timer>) {
        let is_error = self.reason.is_some() || self.status >= 500;
        if self.access_log.takes(is_error) {
            tracing::info!(
                target: "attache::access",
                method = %self.method,
                path = %self.uri.path(),
                query = self.uri.query().filter(|_| self.access_log.query),
                route = self.route.as_ref().map_or("", |(name, _)| name),
                status = self.status,
                reason = self.reason.map_or("", Reason::word),
                duration_ms = timer.map_or(0, |timer| timer.elapsed().as_millis() as u64),
                "request"
            );
        }
        if let Some(span) = &self.span {
            let (path, query) = span.target(&self.uri);
            let route = self.route.as_ref();
            span.end(RequestSpan {
                method: self.method.clone(),
                path,
                query,
                route: route.map(|(name, upstream)| {
                    let (host, port) = upstream.name.rsplit_once(':').unwrap_or((&upstream.name, ""));
                    (name.clone(), host.into(), port.parse().unwrap_or_default())
                }),
                status: self.status,
                reason: self.reason.map(Reason::word),
                replayed: self.replayed,
                call_status: self.call_status,
            });
        }
    }
}
