//! The way of a token.
//!
//! 1. A `source` asks an issuer for an access token. Its `grant` builds the request, authenticates the client
//!    (`client_auth`, with an `assertion` from the `signer` if need be), finds the `endpoint`, and reads the answer, each
//!    with limits.
//! 2. The answer becomes an [`access_token`] with a lifetime.
//! 3. The pure policy in `schedule` says until when it is usable, when the next one is asked for, and how long to back
//!    off after a failure.
//! 4. The `refresher`, one task per credential, owns the fetches and publishes what they bring.
//! 5. A [`credential`] is what a request reads.
//! 6. The `manager` holds the credentials by name, starts their refreshers and restarts one that panicked.

pub mod access_token;
pub mod answer;
mod assertion;
mod client_auth;
mod client_certificate;
pub mod clock;
mod config;
pub mod credential;
mod endpoint;
pub mod error;
mod family;
#[cfg(fuzzing)]
pub mod fuzzing;
mod grant;
mod http;
mod identity;
mod introspection;
mod introspector;
mod jwks;
mod kept_secret;
mod manager;
mod metadata;
mod named;
mod oauth;
mod private_key;
mod quota;
mod refresher;
mod refusal;
pub mod schedule;
mod signer;
mod skew;
pub mod source;
mod status;
mod store;
mod supplier;
mod verify;
mod walk;

pub use self::{
    access_token::{AccessToken, Format, Generation},
    assertion::AssertionAudience,
    client_auth::ClientAuthMethod,
    clock::Clock,
    config::{CommonConfig, CredentialConfig},
    credential::{Credential, Current, Phase, Rejection, Unavailable},
    error::FetchError,
    family::{FamilyState, FamilyStatus},
    identity::{Authority, Identity, identify},
    manager::{Environment, Manager},
    oauth::{CompatConfig, OAuthConfig},
    quota::QuotaStatus,
    signer::SigningAlg,
    status::{CertificateStatus, CredentialStatus, LastError, State, SupplyStatus},
    store::StoreError,
    walk::{Step, Trouble, Walk, can_keep, walk},
};
