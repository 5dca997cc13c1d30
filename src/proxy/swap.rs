//! Other routes behind the listeners that are bound: what a reload of the configuration changes on the request road.
//!
//! A request goes on with what it met when it began. The next one, on an old connection too, meets the new routes.
//! Upstreams that are in both keep their connections.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ProxyConfig, RouteConfig, Routes,
    site::{Kept, Live, Site},
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
        let routes = Routes::build_after(&self.kept, proxy, routes, credential, metrics)?;
        let bound = self.sites.iter().map(|live| live.load_full());
        let is_same = |(old, new): (Arc<Site>, &Site)| old.listen == new.listen;
        if self.sites.len() != routes.listeners.len() || !bound.zip(&routes.listeners).all(is_same) {
            return Err(Invalid::new("", "listeners cannot be added, moved or removed while attaché runs")
                .hint("restart attaché, or leave every `listen` as it is"));
        }
        let live = self.sites.iter().map(|live| live.load_full());
        if live.zip(&routes.listeners).any(|(old, new)| old.unix.mode() != new.unix.mode()) {
            return Err(Invalid::new("", "the mode of a Unix socket cannot be changed while attaché runs")
                .hint("restart attaché, or leave every `unix.mode` as it is"));
        }
        Ok(routes)
    }

    /// Swaps all at once, as far as one request can tell: it meets one listener.
    pub fn replace(&mut self, routes: Routes) {
        for (live, site) in self.sites.iter().zip(routes.listeners) {
            live.store(Arc::new(site));
        }
        self.kept = routes.kept;
    }
}
