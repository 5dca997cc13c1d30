//! What the operator sees. Nothing on this port changes anything.
//!
//! 1. The `listener` accepts, and bounds what a connection may cost: how many (`seats`), how long, how many bytes.
//! 2. The guard refuses web pages and foreign hosts, as on the callers' port; only GET and HEAD are answered.
//! 3. `health` tells probes the truth, [`Metrics`] are rendered for scrapes, `status` is for scripts, and as a `page`
//!    for people.
//! 4. What is shown comes from a [`View`]; it never holds a secret, so no answer can.

mod config;
mod health;
mod listener;
mod page;
mod problem;
mod seats;
mod status;

use std::{io, sync::Arc};

pub use self::{
    config::{AdminConfig, ReadinessRule},
    status::{RouteView, Snapshot},
};
use self::{listener::Bounded, problem::Problem};
use crate::{
    guard::{Guard, Refusal},
    listen::{Listen, Listener, Socket, UnixRules},
    readiness::Readiness,
    shutdown::{Shutdown, Stage},
    telemetry::metrics::{self, Metrics},
};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};

/// What the answers are made of.
#[derive(Clone)]
pub struct View {
    /// Which required credentials have had a token, and whether the process drains.
    pub readiness: Readiness,
    /// What `/readyz` means.
    pub rule: ReadinessRule,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Looks at routes and credentials as they are now; a reload may have changed them.
    pub look: Arc<dyn Fn() -> Snapshot + Send + Sync>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

/// The port, within the runtime that serves it.
#[derive(Debug)]
pub struct Port {
    listener: Listener,
    address: Listen,
    rules: UnixRules,
}

impl Port {
    /// Takes a bound socket into this runtime; the rules say who may connect, if it is a Unix socket.
    pub fn new(socket: Socket, rules: UnixRules) -> io::Result<Self> {
        Ok(Self { address: socket.local()?, listener: socket.listener()?, rules })
    }
}

/// Serves until the last stage of the shutdown: probes are answered while the process drains.
pub async fn serve(port: Port, guard: Guard, view: View, mut shutdown: Shutdown) {
    let router = router(guard, view);
    tokio::select! {
        served = async { axum::serve(Bounded::new(port), router).await } => {
            if let Err(error) = served {
                tracing::error!(%error, "the admin port has ended");
            }
        }
        () = shutdown.reached(Stage::Now) => {}
    }
}

fn router(guard: Guard, view: View) -> Router {
    Router::new()
        .route("/livez", get(health::live))
        .route("/healthz", get(health::live))
        .route("/startupz", get(health::started))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(show_metrics))
        .route("/status", get(status::show))
        .fallback(async || Problem::NotFound)
        .with_state(view)
        .layer(middleware::from_fn_with_state(Arc::new(guard), admit))
}

/// Who may ask, and how; and what every answer says to caches and browsers.
async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.check(request.headers(), request.uri().authority()) {
        Err(Refusal::MalformedHost) => Problem::MalformedHost.into_response(),
        Err(Refusal::ForeignHost) => Problem::ForeignHost.into_response(),
        Err(Refusal::ForeignOrigin | Refusal::RequiredHeader) => Problem::ForeignOrigin.into_response(),
        Ok(_) if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            Problem::MethodNotAllowed.into_response()
        }
        Ok(_) => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn show_metrics(State(view): State<View>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], view.metrics.render()).into_response()
}
