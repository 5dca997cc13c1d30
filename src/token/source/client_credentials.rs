//! The client credentials grant (RFC 6749 §4.4).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Fetched;
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    token::{
        answer,
        client_auth::ClientAuth,
        clock::Clock,
        endpoint::Endpoint,
        error::FetchError,
        http::{Answer, Http, HttpConfig},
    },
};

/// The keys of a credential of type `client_credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ClientCredentialsConfig {
    /// The provider's issuer identifier; its metadata names the token endpoint.
    pub issuer: Option<String>,
    /// The token endpoint itself, instead of `issuer`.
    pub token_endpoint: Option<String>,
    /// What the provider knows this service by.
    pub client_id: String,
    /// How the client authenticates.
    #[serde(default)]
    pub client_auth: ClientAuthMethod,
    /// The client's secret; required except with `none`.
    pub client_secret: Option<SecretRef>,
    /// What is asked for, separated by spaces (RFC 6749 §3.3).
    pub scope: Option<String>,
    /// Whom the token is for, as Auth0 and others want it.
    pub audience: Option<String>,
    /// Whom the token is for (RFC 8707).
    #[serde(default)]
    pub resource: Vec<String>,
    /// Further parameters of the token request.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// A PEM file with an authority for the provider's certificate, beside those of the machine.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy for token requests.
    pub http_proxy: Option<String>,
    /// Allow a provider that is not loopback without TLS.
    #[serde(default)]
    pub unsafe_plaintext: bool,
}

/// How the OAuth client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMethod {
    /// HTTP Basic with id and secret form-urlencoded (RFC 6749 §2.3.1).
    #[default]
    ClientSecretBasic,
    /// HTTP Basic with id and secret as they are, for servers that do not decode them.
    ClientSecretBasicRaw,
    /// `client_id` and `client_secret` in the body (RFC 6749 §2.3.1).
    ClientSecretPost,
    /// A public client: `client_id` in the body, no secret.
    None,
}

/// A client credentials grant that is ready to be asked for.
pub(in crate::token) struct ClientCredentials {
    http: Http,
    endpoint: Endpoint,
    client_id: String,
    auth: ClientAuth,
    // Everything in the body that is the same each time.
    form: Vec<(String, String)>,
    asked: Option<BTreeSet<String>>,
}

/// Parameters that attaché sets itself: a second value would be ambiguous (RFC 6749 §3.2).
const RESERVED: [&str; 9] = [
    "grant_type",
    "scope",
    "audience",
    "resource",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "code",
];

impl ClientCredentials {
    /// Checks the section; the secret must be there now.
    pub(in crate::token) fn build(config: &ClientCredentialsConfig, clock: Clock) -> Result<Self, Invalid> {
        if config.client_id.is_empty() {
            return Err(Invalid::new("client_id", "is empty"));
        }
        if let Some(name) = config.parameters.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(Invalid::new(
                format!("parameters.{name}"),
                "is a parameter that attaché sets itself",
            )
            .hint("use the key of that name, if there is one"));
        }
        let endpoint = Endpoint::build(
            config.issuer.as_deref(),
            config.token_endpoint.as_deref(),
            config.unsafe_plaintext,
        )?;
        let http = HttpConfig { ca_file: config.ca_file.clone(), proxy: config.http_proxy.clone() };
        let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
        let mut add = |name: &str, value: &str| form.push((name.to_owned(), value.to_owned()));
        if let Some(scope) = &config.scope {
            add("scope", scope);
        }
        if let Some(audience) = &config.audience {
            add("audience", audience);
        }
        for resource in &config.resource {
            add("resource", resource);
        }
        for (name, value) in &config.parameters {
            add(name, value);
        }
        Ok(Self {
            http: Http::new(http, clock)?,
            endpoint,
            client_id: config.client_id.clone(),
            auth: ClientAuth::build(config)?,
            form,
            asked: config
                .scope
                .as_deref()
                .map(|scope| scope.split_ascii_whitespace().map(str::to_owned).collect()),
        })
    }

    /// Asks for a token once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        self.auth.look();
        let url = self.endpoint.find(&mut self.http).await?;
        let (authorization, body) = self.request();
        let sent = self.http.send(|client| {
            let request = client
                .post(url)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(ACCEPT, "application/json");
            let request = match authorization {
                Some(authorization) => request.header(AUTHORIZATION, authorization),
                None => request,
            };
            request.body(body.as_bytes().to_vec())
        });
        let Answer { status, body, retry_after, skew } = match sent.await {
            Ok(answer) => answer,
            Err(error) => {
                self.endpoint.doubt();
                return Err(error);
            }
        };
        match status {
            200..=299 => {
                let issued = answer::success(&body)?;
                Ok(Fetched { narrowed: self.narrowed(&issued), issued, skew })
            }
            _ => {
                if matches!(status, 404 | 405 | 410) {
                    self.endpoint.doubt();
                }
                Err(match answer::error_code(&body) {
                    Some(code) => FetchError::OAuth { code, status, retry_after },
                    None => FetchError::Status { status, retry_after },
                })
            }
        }
    }

    /// What goes into `Authorization`, and the body. Both may hold the secret.
    fn request(&self) -> (Option<HeaderValue>, Zeroizing<String>) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(&self.form);
        let authorization = self.auth.apply(&self.client_id, &mut form);
        (authorization, Zeroizing::new(form.finish()))
    }

    /// Whether a secret has been replaced, so that it is worth asking at once.
    pub(in crate::token) fn look(&mut self) -> bool {
        self.auth.look()
    }

    /// RFC 6749 §3.3: a grant may be narrower than what was asked for. Scopes are compared as sets.
    fn narrowed(&self, issued: &answer::Issued) -> bool {
        match (&self.asked, &issued.scope) {
            (Some(asked), Some(granted)) => !asked.is_subset(granted),
            _ => false,
        }
    }
}
