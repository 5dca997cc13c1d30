//! The real application, on ports of its own.

use std::{io::Write as _, net::SocketAddr, thread};

use attache::{
    app, config,
    shutdown::{self, Stage, Trigger},
    telemetry::metrics::Metrics,
};

use super::{FakeServer, get};

/// A running sidecar; dropping it ends it.
pub struct Sidecar {
    pub proxy: SocketAddr,
    pub proxies: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub metrics: Metrics,
    pub trigger: Trigger,
    thread: Option<thread::JoinHandle<()>>,
}

/// A credential of a fake provider, as the configuration writes it.
pub fn credential(provider: &FakeServer) -> String {
    format!(
        "[credentials.main]\ntype = \"client_credentials\"\ntoken_endpoint = \"{}/token\"\nclient_id = \"c\"\nclient_auth = \"none\"\n",
        provider.url()
    )
}

impl Sidecar {
    /// Runs what the configuration says, on port 0 unless it says otherwise.
    pub fn run(configuration: &str) -> Self {
        Self::with_workers("2", configuration)
    }

    /// The same with so many workers, which share nothing of a request.
    pub fn with_workers(workers: &str, configuration: &str) -> Self {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(configuration.as_bytes()).unwrap();
        let environment = [
            ("ATTACHE__PROXY__LISTEN", "127.0.0.1:0"),
            ("ATTACHE__PROXY__WORKERS", workers),
            ("ATTACHE__ADMIN__LISTEN", "127.0.0.1:0"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = config::load(Some(file.path()), environment).unwrap();
        let bound = app::build(&config).unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let (proxies, admin, metrics) =
            (bound.proxy_addresses.clone(), bound.admin_address.tcp(), bound.metrics.clone());
        // Over a Unix socket a test connects by itself.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let proxies: Vec<_> = proxies.iter().map(|listen| listen.tcp().unwrap_or(nowhere)).collect();
        let admin = admin.unwrap_or(nowhere);
        let mover = trigger.clone();
        let thread = thread::spawn(move || bound.run(&mover, &shutdown).unwrap());
        Self { proxy: proxies[0], proxies, admin, metrics, trigger, thread: Some(thread) }
    }

    /// One route for everything to `upstream`, with further lines for the route.
    pub fn to(upstream: &str, provider: &FakeServer, lines: &str) -> Self {
        Self::run(&format!(
            "{}[routes.main]\nupstream = \"{upstream}\"\ncredential = \"main\"\n{lines}\n",
            credential(provider)
        ))
    }

    /// How many requests of the route `main` are under way.
    pub fn in_flight(&self) -> f64 {
        self.metric("attache_requests_in_flight{route=\"main\"}")
    }

    /// The value of a metric with exactly these labels.
    pub fn metric(&self, series: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a credential has had its token.
    pub fn ready(&self) {
        while get(self.admin, "/readyz").status != 200 {
            thread::yield_now();
        }
    }

    /// What `/status` tells about the only credential.
    pub fn status(&self) -> serde_json::Value {
        let status: serde_json::Value = serde_json::from_slice(&get(self.admin, "/status").body).unwrap();
        status["credentials"][0].clone()
    }

    /// Waits for the end that somebody has begun.
    pub fn ended(mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn end(&mut self) {
        self.trigger.advance(Stage::Now);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.end();
    }
}
