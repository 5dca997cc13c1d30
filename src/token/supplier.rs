//! A source with its store and its quota: what the refresher asks.

mod agree;

use std::time::Duration;

use super::{
    access_token::AccessToken,
    clock::{Clock, Moment},
    config::CredentialConfig,
    error::FetchError,
    family::fingerprint,
    quota::{Quota, Sent},
    refusal::Refusal,
    schedule::margin,
    source::{Fetched, Source},
    status::{CertificateStatus, LastError, SupplyStatus},
    store::{Handover, Store, StoreError, StoredAccess, at_millis, millis, seconds},
    verify::Verifier,
};
use crate::{invalid::Invalid, secret::Secret, tls::Validity};

/// What a refresher asks for tokens.
pub(super) struct Supplier {
    source: Source,
    store: Option<Store>,
    verifier: Option<Verifier>,
    quota: Option<Quota>,
    /// A digest of everything that a token request depends on.
    config: String,
    opened: bool,
}

/// An access token that the store held.
pub(super) struct Kept {
    pub(super) token: AccessToken,
    pub(super) lifetime: Duration,
    /// How long ago it was asked for.
    pub(super) age: Duration,
}

impl Kept {
    /// How long it can still be used, if it can: not in its margin.
    pub(super) fn left(&self) -> Option<Duration> {
        let usable = self.lifetime - margin(self.lifetime);
        usable.checked_sub(self.age).filter(|left| !left.is_zero())
    }
}

impl Supplier {
    /// Checks the section; the secrets must be there now.
    pub(super) fn build(config: &CredentialConfig, clock: &Clock) -> Result<Self, Invalid> {
        let common = &config.common;
        agree::check(config)?;
        let store = common.store.as_ref().map(|path| Store::build(path, common.store_key.as_ref()));
        let oauth = config.source.oauth();
        Ok(Self {
            store: store.transpose()?,
            verifier: oauth.map_or(Ok(None), |(oauth, _)| Verifier::build(oauth, clock.clone()))?,
            quota: common.max_requests_per_hour.map(Quota::new),
            config: digest(config),
            ..Self::of(Source::build(&config.source, clock)?)
        })
    }

    /// A source by itself.
    pub(super) fn of(source: Source) -> Self {
        Self { source, store: None, verifier: None, quota: None, config: String::new(), opened: false }
    }

    /// The same with a limit.
    #[cfg(test)]
    pub(super) fn limited(self, max: u32) -> Self {
        Self { quota: Some(Quota::new(max)), ..self }
    }

    /// The same with a store.
    #[cfg(test)]
    pub(super) fn stored(self, store: Store) -> Self {
        Self { store: Some(store), ..self }
    }

    /// The store goes on with what those before it leave.
    pub(super) fn inherit(&mut self, handover: Handover) {
        if let Some(store) = &mut self.store {
            store.inherit(handover);
        }
    }

