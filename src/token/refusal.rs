//! A provider refuses a client with one word (RFC 6749 §5.2). With what is known beside it, a sentence comes of that: how the
//! client has shown who it is, and which ways the provider lists. `/status` and `attache check --online` show it.

use super::{
    client_auth::ClientAuthMethod,
    error::FetchError,
    metadata::{contradiction, names},
};

/// A refused client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What happened.
    pub(super) message: String,
    /// What the operator can do about it.
    pub(super) hint: String,
}

impl Refusal {
    /// Of a failure; nothing when it was not the client that was refused. `listed` is what the provider's metadata lists, if
    /// it lists anything.
    pub(super) fn of(
        error: &FetchError,
        method: ClientAuthMethod,
        listed: Option<&[ClientAuthMethod]>,
    ) -> Option<Self> {
        let name = method.name();
        let message = match error {
            FetchError::OAuth { code, .. } if code.meaning() == "invalid_client" => {
                format!("{code} with {name}")
            }
            // Some servers answer so to a client that they do not know (glewlwyd does with 403).
            FetchError::Status { status: 401 | 403, .. } | FetchError::CertificateRefused => {
                format!("{error}, asked with {name}")
            }
            _ => return None,
        };
        let Some(listed) = listed else { return Some(Self { message, hint: error.cure().to_owned() }) };
        Some(match contradiction(method, listed) {
            Some(against) => Self {
                message: format!("{message}; {against}"),
                hint: "set `client_auth` to one of these, or let the provider allow this one".to_owned(),
            },
            None => Self {
                message,
                hint: format!(
                    "{}; the provider's metadata lists {}, of which this client may be set up for another one",
                    error.cure(),
                    names(listed)
                ),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use ClientAuthMethod as Method;

    use super::*;
    use crate::token::error::ErrorCode;

    fn code(code: &str) -> FetchError {
        FetchError::OAuth { code: ErrorCode::new(code).unwrap(), status: 401, retry_after: None }
    }

    #[test]
    fn a_refused_client_is_told_how_it_asked_and_what_the_provider_lists() {
        let of = |listed| Refusal::of(&code("invalid_client"), Method::ClientSecretBasic, listed).unwrap();
        let refusal = of(Some(&[Method::PrivateKeyJwt]));
        assert_eq!(
            refusal.message,
            "invalid_client with client_secret_basic; the provider's metadata lists only private_key_jwt"
        );
        assert!(refusal.hint.contains("client_auth"));
        let refusal = of(Some(&[Method::ClientSecretBasic, Method::ClientSecretPost]));
        assert_eq!(refusal.message, "invalid_client with client_secret_basic");
        assert!(refusal.hint.contains("client_secret") && refusal.hint.contains("basic, client_secret_post"));
        assert_eq!(of(None).hint, code("invalid_client").cure());
    }

    #[test]
    fn whatever_is_not_a_refused_client_stays_what_it_is() {
        let bare = |status| FetchError::Status { status, retry_after: None };
        for (error, refused) in [
            (bare(401), true),
            (bare(403), true),
            (FetchError::CertificateRefused, true),
            (bare(500), false),
            (code("invalid_scope"), false),
            (FetchError::Timeout, false),
        ] {
            assert_eq!(Refusal::of(&error, Method::None, None).is_some(), refused, "{error}");
        }
    }
}
