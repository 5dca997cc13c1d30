//! The wiring: configuration -> credentials, routes, listeners, admin -> [`Bound`] -> run -> drain.
//!
//! 1. [`check`] builds everything that needs no port and drops it.
//! 2. [`build`] binds the ports. Nothing is sent and nobody is answered before [`Bound::run`].
//! 3. [`Bound::run`] starts the control plane on the calling thread and the workers on theirs, so that load never delays a
//!    refresh or a probe, and a refresh never delays a request.
//! 4. The stages of the shutdown lead to its end; the workers drain, then the admin port closes.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use tokio::{runtime, time};

use crate::{
    admin::{self, RouteView, Snapshot, View},
    config::Config,
    guard::Guard,
    invalid::Invalid,
    proxy::{BindError, Routes, Server},
    readiness::Readiness,
    shutdown::{Shutdown, ShutdownConfig, Stage, Trigger},
    supervisor::Supervisor,
    telemetry::metrics::Metrics,
    token::{Clock, Environment, Manager},
};

/// Everything that is ready before a port is bound.
struct Parts {
    manager: Manager,
    routes: Routes,
    admin_address: SocketAddr,
    readiness: Readiness,
    metrics: Metrics,
}

/// A sidecar whose ports are bound.
#[derive(Debug)]
pub struct Bound {
    /// Where callers connect: the listener of `[proxy]` first, then those of routes.
    pub proxy_addresses: Vec<SocketAddr>,
    /// Where probes and scrapes connect.
    pub admin_address: SocketAddr,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// What it counts.
    pub metrics: Metrics,
    server: Server,
    admin: TcpListener,
    guard: Guard,
    view: View,
    manager: Manager,
    shutdown: ShutdownConfig,
}

/// Why there is no sidecar.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration is at fault.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Checks everything that can be known without the network.
pub fn check(config: &Config) -> Result<(), Invalid> {
    parts(config).map(drop)
}

/// Checks the configuration, then binds every port.
pub fn build(config: &Config) -> Result<Bound, BuildError> {
    let Parts { manager, routes, admin_address, readiness, metrics } = parts(config)?;
    let bind = |source| BindError { address: admin_address, source };
    let server = Server::bind(&config.proxy, routes, &metrics)?;
    let admin = TcpListener::bind(admin_address).map_err(bind)?;
    admin.set_nonblocking(true).map_err(bind)?;
    let guard = Guard::new(Some(admin_address)).hosts(&config.admin.allowed_hosts);
    let (routes, statuses) = (route_views(config), manager.clone());
    let view = View {
        readiness: readiness.clone(),
        rule: config.admin.readiness,
        metrics: metrics.clone(),
        look: Arc::new(move || snapshot(&routes, &statuses)),
    };
    Ok(Bound {
        proxy_addresses: server.addresses().map_err(bind)?,
        admin_address: admin.local_addr().map_err(bind)?,
        readiness,
        metrics,
        server,
        admin,
        guard,
        view,
        manager,
        shutdown: config.shutdown.clone(),
    })
}

fn parts(config: &Config) -> Result<Parts, Invalid> {
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let environment =
        Environment { clock: Clock::default(), readiness: readiness.clone(), metrics: metrics.clone() };
    let manager = Manager::build(&config.credentials, &environment)?;
    let routes = Routes::build(&config.proxy, &config.routes, &|name| manager.credential(name), &metrics)?;
    let admin_address = routes.address_of(&config.admin.listen).map_err(|invalid| invalid.under("admin"))?;
    Ok(Parts { manager, routes, admin_address, readiness, metrics })
}

fn snapshot(routes: &[RouteView], manager: &Manager) -> Snapshot {
    let statuses = manager.statuses();
    let unusable = statuses.iter().filter(|status| status.required && !status.state.is_usable());
    Snapshot {
        routes: routes.to_vec(),
        unusable: unusable.map(|status| status.name.clone()).collect(),
        // Serializing names, words and numbers cannot fail.
        credentials: serde_json::to_value(&statuses).unwrap_or_default(),
        configuration: serde_json::json!({}),
    }
}

fn route_views(config: &Config) -> Vec<RouteView> {
    let view = |(name, route): (&String, &crate::proxy::RouteConfig)| RouteView {
        name: name.clone(),
        host: route.host.clone(),
        path: route.path.clone(),
        upstream: route.upstream.clone(),
        credential: route.credential.clone(),
    };
    config.routes.iter().map(view).collect()
}

impl Bound {
    /// Serves until the shutdown is over. `trigger` belongs to the shutdown: this moves it from one stage to the next
    /// once somebody has begun it.
    pub fn run(self, trigger: &Trigger, shutdown: &Shutdown) -> io::Result<()> {
        let control = runtime::Builder::new_current_thread().enable_all().build()?;
        control.block_on(self.serve(trigger, shutdown))
    }

    async fn serve(self, trigger: &Trigger, shutdown: &Shutdown) -> io::Result<()> {
        let admin = tokio::net::TcpListener::from_std(self.admin)?;
        let admin = tokio::spawn(admin::serve(admin, self.guard, self.view, shutdown.clone()));
        self.manager.start();
        let workers = self.server.start(shutdown)?;
        tracing::info!(
            proxy = %self.proxy_addresses[0],
            admin = %self.admin_address,
            version = env!("CARGO_PKG_VERSION"),
            "listening"
        );
        if let Some(supervisor) = Supervisor::of_environment() {
            tokio::spawn(supervisor.keep_informed(shutdown.clone()));
        }
        tokio::select! {
            () = workers.ended() => {}
            () = end(trigger, shutdown.clone(), &self.shutdown, &self.readiness) => {}
        }
        trigger.advance(Stage::Now);
        // It ends with the last stage, and its answers are small.
        let _ = admin.await;
        tracing::info!("ended");
        Ok(())
    }
}

/// Leads from the first stage of the end to the last.
async fn end(trigger: &Trigger, mut shutdown: Shutdown, config: &ShutdownConfig, readiness: &Readiness) {
    shutdown.reached(Stage::Leaving).await;
    readiness.drain();
    tracing::info!(drain_delay = %config.drain_delay, drain_timeout = %config.drain_timeout, "draining");
    tokio::select! {
        () = time::sleep(config.drain_delay.0) => {}
        () = shutdown.reached(Stage::Draining) => {}
    }
    trigger.advance(Stage::Draining);
    let mut now = shutdown.clone();
    tokio::select! {
        () = time::sleep(config.drain_timeout.0) => tracing::warn!("drain_timeout is over; what is left is dropped"),
        () = now.reached(Stage::Now) => {}
    }
}
