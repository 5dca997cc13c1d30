//! Whether the upstreams can be reached at all: for `attache check --online`. Nothing is sent but what TLS needs.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{
    Reason, Routes,
    upstream::{self, Offer},
};

/// An attempt to reach an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Its host and port.
    pub upstream: String,
    /// What a caller would be told.
    pub outcome: Result<(), Reason>,
}

impl Routes {
    /// Connects to every upstream, with TLS where that is configured, and closes the connections.
    pub async fn reach(&self) -> Vec<Reached> {
        let upstreams: BTreeMap<_, _> =
            self.kept.upstreams().map(|upstream| (upstream.name.to_string(), upstream)).collect();
        join_all(upstreams.into_iter().map(|(name, upstream)| async move {
            let established = upstream::establish(upstream, Offer::Any).await;
            let outcome = established.map(drop).map_err(|error| error.reason());
            Reached { upstream: name, outcome }
        }))
        .await
    }
}
