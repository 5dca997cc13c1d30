//! Token exchange (RFC 8693): the service's own token, such as a projected service-account token or a SPIFFE JWT-SVID,
//! for an access token.

use serde::Deserialize;

use super::Fetched;
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    token::{
        client_auth::kept, clock::Clock, error::FetchError, grant::Grant, kept_secret::KeptSecret,
        oauth::OAuthConfig,
    },
};

/// The keys of a credential of type `token_exchange`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TokenExchangeConfig {
    /// What the provider knows this service by, if it knows it by more than its token.
    pub client_id: Option<String>,
    /// The token that says whom the new token speaks for.
    pub subject_token: SecretRef,
    /// What kind of token that is (RFC 8693 §3).
    #[serde(default = "jwt")]
    pub subject_token_type: String,
    /// The token of who acts for it, if that is somebody else.
    pub actor_token: Option<SecretRef>,
    /// What kind of token that is.
    #[serde(default = "jwt")]
    pub actor_token_type: String,
    /// What kind of token is wanted; the provider decides when it is left out.
    pub requested_token_type: Option<String>,
    /// The keys of every token endpoint.
    #[serde(flatten)]
    pub oauth: OAuthConfig,
}

fn jwt() -> String {
    "urn:ietf:params:oauth:token-type:jwt".into()
}

/// RFC 8693 §2.1.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// A token exchange that is ready to be asked for.
pub(in crate::token) struct TokenExchange {
    grant: Grant,
    subject: Token,
    actor: Option<Token>,
    requested: Option<String>,
}

struct Token {
    value: KeptSecret,
    kind: String,
}

impl TokenExchange {
    /// Checks the section; the tokens must be there now.
    pub(in crate::token) fn build(config: &TokenExchangeConfig, clock: Clock) -> Result<Self, Invalid> {
        let token = |key, reference, kind: &String| {
            Ok::<_, Invalid>(Token { value: kept(key, Some(reference))?, kind: kind.clone() })
        };
        let actor = config.actor_token.as_ref();
        Ok(Self {
            grant: Grant::build(&config.oauth, config.client_id.as_deref(), GRANT, clock)?,
            subject: token("subject_token", &config.subject_token, &config.subject_token_type)?,
            actor: actor.map(|actor| token("actor_token", actor, &config.actor_token_type)).transpose()?,
            requested: config.requested_token_type.clone(),
        })
    }

    /// Asks for a token once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let mut extra = vec![
            ("subject_token", self.subject.value.value().expose()),
            ("subject_token_type", &self.subject.kind),
        ];
        if let Some(actor) = &self.actor {
            extra.push(("actor_token", actor.value.value().expose()));
            extra.push(("actor_token_type", &actor.kind));
        }
        if let Some(requested) = &self.requested {
            extra.push(("requested_token_type", requested));
        }
        self.grant.fetch(&extra).await
    }

    /// The grant that it asks for.
    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether something has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        let actor = self.actor.as_mut().is_some_and(|actor| actor.value.look());
        self.subject.value.look() | actor | self.grant.look()
    }
}