    /// Opens the store, once. Only a refresh token cannot do without it; whoever is `patient` tries again when another
    /// process still has it.
    pub(super) async fn open(&mut self, now: Moment, patient: bool) -> Result<(), FetchError> {
        let Some(store) = self.store.as_mut().filter(|_| !self.opened) else { return Ok(()) };
        let (opened, vital) = match &self.source {
            Source::RefreshToken(source) if source.is_replaced() => (store.open_anew().await, true),
            Source::RefreshToken(_) => (store.open().await, true),
            _ => (store.open().await, false),
        };
        match opened {
            Ok(()) => {
                self.opened = true;
                if let Some(quota) = &mut self.quota {
                    quota.remember(store.requests(), now);
                }
                Ok(())
            }
            Err(error) if vital || (patient && error == StoreError::InUse) => Err(FetchError::Store(error)),
            // What it holds is of no use; what comes next takes its place.
            Err(error) if error.is_of_content() => {
                self.opened = store.open_anew().await.is_ok();
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// The access token that the store holds, if it is still good.
    pub(super) fn kept(&self, now: Moment) -> Option<Kept> {
        let store = self.store.as_ref()?;
        let kept = store.access(&self.config)?;
        if let Source::RefreshToken(source) = &self.source {
            // An earlier version wrote it beside the refresh token only.
            let origin = kept.origin.as_ref().or(store.refresh().map(|refresh| &refresh.origin));
            origin.filter(|origin| source.is_origin(origin))?;
        }
        let (asked, expires) = (at_millis(kept.asked)?, at_millis(kept.expires)?);
        // A token from the future is one from before the clock was set: its end cannot be believed.
        let age = now.wall.duration_since(asked).ok()?;
        let lifetime = expires.duration_since(asked).ok()?;
        let token = AccessToken::new(kept.token.expose()).ok()?;
        (age < lifetime).then_some(Kept { token, lifetime, age })
    }

    /// How long until a token request may be sent; nothing when it may be now.
    pub(super) fn hold_off(&mut self, now: Moment) -> Option<Duration> {
        self.quota.as_mut()?.wait(now)
    }

    /// What has been sent of a limit, for the section that takes this one's place.
    pub(super) fn sent(&self) -> Option<Sent> {
        self.quota.as_ref().map(Quota::sent)
    }

    /// Counts on from what the section in whose place this one is has sent. A store remembers that by itself.
    pub(super) fn go_on_from(&mut self, sent: &Sent) {
        if let (Some(quota), None) = (&mut self.quota, &self.store) {
            quota.go_on_from(sent);
        }
    }

    /// What a retry may not do sooner.
    pub(super) fn pace(&self) -> Duration {
        self.quota.as_ref().map_or(Duration::ZERO, Quota::pace)
    }

    /// Notes that a token request is sent now, so that also a process that is killed meanwhile knows of it. Fails when there
    /// is none to send, which takes nothing of the limit.
    pub(super) async fn note(&mut self, now: Moment) -> Result<(), FetchError> {
        if let Source::RefreshToken(source) = &mut self.source {
            source.prepare(self.store.as_ref())?;
        }
        let Some(quota) = &mut self.quota else { return Ok(()) };
        quota.note(now);
        if let Some(store) = &mut self.store {
            // What cannot be written is told by `status`, and is no reason to have no token.
            let _ = store.keep_requests(quota.history(now)).await;
        }
        Ok(())
    }

    /// Asks for a token once, and verifies what came. Each call is one token request at most. The source has kept by then
    /// what it must keep, whatever becomes of the token.
    pub(super) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let fetched = self.ask().await?;
        if let Some(verifier) = &mut self.verifier {
            verifier.verify(&fetched.issued.token, fetched.skew).await?;
        }
        Ok(fetched)
    }

    /// The same without verifying it.
    pub(super) async fn ask(&mut self) -> Result<Fetched, FetchError> {
        self.source.fetch(self.store.as_mut()).await
    }

    /// Keeps an access token for a restart, where there is a place for it.
    pub(super) async fn keep(&mut self, token: &AccessToken, asked: Moment, expires: Moment) {
        if let Some(store) = self.store.as_mut().filter(|store| store.is_sealed()) {
            let access = StoredAccess {
                token: Secret::new(token.expose()),
                config: self.config.clone(),
                origin: match &self.source {
                    Source::RefreshToken(source) => source.origin(),
                    _ => None,
                },
                asked: millis(asked.wall),
                expires: millis(expires.wall),
            };
            let _ = store.keep_access(access).await;
        }
    }

    /// Opens the store, and writes to it where a token request may bring what is nowhere else. For whoever asks once, and ends.
    pub(super) async fn prove(&mut self, now: Moment) -> Result<(), FetchError> {
        self.open(now, false).await?;
        match (&self.source, &mut self.store) {
            (Source::RefreshToken(_), Some(store)) => store.prove().await.map_err(FetchError::Store),
            _ => Ok(()),
        }
    }

    /// What keeps a refresh token that has come from being kept.
    pub(super) fn loses(&self) -> Option<FetchError> {
        let vital = matches!(self.source, Source::RefreshToken(_));
        self.problem().filter(|_| vital).map(FetchError::Store)
    }

    /// Tries again to open the store. Whether that came about, and no token could be asked for until then.
    pub(super) async fn reopen(&mut self, now: Moment) -> bool {
        let waited = !self.opened && self.store.is_some();
        let opened = self.open(now, false).await.is_ok() && self.opened;
        waited && opened && matches!(self.source, Source::RefreshToken(_))
    }

    /// Writes what could not be written before.
    pub(super) async fn tend(&mut self) {
        if let Some(store) = self.store.as_mut().filter(|store| store.is_behind()) {
            let _ = store.flush().await;
        }
    }

    /// Whether something that it depends on has been replaced, so that it is worth asking at once. Blocking: reads files.
    pub(super) fn look(&mut self) -> bool {
        if let Some(store) = &mut self.store {
            store.look();
        }
        if let Some(verifier) = &mut self.verifier {
            verifier.look();
        }
        self.source.look()
    }

    /// What is wrong with the store now.
    pub(super) fn problem(&self) -> Option<StoreError> {
        self.store.as_ref().and_then(Store::problem)
    }

    /// From when until when the client's certificate is valid, where there is one.
    pub(super) fn certificate(&self) -> Option<Validity> {
        self.source.grant()?.certificate()
    }

    /// What can be told of a failure to get a token.
    pub(super) fn explain(&self, error: &FetchError) -> LastError {
        match self.source.grant().and_then(|grant| grant.refusal(error)) {
            Some(Refusal { message, hint }) => LastError { reason: error.word(), message, hint },
            None => error.into(),
        }
    }

    /// For `/status` and the metrics.
    pub(super) fn status(&self) -> SupplyStatus {
        SupplyStatus {
            refresh_token: match &self.source {
                Source::RefreshToken(source) => source.family(),
                _ => None,
            },
            store: self.store.as_ref().map(|store| store.problem().map_or("ok", StoreError::word)),
            client_certificate: self.certificate().map(|validity| CertificateStatus {
                begins_at: seconds(validity.begins),
                ends_at: seconds(validity.ends),
            }),
            quota: self.quota.as_ref().map(Quota::status),
        }
    }
}

/// Of what a token request depends on, as it is configured. `Debug` shows every key, and of secrets where they are. A token
/// that is bound to a certificate is worthless with another one (RFC 8705 §3).
fn digest(config: &CredentialConfig) -> String {
    let mutual_tls = config.source.oauth().filter(|(oauth, _)| oauth.client_auth.is_mutual_tls());
    let certificate =
        mutual_tls.and_then(|(oauth, _)| std::fs::read(oauth.client_certificate.as_ref()?).ok());
    let certificate = certificate.unwrap_or_default();
    fingerprint(&[
        env!("CARGO_PKG_VERSION"),
        &format!("{:?}", config.source),
        &String::from_utf8_lossy(&certificate),
    ])
}

#[cfg(test)]
mod tests;
