//! What a helper program prints: the bare token, the answer of a token endpoint, or what kubectl's plugins print. Whatever else
//! it is, is an error that shows none of it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    rfc3339,
    token::{
        access_token::AccessToken,
        answer::{self, Issued, Lifetime},
        error::FetchError,
    },
};

/// What a helper program prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// The bare token, in one line.
    #[default]
    Text,
    /// The answer of a token endpoint (RFC 6749 §5.1).
    Oauth,
    /// An `ExecCredential` (client.authentication.k8s.io/v1).
    ExecCredential,
}

/// Reads what came, all of it.
pub(super) fn read(output: Output, bytes: &[u8], now: SystemTime) -> Result<Issued, FetchError> {
    match output {
        Output::Oauth => answer::success(bytes).map_err(|_| FetchError::Helper("prints no OAuth answer")),
        Output::Text => {
            let text = std::str::from_utf8(bytes).map_err(|_| FetchError::Helper("prints no token"))?;
            token(text.trim_end_matches(['\r', '\n']), Lifetime::Unknown)
        }
        Output::ExecCredential => exec_credential(bytes, now),
    }
}

fn exec_credential(bytes: &[u8], now: SystemTime) -> Result<Issued, FetchError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Credential {
        api_version: String,
        kind: String,
        status: Option<Status>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        token: Option<String>,
        expiration_timestamp: Option<String>,
    }
    const WRONG: FetchError = FetchError::Helper("prints no `ExecCredential` with a token");
    let credential: Credential = serde_json::from_slice(bytes).map_err(|_| WRONG)?;
    let known = credential.api_version.starts_with("client.authentication.k8s.io/");
    if !known || credential.kind != "ExecCredential" {
        return Err(WRONG);
    }
    let status = credential.status.ok_or(WRONG)?;
    let lifetime = match status.expiration_timestamp {
        None => Lifetime::Unknown,
        Some(text) => {
            let end = rfc3339::parse(&text).ok_or(FetchError::Helper("prints an end that is not a time"))?;
            Lifetime::Known(end.duration_since(now).unwrap_or_default())
        }
    };
    token(&Zeroizing::new(status.token.ok_or(WRONG)?), lifetime)
}

fn token(text: &str, lifetime: Lifetime) -> Result<Issued, FetchError> {
    let token = AccessToken::new(text).map_err(|_| FetchError::Helper("prints no token"))?;
    Ok(Issued { token, lifetime, scope: None, refresh: None })
}
