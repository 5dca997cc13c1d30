//! Asking the provider about a token (RFC 7662).

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    access_token::AccessToken,
    answer,
    assertion::{Addressed, AssertionAudience},
    client_auth::ClientAuth,
    clock::Clock,
    endpoint::Endpoint,
    error::FetchError,
    http::{Answer, Http},
    metadata::Wanted,
    oauth::OAuthConfig,
    skew::SigningClock,
};
use crate::invalid::Invalid;

/// An introspection endpoint, and how the client authenticates there: as at the token endpoint.
pub(super) struct Introspection {
    http: Http,
    clock: Clock,
    endpoint: Endpoint,
    // The audience of assertions, unless it is the endpoint.
    issuer: Option<String>,
    client_id: Option<String>,
    auth: ClientAuth,
    signing: SigningClock,
}

impl Introspection {
    /// Checks the section; the secret must be there now.
    pub(super) fn build(
        config: &OAuthConfig,
        client_id: Option<&str>,
        clock: Clock,
    ) -> Result<Self, Invalid> {
        let (plaintext, mutual_tls) = (config.unsafe_plaintext, config.client_auth.is_mutual_tls());
        let endpoint = match (&config.introspection_endpoint, &config.issuer) {
            (Some(url), _) => Endpoint::given("introspection_endpoint", url, plaintext, mutual_tls)?,
            (None, Some(issuer)) => Endpoint::find_at(issuer, Wanted::Introspection, plaintext, mutual_tls)?,
            (None, None) => {
                return Err(Invalid::new("introspection_endpoint", "is missing, and `issuer` too")
                    .hint("name the provider's `issuer`, or its `introspection_endpoint`"));
            }
        };
        let auth = ClientAuth::build(config, client_id)?;
        let http = Http::new(config.http(auth.identity()), clock.clone())?;
        let to_endpoint = config.compat.audience == AssertionAudience::TokenEndpoint;
        Ok(Self {
            http,
            clock,
            endpoint,
            issuer: config.issuer.clone().filter(|_| !to_endpoint),
            client_id: client_id.map(str::to_owned),
            auth,
            signing: SigningClock::default(),
        })
    }

    /// Looks whether a secret or the client's certificate has been replaced. Blocking: reads files.
    pub(super) fn look(&mut self) {
        if self.auth.look() {
            self.signing.renewed();
            if let Some(identity) = self.auth.identity() {
                self.http.present(identity);
            }
        }
    }

    /// What the provider says of a token; `active` is in it, and is true or false.
    pub(super) async fn ask(&mut self, token: &AccessToken) -> Result<Map<String, Value>, FetchError> {
        let url = self.endpoint.find(&mut self.http).await?;
        let (authorization, body) = self.question(url.as_str(), token)?;
        let sent = self.http.send(|client| {
            let request = client
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(ACCEPT, "application/json");
            let request = match authorization {
                Some(authorization) => request.header(AUTHORIZATION, authorization),
                None => request,
            };
            request.body(body.as_bytes().to_vec())
        });
        let Answer { status, body, retry_after, skew, .. } = match sent.await {
            Ok(answer) => answer,
            Err(error) => {
                self.endpoint.doubt();
                return Err(error);
            }
        };
        let told = match status {
            200 => read(&body),
            _ => {
                self.endpoint.doubt();
                Err(match answer::error_code(&body) {
                    Some(code) => FetchError::OAuth { code, status, retry_after },
                    None => FetchError::Status { status, retry_after },
                })
            }
        };
        if self.auth.signs() {
            self.signing.learn(self.endpoint.first().host_str(), told.as_ref().err(), skew);
        }
        told
    }

    /// What goes into `Authorization`, and the body. Both may hold the secret, and the body holds the token.
    fn question(
        &self,
        endpoint: &str,
        token: &AccessToken,
    ) -> Result<(Option<HeaderValue>, Zeroizing<String>), FetchError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token.expose()).append_pair("token_type_hint", "access_token");
        let audience = self.issuer.as_deref().unwrap_or(endpoint);
        let addressed = Addressed { audience, now: self.signing.now(self.clock.now().wall) };
        let authorization = self.auth.apply(self.client_id.as_deref(), &addressed, &mut form)?;
        Ok((authorization, Zeroizing::new(form.finish())))
    }
}

fn read(body: &[u8]) -> Result<Map<String, Value>, FetchError> {
    let told: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| FetchError::Introspection("it is not a JSON object"))?;
    // RFC 7662 §2.2: required, and a boolean.
    match told.get("active") {
        Some(Value::Bool(_)) => Ok(told),
        _ => Err(FetchError::Introspection("it does not say whether the token is `active`")),
    }
}
