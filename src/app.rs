//! The wiring: configuration -> credentials, routes, listeners, admin -> [`Bound`] -> run -> drain.
//!
//! 1. [`check`] builds everything that needs no port and drops it.
//! 2. [`build`] binds the ports. Nothing is sent and nobody is answered before [`Bound::run`].
//! 3. [`Bound::run`] starts the control plane on the calling thread and the workers on theirs, so that load never delays a
//!    refresh or a probe, and a refresh never delays a request.
//! 4. A changed configuration is built beside the old one and swapped in (`live`), when [`Bound::watch`] was asked for.
//! 5. The stages of the shutdown lead to its end; the workers drain, then the admin port closes.

mod live;

use std::{io, sync::Arc, time::Duration};

use tokio::{runtime, sync::Notify, time};

use self::live::{Changes, Live};
use crate::{
    admin::{self, Port, View},
    config::Config,
    guard::Guard,
    inherited,
    invalid::Invalid,
    listen::{Listen, Socket, UnixRules},
    proxy::{BindError, Routes, Server},
    readiness::Readiness,
    reload::Watcher,
    shutdown::{Shutdown, ShutdownConfig, Stage, Trigger},
    supervisor::Supervisor,
    telemetry::{metrics::Metrics, traces::Traces},
    token::{Clock, Environment, Manager},
};

/// How long the end waits for answers of providers that must not be lost: as long as a token request may take.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Everything that is ready before a port is bound.
struct Parts {
    manager: Manager,
    routes: Routes,
    traces: Traces,
    admin: (Listen, UnixRules),
    environment: Environment,
}

/// A sidecar whose ports are bound.
pub struct Bound {
    /// Where callers connect: the listener of `[proxy]` first, then those of routes.
    pub proxy_addresses: Vec<Listen>,
    /// Where probes and scrapes connect.
    pub admin_address: Listen,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// What it counts.
    pub metrics: Metrics,
    server: Server,
    admin: (Socket, UnixRules),
    guard: Guard,
    view: View,
    manager: Manager,
    changes: Changes,
    watcher: Option<(Watcher, Arc<Notify>)>,
    shutdown: ShutdownConfig,
    traces: Traces,
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
    let Parts { manager, routes, traces, admin: (listen, rules), environment } = parts(config)?;
    let (readiness, metrics) = (environment.readiness.clone(), environment.metrics.clone());
    let bind = |source| BindError { address: listen.clone(), source };
    let server = Server::bind(&config.proxy, routes, &metrics)?;
    let admin = Socket::bind(&listen, &rules, config.proxy.reuse_port).map_err(bind)?;
    inherited::warn_of_the_rest();
    let guard = Guard::new(listen.tcp()).hosts(&config.admin.allowed_hosts);
    let live = Live::new(config, manager.clone());
    let seen = live.clone();
    let view = View {
        readiness: readiness.clone(),
        rule: config.admin.readiness,
        metrics: metrics.clone(),
        look: Arc::new(move || seen.snapshot()),
    };
    Ok(Bound {
        proxy_addresses: server.addresses().map_err(bind)?,
        admin_address: admin.local().map_err(bind)?,
        readiness,
        metrics,
        changes: Changes {
            config: config.clone(),
            environment,
            live,
            swap: server.swap(),
            unsafe_keys: Vec::new(),
        },
        watcher: None,
        server,
        admin: (admin, rules),
        guard,
        view,
        manager,
        shutdown: config.shutdown.clone(),
        traces,
    })
}

fn parts(config: &Config) -> Result<Parts, Invalid> {
    let metrics = Metrics::new();
    let traces = Traces::build(&config.traces, &metrics).map_err(|invalid| invalid.under("traces"))?;
    let tracer = traces.tracer();
    let environment =
        Environment { clock: Clock::default(), readiness: Readiness::new(), metrics, traces: tracer.clone() };
    let manager = Manager::build(&config.credentials, &environment)?;
    let routes =
        Routes::build(&config.proxy, &config.routes, &|name| manager.credential(name), &environment.metrics)?
            .traced(&tracer);
    let in_admin = |invalid: Invalid| invalid.under("admin");
    let listen = routes.address_of(&config.admin.listen).map_err(in_admin)?;
    let rules = UnixRules::new(&config.admin.unix).map_err(|invalid| in_admin(invalid.under("unix")))?;
    Ok(Parts { manager, routes, traces, admin: (listen, rules), environment })
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("proxy", &self.proxy_addresses).finish_non_exhaustive()
    }
}

impl Bound {
    /// Follows changes of the configuration's file; `hangup` asks for a load even without one.
    #[must_use]
    pub fn watch(mut self, watcher: Watcher, hangup: Arc<Notify>) -> Self {
        self.changes.live.watched_by(watcher.condition());
        self.watcher = Some((watcher, hangup));
        self
    }

    /// Tells the log and the metrics of keys of the configuration that weaken a promise.
    pub fn tell_unsafe(&mut self, keys: Vec<String>) {
        self.changes.tell_unsafe(keys);
    }

    /// Serves until the shutdown is over. `trigger` belongs to the shutdown: this moves it from one stage to the next
    /// once somebody has begun it.
    pub fn run(self, trigger: &Trigger, shutdown: &Shutdown) -> io::Result<()> {
        let control = runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = control.block_on(self.serve(trigger, shutdown));
        // Not dropped: that would wait for the lookup of a name that nobody answers, on a thread that cannot be stopped.
        control.shutdown_background();
        ended
    }

    async fn serve(mut self, trigger: &Trigger, shutdown: &Shutdown) -> io::Result<()> {
        let (socket, rules) = self.admin;
        let admin =
            tokio::spawn(admin::serve(Port::new(socket, rules)?, self.guard, self.view, shutdown.clone()));
        self.traces.start()?;
        self.manager.start();
        // From here on the credentials in force are those of `changes`: one that a reload takes away must end.
        drop(self.manager);
        let live = self.changes.live.clone();
        if let Some((watcher, hangup)) = self.watcher {
            let (metrics, mut changes) = (self.metrics, self.changes);
            tokio::spawn(watcher.run(hangup, metrics, move |loaded| changes.apply(loaded)));
        }
        let files = self.server.files();
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
        let ended = tokio::select! {
            ended = workers.ended() => ended,
            () = end(trigger, shutdown.clone(), &self.shutdown, &self.readiness) => Ok(()),
        };
        files.iter().for_each(|file| file.remove());
        // A refresh token that is being replaced would be lost with the answer, also when it is a worker that has ended.
        let (mut now, manager) = (shutdown.clone(), live.manager());
        tokio::select! {
            () = manager.finish() => {}
            () = now.reached(Stage::Now) => {}
            () = time::sleep(LAST_ANSWERS) => {}
        }
        trigger.advance(Stage::Now);
        // It ends with the last stage, and its answers are small.
        let _ = admin.await;
        ended?;
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

#[cfg(test)]
mod panics;
