//! What a store is encrypted with, which may be replaced at any time.

use std::sync::Arc;

use super::seal::{self, Seal};
use crate::{invalid::Invalid, secret::SecretRef, token::kept_secret::KeptSecret};

#[derive(Debug)]
pub(super) struct Key {
    secret: KeptSecret,
    pub(super) seal: Arc<Seal>,
}

impl Key {
    pub(super) fn build(reference: &SecretRef) -> Result<Self, Invalid> {
        let secret = KeptSecret::build(reference)?;
        let seal = derive(&secret).ok_or_else(|| {
            Invalid::new("", format!("is shorter than {} characters", seal::LEAST_SECRET))
                .hint("make one with `openssl rand -base64 32`")
        })?;
        Ok(Self { secret, seal })
    }

    /// Whether there is a new good one. Blocking.
    pub(super) fn look(&mut self) -> bool {
        if !self.secret.look() {
            return false;
        }
        let Some(seal) = derive(&self.secret) else {
            tracing::warn!("a new store_key is too short; the last good one stays in use");
            return false;
        };
        self.seal = seal;
        true
    }
}

fn derive(secret: &KeptSecret) -> Option<Arc<Seal>> {
    let long = secret.value().expose().len() >= seal::LEAST_SECRET;
    long.then(|| Seal::new(secret.value())).flatten().map(Arc::new)
}
