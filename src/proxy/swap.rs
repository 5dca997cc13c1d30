//! Other routes behind the listeners that are bound: what a reload of the configuration changes on the request road.
//!
//! A request goes on with what it met when it began. The next one, on an old connection too, meets the new routes.
//! Upstreams that are in both keep their connections.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ProxyConfig, RouteConfig, Routes,
    site::{Kept, Live},
};
use crate::{invalid::Invalid, telemetry::metrics::Metrics, token::Credential};

/// Puts other routes behind the listeners of a [`Server`](super::Server).
#[derive(Debug)]
pub struct Swap {
    sites: Vec<Live>,
    kept: Kept,
}

impl Swap {
    pub(super) fn new(sites: Vec<Live>, kept: Kept) -> Self {
        Self { sites, kept }
    }

    /// Checks and builds the routes of a changed configuration, whose listeners must be those that are bound.
    pub fn build(
        &self,
        proxy: &ProxyConfig,
        routes: &BTreeMap<String, RouteConfig>,
        credential: &dyn Fn(&str) -> Option<Credential>,
        metrics: &Metrics,
    ) -> Result<Routes, Invalid> {
        let mut routes = Routes::build_after(&self.kept, proxy, routes, credential, metrics)?;
        // A route with another name may put the same listeners into another order.
        let mut listeners = Vec::new();
        for live in &self.sites {
            let bound = live.load();
            let Some(at) = routes.listeners.iter().position(|site| site.listen == bound.listen) else {
                return Err(moved());
            };
            listeners.push(routes.listeners.remove(at));
            if bound.unix.mode() != listeners[listeners.len() - 1].unix.mode() {
                return Err(Invalid::new(
                    "",
                    "the mode of a Unix socket cannot be changed while attaché runs",
                )
                .hint("restart attaché, or leave every `unix.mode` as it is"));
            }
        }
        if !routes.listeners.is_empty() {
            return Err(moved());
        }
        Ok(Routes { listeners, ..routes })
    }

    /// Swaps all at once, as far as one request can tell: it meets one listener.
    pub fn replace(&mut self, routes: Routes) {
        for (live, site) in self.sites.iter().zip(routes.listeners) {
            live.store(Arc::new(site));
        }
        self.kept = routes.kept;
    }
}

fn moved() -> Invalid {
    Invalid::new("", "listeners cannot be added, moved or removed while attaché runs")
        .hint("restart attaché, or leave every `listen` as it is")
}
