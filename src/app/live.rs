//! What a reload replaces: credentials and routes. It is built whole beside the old one and then put in its place; a
//! mistake leaves the old one as it was.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    admin::{RouteView, Snapshot},
    config::{Config, Loaded},
    invalid::Invalid,
    proxy::{ProxyConfig, RouteConfig, Swap},
    reload::Condition,
    telemetry::metrics::Metrics,
    token::{Environment, Manager},
};

/// What is in force now, for whoever looks at it. All clones are the same.
#[derive(Clone)]
pub(super) struct Live(Arc<Mutex<State>>);

struct State {
    manager: Manager,
    routes: Vec<RouteView>,
    condition: Option<Condition>,
}

impl Live {
    pub(super) fn new(config: &Config, manager: Manager) -> Self {
        Self(Arc::new(Mutex::new(State { manager, routes: route_views(config), condition: None })))
    }

    /// `/status` tells what became of the latest change.
    pub(super) fn watched_by(&self, condition: Condition) {
        self.state().condition = Some(condition);
    }

    /// For the admin port.
    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let statuses = state.manager.statuses();
        let unusable = statuses.iter().filter(|status| status.required && !status.state.is_usable());
        Snapshot {
            routes: state.routes.clone(),
            unusable: unusable.map(|status| status.name.clone()).collect(),
            // Serializing names, words and numbers cannot fail.
            credentials: serde_json::to_value(&statuses).unwrap_or_default(),
            configuration: state.condition.as_ref().map_or(serde_json::json!({}), Condition::view),
        }
    }

    /// The credentials in force.
    pub(super) fn manager(&self) -> Manager {
        self.state().manager.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn route_views(config: &Config) -> Vec<RouteView> {
    let view = |(name, route): (&String, &RouteConfig)| RouteView {
        name: name.clone(),
        host: route.host.clone(),
        path: route.path.clone(),
        upstream: route.upstream.clone(),
        credential: route.credential.clone(),
    };
    config.routes.iter().map(view).collect()
}

/// Applies changed configurations.
pub(super) struct Changes {
    pub(super) config: Config,
    pub(super) environment: Environment,
    pub(super) live: Live,
    pub(super) swap: Swap,
    /// The keys in use that weaken a promise.
    pub(super) unsafe_keys: Vec<String>,
}

impl Changes {
    /// Builds everything, then swaps. Blocking: reads files. Called within the control plane's runtime, where the new refreshers
    /// will run, but on a thread that nobody waits for.
    pub(super) fn apply(&mut self, loaded: &Loaded) -> Result<(), Invalid> {
        let mut new = loaded.config.clone();
        let restart = self.keep_what_needs_a_restart(&mut new);
        let Environment { metrics, .. } = &self.environment;
        let before = self.live.state().manager.clone();
        let built = Manager::build_after(Some(&before), &new.credentials, &self.environment);
        let built = built.and_then(|manager| {
            let credential = |name: &str| manager.credential(name);
            let routes = self.swap.build(&new.proxy, &new.routes, &credential, metrics)?;
            Ok((manager, routes))
        });
        // A credential that did not come to be shows metrics that would alert for ever, as one that has gone does.
        let (manager, routes) = built.inspect_err(|_| forget(metrics, &new, &self.config))?;

        // From here on nothing can fail.
        manager.start();
        self.swap.replace(routes);
        {
            let mut state = self.live.state();
            state.manager = manager;
            state.routes = route_views(&new);
        }
        // First, because a refresher that ends shows its metrics until then.
        drop(before);
        forget(metrics, &self.config, &new);
        let is_reloaded =
            |key: &&String| ["credentials.", "routes."].iter().any(|part| key.starts_with(part));
        let kept = self.unsafe_keys.iter().filter(|key| !is_reloaded(key));
        let unsafe_keys = kept.chain(loaded.unsafe_keys.iter().filter(is_reloaded)).cloned().collect();
        self.tell_unsafe(unsafe_keys);
        for section in restart {
            tracing::warn!(
                section,
                "this section has changed in a way that needs a restart; the old one stays"
            );
        }
        self.config = new;
        Ok(())
    }

    /// Tells the log and the metrics which keys in use weaken a promise.
    pub(super) fn tell_unsafe(&mut self, keys: Vec<String>) {
        for key in &keys {
            tracing::warn!(key, "this key weakens a promise of attaché");
        }
        self.environment.metrics.unsafe_settings(&keys);
        self.unsafe_keys = keys;
    }

    /// What is built once keeps its old value; the names of the sections in which that is so.
    fn keep_what_needs_a_restart(&self, new: &mut Config) -> Vec<&'static str> {
        let old = &self.config;
        // A moved listener, or another mode of its file, is not kept: callers would look for it where the file says. It is refused.
        let proxy = ProxyConfig {
            listen: new.proxy.listen.clone(),
            unix: new.proxy.unix.clone(),
            allowed_hosts: new.proxy.allowed_hosts.clone(),
            allowed_origins: new.proxy.allowed_origins.clone(),
            required_header: new.proxy.required_header.clone(),
            access_log: new.proxy.access_log,
            access_log_sample: new.proxy.access_log_sample,
            access_log_query: new.proxy.access_log_query,
            ..old.proxy.clone()
        };
        let changed = [
            ("log", new.log != old.log),
            ("proxy", new.proxy != proxy),
            ("shutdown", new.shutdown != old.shutdown),
            ("admin", new.admin != old.admin),
            ("traces", new.traces != old.traces),
        ];
        (new.log, new.shutdown, new.admin) = (old.log.clone(), old.shutdown.clone(), old.admin.clone());
        new.traces = old.traces.clone();
        new.proxy = proxy;
        changed.into_iter().filter(|(_, changed)| *changed).map(|(section, _)| section).collect()
    }
}

/// Shows nothing more of the credentials that only one of two configurations has.
fn forget(metrics: &Metrics, gone: &Config, there: &Config) {
    for name in gone.credentials.keys().filter(|name| !there.credentials.contains_key(*name)) {
        metrics.forget_credential(name);
    }
}
