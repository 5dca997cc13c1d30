//! What the requests of one connection of a caller have in common, and what ends with each request.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use http::Method;

use super::{
    activity::Activity,
    config::AccessLog,
    error::Reason,
    io::SharedScanner,
    site::{Live, Site},
    worker::Worker,
};
use crate::telemetry::metrics::{RouteMetrics, Timer};

/// A site, counted within one worker: without atomic operations on a cache line that all workers share. That is worth
/// one allocation a connection.
pub(super) type LocalSite = Rc<Arc<Site>>;

/// A connection of a caller, as its requests see it.
pub(super) struct Caller {
    pub(super) worker: Rc<Worker>,
    pub(super) scanner: SharedScanner,
    pub(super) activity: Rc<Activity>,
    /// Whether the end of the answer under way is that of the connection.
    pub(super) until_close: Cell<bool>,
    live: Live,
    // What the last request met.
    known: RefCell<LocalSite>,
}

impl Caller {
    pub(super) fn new(
        worker: Rc<Worker>,
        live: Live,
        scanner: SharedScanner,
        activity: Rc<Activity>,
    ) -> Self {
        let known = RefCell::new(Rc::new(live.load_full()));
        Self { worker, scanner, activity, until_close: Cell::new(false), live, known }
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
    access_log: AccessLog,
    timer: Option<Timer>,
    line: Option<Box<Line>>,
}

/// What the access log tells of a request: never a query, a header or a body.
struct Line {
    method: Method,
    path: String,
    route: Box<str>,
    status: u16,
    reason: Option<Reason>,
}

impl std::fmt::Debug for InFlight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InFlight")
    }
}

impl InFlight {
    /// A request begins.
    pub(super) fn begin(caller: &Rc<Caller>, access_log: AccessLog, method: &Method, path: &str) -> Self {
        caller.activity.serving();
        // Nothing is remembered of a request whose line nobody reads.
        let line = (access_log != AccessLog::Off).then(|| {
            Box::new(Line {
                method: method.clone(),
                path: path.into(),
                route: "".into(),
                status: 0,
                reason: None,
            })
        });
        Self { caller: Rc::clone(caller), access_log, timer: None, line }
    }

    /// The request belongs to a route.
    pub(super) fn routed(&mut self, name: &str, metrics: &RouteMetrics) {
        self.timer = Some(metrics.begin());
        if let Some(line) = &mut self.line {
            line.route = name.into();
        }
    }

    /// The head of the answer is known.
    pub(super) fn answered(&mut self, status: u16, reason: Option<Reason>) {
        if let Some(line) = &mut self.line {
            line.status = status;
            line.reason = reason;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.caller.activity.idle();
        if self.caller.scanner.borrow().is_within_head() {
            // The next request has begun to arrive already.
            self.caller.activity.received(true);
        }
        if let Some(line) = &self.line
            && (self.access_log == AccessLog::All || line.reason.is_some() || line.status >= 500)
        {
            tracing::info!(
                target: "attache::access",
                method = %line.method,
                path = %line.path,
                route = %line.route,
                status = line.status,
                reason = line.reason.map_or("", Reason::word),
                duration_ms = self.timer.as_ref().map_or(0, |timer| timer.elapsed().as_millis() as u64),
                "request"
            );
        }
    }
}
