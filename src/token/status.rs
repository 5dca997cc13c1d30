//! What can be told about a credential. Nothing here can hold a secret.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use tokio::time::Instant;

use super::{credential::Credential, error::FetchError, family::FamilyStatus, quota::QuotaStatus};

/// A credential as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CredentialStatus {
    /// Its configured name.
    pub name: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether requests can be sent with it now.
    pub state: State,
    /// When its token expires, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// How many seconds its token has left.
    pub expires_in_seconds: Option<u64>,
    /// How many seconds its token was given, in all.
    pub lifetime_seconds: Option<u64>,
    /// The number of its token; 0 before the first.
    pub generation: u64,
    /// Whether readiness waits for it.
    pub required: bool,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<LastError>,
    /// How many seconds until the next token request.
    pub next_attempt_in_seconds: Option<u64>,
    /// The refresh token, the store and the limit, where there are such.
    #[serde(flatten)]
    pub supply: SupplyStatus,
}

/// What there is beside the token, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SupplyStatus {
    /// The family of refresh tokens, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<FamilyStatus>,
    /// `ok`, or what is wrong with the store, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<&'static str>,
    /// The client's certificate, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateStatus>,
    /// The limit of token requests, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaStatus>,
}

/// A certificate of the client, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateStatus {
    /// From when it is valid, in seconds since 1970.
    pub begins_at: u64,
    /// Until when, in seconds since 1970: that of the first to end of those that lead to its authority.
    pub ends_at: u64,
}

/// Whether requests can be sent with a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// There has been no token yet.
    Waiting,
    /// The token is usable, and the last attempt succeeded.
    Fresh,
    /// The token is usable, but the last attempt to replace it failed.
    Failing,
    /// There was a token, but it is not usable any more.
    Expired,
}

impl State {
    /// Whether requests can be sent.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Fresh | Self::Failing)
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// A fixed word.
    pub reason: &'static str,
    /// What happened. Of a refused client more than the log says: how it authenticated, and what the provider lists.
    pub message: String,
    /// What the operator can do about it.
    pub hint: String,
}

impl From<&FetchError> for LastError {
    fn from(error: &FetchError) -> Self {
        Self { reason: error.word(), message: error.to_string(), hint: error.cure().to_owned() }
    }
}

/// A failed attempt, for the refresher that goes on after it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: FetchError,
    pub(super) told: LastError,
    /// How many in a row have failed.
    pub(super) count: u32,
}

/// How it stands with a token.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What it was given.
    pub(super) lifetime: Duration,
    /// When the next is asked for.
    pub(super) next: Instant,
    /// Of the last attempt, if that failed.
    pub(super) failure: Option<Failure>,
}

/// What the refresher last did.
// A lock, not a channel: written once an attempt, read by whoever looks at `/status`.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Entry>);

#[derive(Clone, Debug, Default)]
struct Entry {
    failure: Option<Failure>,
    next: Option<Instant>,
    supply: SupplyStatus,
    lifetime: Option<Duration>,
}

impl Journal {
    /// There is a token with this lifetime.
    pub(super) fn succeeded(&self, lifetime: Duration, next: Instant) {
        let mut entry = self.entry();
        (entry.failure, entry.next, entry.lifetime) = (None, Some(next), Some(lifetime));
    }

    pub(super) fn failed(&self, failure: Failure, next: Instant) {
        let mut entry = self.entry();
        (entry.failure, entry.next) = (Some(failure), Some(next));
    }

    /// How it stands with the token, if there has been one.
    pub(super) fn plan(&self) -> Option<Plan> {
        let entry = self.entry();
        Some(Plan { lifetime: entry.lifetime?, next: entry.next?, failure: entry.failure.clone() })
    }

    /// The token is that of the section before.
    pub(super) fn go_on(&self, plan: &Plan) {
        let mut entry = self.entry();
        (entry.failure, entry.next, entry.lifetime) =
            (plan.failure.clone(), Some(plan.next), Some(plan.lifetime));
    }

    pub(super) fn supplied(&self, supply: SupplyStatus) {
        self.entry().supply = supply;
    }

    /// The status of a credential whose refresher writes here.
    pub(super) fn status(
        &self,
        name: &str,
        credential: &Credential,
        kind: &'static str,
        required: bool,
    ) -> CredentialStatus {
        let Entry { failure, next, supply, lifetime } = self.entry().clone();
        let usable = credential.current().is_some();
        let expires = credential.expires();
        let state = match (expires.is_some(), usable, &failure) {
            (false, ..) => State::Waiting,
            (true, true, None) => State::Fresh,
            (true, true, Some(_)) => State::Failing,
            (true, false, _) => State::Expired,
        };
        let since_epoch =
            |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = credential.shared().clock().now();
        CredentialStatus {
            name: name.to_owned(),
            kind,
            state,
            expires_at: expires.map(|expires| since_epoch(expires.wall)),
            expires_in_seconds: expires.map(|expires| expires.left(now).as_secs()),
            lifetime_seconds: lifetime.map(|lifetime| lifetime.as_secs()),
            generation: credential.generation().0,
            required,
            last_error: failure.map(|failure| failure.told),
            next_attempt_in_seconds: next.map(|next| next.saturating_duration_since(now.monotonic).as_secs()),
            supply,
        }
    }

    fn entry(&self) -> std::sync::MutexGuard<'_, Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
