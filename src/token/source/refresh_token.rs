//! The refresh token grant (RFC 6749 §6), with rotation (RFC 9700 §4.14).
//!
//! 1. A family of refresh tokens begins with the token that the configuration refers to. What came of it by rotation is in
//!    the store; another token in its place begins a new family.
//! 2. A token that came with an answer takes the place of the one before it, for good, and is on the disk before the access
//!    token is used.
//! 3. When an answer is lost on its way, nobody knows whether the token is spent. It is tried once more soon: most providers
//!    allow for that. After that it is tried at the pace of a refused client only, because giving it up would end a family
//!    that may well be alive. An answer with a status is none that was lost: a provider that is down, or a gateway in
//!    front of it that says so, is asked again as for any other token.
//! 4. `invalid_grant` ends the family. The fallback grant takes over if there is one, and may begin the next family.

mod fallback;

use std::time::Duration;

use serde::Deserialize;

use self::fallback::Fallback;
pub use self::fallback::FallbackGrant;
use super::Fetched;
use crate::{
    duration::Span,
    invalid::Invalid,
    secret::SecretRef,
    token::{
        answer::IssuedRefresh,
        client_auth::kept,
        clock::Clock,
        error::FetchError,
        family::{Audience, Family, FamilyStatus, Kinship},
        grant::Grant,
        kept_secret::KeptSecret,
        oauth::OAuthConfig,
        store::{Store, StoreError},
    },
};

/// The keys of a credential of type `refresh_token`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefreshTokenConfig {
    /// What the provider knows this service by.
    pub client_id: String,
    /// The refresh token to begin with; required. Another one in its place begins a new family.
    pub refresh_token: SecretRef,
    /// How long the provider lets refresh tokens that came from one another live, where its answers do not tell.
    pub family_lifetime: Option<Span>,
    /// The grant that takes over when the refresh token is not accepted any more.
    pub fallback: Option<FallbackGrant>,
    /// The user, with `fallback = "password"`.
    pub username: Option<String>,
    /// The user's password, with `fallback = "password"`.
    pub password: Option<SecretRef>,
    /// Keep new refresh tokens in memory only: they are lost with the process.
    #[serde(default)]
    pub unsafe_no_store: bool,
    /// The keys of every token endpoint.
    #[serde(flatten)]
    pub oauth: OAuthConfig,
}

/// After so many lost answers to one token it is asked for slowly.
const TRIES: u32 = 2;

/// A refresh token grant that is ready to be asked for.
pub(in crate::token) struct RefreshToken {
    grant: Grant,
    initial: KeptSecret,
    audience: Audience,
    family_lifetime: Option<Duration>,
    fallback: Option<Fallback>,
    clock: Clock,
    family: Option<Family>,
    /// The family that was in use when the token in the configuration was replaced: it goes on if that one is no good.
    before: Option<Family>,
    /// A fetch that was cut off leaves this behind.
    asking: bool,
    /// The operator has replaced the token since the start.
    replaced: bool,
    told_of_no_store: bool,
}

impl RefreshToken {
    /// Checks the section; the token must be there now.
    pub(in crate::token) fn build(config: &RefreshTokenConfig, clock: Clock) -> Result<Self, Invalid> {
        let fallback = Fallback::build(config)?;
        Ok(Self {
            grant: Grant::build(&config.oauth, Some(&config.client_id), "refresh_token", clock.clone())?,
            initial: kept("refresh_token", Some(&config.refresh_token))?,
            audience: Audience::new(&config.oauth, &config.client_id),
            family_lifetime: config.family_lifetime.map(|span| span.0),
            fallback,
            clock,
            family: None,
            before: None,
            asking: false,
            replaced: false,
            told_of_no_store: config.unsafe_no_store,
        })
    }

