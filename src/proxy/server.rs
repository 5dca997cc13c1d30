//! The data path as a whole: bound first, started later, on threads of its own.

use std::{io, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use tokio::sync::mpsc;

use super::{
    ProxyConfig, Routes, Swap,
    listener::{self, Bound, Gate, Room},
    site::{Kept, Site},
    worker::{self, Acceptor, Limits},
};
use crate::{
    listen::{Listen, SocketFile},
    shutdown::{Shutdown, Stage},
    telemetry::metrics::Metrics,
};

/// More workers than this have nothing to do in a sidecar, unless the operator says so.
const MAX_WORKERS: usize = 4;

/// All listeners, bound.
pub struct Server {
    bound: Vec<Bound>,
    workers: usize,
    limits: Limits,
    max_connections: usize,
    metrics: Metrics,
    kept: Kept,
}

/// A port could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}`: {source}")]
pub struct BindError {
    /// The address as configured.
    pub address: Listen,
    /// What the operating system says.
    pub source: io::Error,
}

/// The workers, running.
pub struct Running {
    // Closed when the last worker has dropped its sender; a message comes from one that ends while nobody asked for it.
    ended: mpsc::Receiver<()>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds every listener. Connections wait in the kernel until [`Server::start`].
    pub fn bind(config: &ProxyConfig, routes: Routes, metrics: &Metrics) -> Result<Self, BindError> {
        let timeouts = routes.listeners.iter().flat_map(|site| site.table.response_timeouts());
        let shortest = timeouts
            .filter(|timeout| !timeout.is_zero())
            .chain([config.header_timeout.0, config.idle_timeout.0])
            .min()
            .unwrap_or(Duration::from_secs(1));
        let bind = |site: Site| {
            let address = site.listen.clone();
            Bound::bind(site, config.reuse_port).map_err(|source| BindError { address, source })
        };
        Ok(Self {
            bound: routes.listeners.into_iter().map(bind).collect::<Result<_, _>>()?,
            workers: NonZeroUsize::new(config.workers).map_or_else(default_workers, NonZeroUsize::get),
            limits: Limits {
                shortest,
                header_timeout: config.header_timeout.0,
                idle_timeout: config.idle_timeout.0,
                max_header_bytes: config.max_header_bytes,
                files: listener::open_files(),
                pressure: Arc::clone(&routes.kept.pressure),
            },
            max_connections: config.max_connections,
            metrics: metrics.clone(),
            kept: routes.kept,
        })
    }

    /// Replaces the routes later, while the workers run.
    pub fn swap(&self) -> Swap {
        Swap::new(self.bound.iter().map(|bound| Arc::clone(&bound.live)).collect(), self.kept.clone())
    }

    /// Where callers connect, the listener of `[proxy]` first.
    pub fn addresses(&self) -> io::Result<Vec<Listen>> {
        self.bound.iter().map(Bound::address).collect()
    }

    /// The files of the Unix sockets that were bound here, for whoever ends without waiting for the workers.
    pub fn files(&self) -> Vec<Arc<SocketFile>> {
        self.bound.iter().filter_map(Bound::file).collect()
    }

    /// Starts the workers, which end with `shutdown`; called on the control plane's runtime, where files are watched.
    pub fn start(self, shutdown: &Shutdown) -> io::Result<Running> {
        tokio::spawn(self.kept.watch.clone().run());
        let room = Room::new(self.limits.files, self.workers, self.bound.len());
        let gate = Gate::new(self.max_connections, room, self.metrics.connections());
        let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..self.workers).map(|_| worker::inbox()).unzip();
        let mut acceptor = Some(Acceptor { bound: self.bound, outboxes, gate });
        let (alive, ended) = mpsc::channel(self.workers);
        let (ready, readiness) = std::sync::mpsc::channel();
        let mut threads = Vec::new();
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let (limits, shutdown, ready) = (self.limits.clone(), shutdown.clone(), ready.clone());
            let alive = Alive { ended: alive.clone(), shutdown: shutdown.clone() };
            // The first worker also accepts, for all of them.
            let acceptor = acceptor.take();
            let work = move || {
                let runtime = match worker::runtime() {
                    Ok(runtime) => runtime,
                    // Whoever starts the workers is told, and gives up.
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                drop(ready);
                let _alive = alive;
                worker::run(runtime, &limits, inbox, acceptor, shutdown);
            };
            threads.push(thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
        }
        drop(ready);
        // A worker that is missing would be the least loaded one, and every connection would be given to it.
        readiness.into_iter().collect::<io::Result<()>>()?;
        Ok(Running { ended, threads })
    }
}

impl Running {
    /// Waits until every worker has ended. An error when one ended before its time.
    pub async fn ended(mut self) -> io::Result<()> {
        if self.ended.recv().await.is_some() {
            return Err(io::Error::other("a worker has ended before its time"));
        }
        for thread in self.threads {
            // The threads are past their last statement; one that panicked has said so on standard error.
            let _ = thread.join();
        }
        Ok(())
    }
}

/// Held by a worker while it works.
struct Alive {
    ended: mpsc::Sender<()>,
    shutdown: Shutdown,
}

impl Drop for Alive {
    fn drop(&mut self) {
        // Its connections are lost, and new ones would be: a restart by the supervisor is better than that.
        if self.shutdown.stage() == Stage::Running {
            let _ = self.ended.try_send(());
        }
    }
}

/// As many as the CPU quota allows.
fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_WORKERS)
}

#[cfg(test)]
mod allocations;
