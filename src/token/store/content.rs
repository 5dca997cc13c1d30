//! What a store holds, as JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    error::StoreError,
    seal::{Seal, is_sealed},
};
use crate::secret::Secret;

/// Files of another version are not understood.
const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refresh: Option<StoredRefresh>,
    /// Never in a store that is not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<StoredAccess>,
    /// When token requests were sent, in seconds since 1970, where they are limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) requests: Vec<u64>,
}

impl Default for Content {
    fn default() -> Self {
        Self { version: VERSION, refresh: None, access: None, requests: Vec::new() }
    }
}

/// A refresh token with its family (RFC 9700 §4.14.2): all that came from one initial token by rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::token) struct StoredRefresh {
    /// The newest of the family.
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    pub(in crate::token) token: Secret,
    /// A digest of the token that the family began with, and of whom it is presented to.
    pub(in crate::token) origin: String,
    /// Digests of each of the two, which earlier versions did not write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::token) initial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::token) audience: Option<String>,
    /// When the family began, in seconds since 1970.
    pub(in crate::token) began: u64,
    /// When this token ends, as the provider said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::token) expires: Option<u64>,
    /// When the whole family ends, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::token) ends: Option<u64>,
}

/// An access token that a restart may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::token) struct StoredAccess {
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    pub(in crate::token) token: Secret,
    /// A digest of the configuration that it was asked for with.
    pub(in crate::token) config: String,
    /// The origin of the refresh token that it came with, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::token) origin: Option<String>,
    /// When it was asked for, and when it expires, in milliseconds since 1970.
    pub(in crate::token) asked: u64,
    pub(in crate::token) expires: u64,
}

impl Content {
    pub(super) fn load(bytes: &[u8], seal: Option<&Seal>) -> Result<Self, StoreError> {
        match seal {
            Some(seal) if is_sealed(bytes) => Self::parse(&seal.open(bytes)?),
            None if is_sealed(bytes) => Err(StoreError::Undecipherable),
            // Written before there was a `store_key`; the next write seals it.
            _ => Self::parse(bytes),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, StoreError> {
        let content: Self = serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt)?;
        let hollow = content.refresh.as_ref().is_some_and(|refresh| refresh.token.expose().is_empty());
        if content.version != VERSION || hollow { Err(StoreError::Corrupt) } else { Ok(content) }
    }
}

fn expose<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

fn hide<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Seconds since 1970.
pub(in crate::token) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since 1970.
pub(in crate::token) fn millis(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The time that is so many milliseconds after 1970, if it can be told.
pub(in crate::token) fn at_millis(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}