    /// Asks for a token once, and keeps the refresh token that comes with it.
    pub(in crate::token) async fn fetch(&mut self, store: Option<&mut Store>) -> Result<Fetched, FetchError> {
        self.prepare(store.as_deref())?;
        let Some(family) = &mut self.family else { return Err(FetchError::Panicked) };
        if (family.refused || family.unanswered >= TRIES)
            && let Some(fallback) = &self.fallback
        {
            let fetched = fallback.fetch(&mut self.grant).await?;
            return self.begin_again(fetched, store).await;
        }
        // This future may never be polled again: then the answer is lost.
        self.asking = true;
        let token = family.stored.token.clone();
        let answer = self.grant.fetch(&[("refresh_token", token.expose())]).await;
        self.asking = false;
        match answer {
            Ok(fetched) => {
                self.before = None;
                self.rotate(fetched.issued.refresh.as_ref(), store).await;
                Ok(fetched)
            }
            Err(error) if let Some(refresh) = self.grant.take_refresh() => {
                // The answer came, and only its access token is of no use: what it rotated is rotated.
                self.before = None;
                self.rotate(Some(&refresh), store).await;
                Err(error)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Decides which family the next request is for; without one there is nothing to ask for.
    pub(in crate::token) fn prepare(&mut self, store: Option<&Store>) -> Result<(), FetchError> {
        if std::mem::take(&mut self.asking)
            && self.grant.was_sent()
            && let Some(family) = &mut self.family
        {
            family.unanswered = family.unanswered.saturating_add(1);
        }
        self.choose(store)
    }

    /// The family to use: the one in use, the one in the store, or a new one from the configuration.
    fn choose(&mut self, store: Option<&Store>) -> Result<(), FetchError> {
        let initial = self.initial.value();
        let origin = self.audience.origin(initial);
        let stored = || store.and_then(Store::refresh).cloned().map(Family::of_store);
        let mut in_use = self.family.take().or_else(stored);
        let kinship = in_use.as_mut().map(|family| family.kinship(&self.audience, initial));
        if kinship == Some(Kinship::Own) {
            self.family = in_use;
            return Ok(());
        }
        // The operator has put back the token before this one, which may be spent: what came of it goes on.
        let mut own = |family: &mut Family| family.kinship(&self.audience, initial) == Kinship::Own;
        let back = self.before.take_if(&mut own).or_else(|| stored().take_if(&mut own));
        if back.is_some() {
            self.family = back;
            return Ok(());
        }
        // The token in the configuration is spent, and whoever sees it again may revoke all that came from it.
        let spent = kinship == Some(Kinship::Elsewhere);
        if spent && self.fallback.is_none() {
            return Err(FetchError::Store(StoreError::Elsewhere));
        }
        if in_use.is_some() && !spent {
            tracing::info!("a new refresh token in the configuration begins a new family");
        }
        // One that is still there has not been followed by any that was good.
        let before = in_use.filter(|family| kinship == Some(Kinship::Earlier) && !family.refused);
        self.before = self.before.take().or(before);
        let begun = Family::begin(initial.clone(), origin, self.clock.now().wall);
        self.family = Some(Family { refused: spent, ..begun });
        Ok(())
    }

    /// What an answer says of the refresh token.
    async fn rotate(&mut self, refresh: Option<&IssuedRefresh>, store: Option<&mut Store>) {
        let Some(family) = &mut self.family else { return };
        let rotated = family.answered(refresh, self.clock.now().wall, self.family_lifetime);
        match store {
            Some(store) => {
                // It stays in memory, and in the store's, when it cannot be written; the store tells.
                let _ = store.keep_refresh(family.stored.clone()).await;
            }
            None if rotated && !self.told_of_no_store => {
                self.told_of_no_store = true;
                tracing::warn!("the provider rotates refresh tokens, and there is no store to keep them in");
            }
            None => {}
        }
    }

    fn failed(&mut self, error: FetchError) -> FetchError {
        let Some(family) = &mut self.family else { return error };
        let lost = match &error {
            FetchError::Timeout
            | FetchError::Broken
            | FetchError::TooLarge
            | FetchError::Compressed
            | FetchError::Malformed(_) => true,
            // Also not when a gateway says that it got no answer (502, 504): that is how a provider that is down mostly
            // looks. Should the token be spent after all, the provider says so next time, and nothing is lost by asking.
            _ => false,
        };
        let fallback = self.fallback.is_some();
        let lost = lost && self.grant.was_sent();
        family.unanswered = family.unanswered.saturating_add(u32::from(lost));
        match error {
            FetchError::OAuth { code, .. } if code.meaning() == "invalid_grant" => {
                family.refused = true;
                let goes_on = self.before.is_some();
                if let Some(mut before) = self.before.take() {
                    tracing::warn!("the new refresh token is refused; the one before it stays in use");
                    before.outlived = Some(family.stored.origin.clone());
                    self.family = Some(before);
                }
                FetchError::RefreshRefused { fallback: fallback || goes_on }
            }
            error if lost && family.unanswered >= TRIES => {
                tracing::debug!(%error, "the answer to a refresh token was lost again");
                FetchError::RefreshInDoubt { fallback }
            }
            error => error,
        }
    }

    /// A token came by the fallback grant, perhaps with a refresh token that begins a family.
    async fn begin_again(
        &mut self,
        fetched: Fetched,
        store: Option<&mut Store>,
    ) -> Result<Fetched, FetchError> {
        if let (Some(refresh), Some(family)) = (&fetched.issued.refresh, &mut self.family) {
            family.begin_again(refresh.token.clone(), self.clock.now().wall);
            self.before = None;
            self.rotate(fetched.issued.refresh.as_ref(), store).await;
        }
        Ok(fetched)
    }

    /// The grant that it asks for.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether something has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        let replaced = self.initial.look();
        self.replaced |= replaced;
        let login = self.fallback.as_mut().is_some_and(Fallback::look);
        replaced | login | self.grant.look()
    }

    /// Whether the operator has given another token since the start: what the store holds does not matter any more.
    pub(in crate::token) fn is_replaced(&self) -> bool {
        self.replaced
    }

    /// The origin of the family in use.
    pub(in crate::token) fn origin(&self) -> Option<String> {
        self.family.as_ref().map(|family| family.stored.origin.clone())
    }

    /// Whether what has this origin speaks for whom the token in the configuration speaks for.
    pub(in crate::token) fn is_origin(&self, origin: &str) -> bool {
        self.audience.is_origin(origin, self.initial.value())
    }

    /// How the family is.
    pub(in crate::token) fn family(&self) -> Option<FamilyStatus> {
        self.family.as_ref().map(|family| family.status(TRIES))
    }
}

#[cfg(test)]
mod tests;
