//! What all grants share: who the provider is, how the client authenticates, one token request and its answer.

use std::{collections::BTreeSet, time::SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use zeroize::Zeroizing;

use super::{
    answer,
    assertion::{Addressed, AssertionAudience},
    client_auth::{ClientAuth, ClientAuthMethod},
    clock::Clock,
    endpoint::Endpoint,
    error::FetchError,
    http::{Answer, Http},
    metadata::contradiction,
    oauth::OAuthConfig,
    refusal::Refusal,
    skew::SigningClock,
    source::Fetched,
};
use crate::{invalid::Invalid, tls::Validity};

/// A grant that is ready to be asked for.
pub(super) struct Grant {
    http: Http,
    clock: Clock,
    endpoint: Endpoint,
    // The audience of assertions, unless it is the endpoint.
    issuer: Option<String>,
    client_id: Option<String>,
    method: ClientAuthMethod,
    auth: ClientAuth,
    // Nothing is learned where nothing is signed: what is refused there has another cause.
    signs: bool,
    signing: SigningClock,
    // What the provider's metadata has against the method: one warning a change.
    contradiction: Option<String>,
    grant_type: &'static str,
    // Everything else in the body that is the same each time.
    form: Vec<(String, String)>,
    asked: Option<BTreeSet<String>>,
    /// The last fetch came as far as the token request.
    sent: bool,
    /// The refresh token of an answer whose access token was of no use.
    besides: Option<answer::IssuedRefresh>,
}

/// Parameters that attaché sets itself: a second value would be ambiguous (RFC 6749 §3.2).
const RESERVED: [&str; 18] = [
    "grant_type",
    "scope",
    "audience",
    "resource",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "code",
    "assertion",
    "refresh_token",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "username",
    "password",
];

impl Grant {
    /// Checks the section; the secret must be there now.
    pub(super) fn build(
        config: &OAuthConfig,
        client_id: Option<&str>,
        grant_type: &'static str,
        clock: Clock,
    ) -> Result<Self, Invalid> {
        if client_id.is_some_and(str::is_empty) {
            return Err(Invalid::new("client_id", "is empty"));
        }
        let to_endpoint = config.compat.audience == AssertionAudience::TokenEndpoint;
        let signs =
            matches!(config.client_auth, ClientAuthMethod::PrivateKeyJwt | ClientAuthMethod::ClientSecretJwt);
        if signs && config.issuer.is_none() && !to_endpoint {
            return Err(Invalid::new("issuer", "is missing: assertions are addressed to it").hint(
                "add `issuer` beside `token_endpoint`, or set `compat = { audience = \"token_endpoint\" }`",
            ));
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
            config.client_auth.is_mutual_tls(),
        )?;
        config.check_proxy()?;
        let auth = ClientAuth::build(config, client_id)?;
        let mut form = Vec::new();
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
            http: Http::new(config.http(auth.identity()), clock.clone())?,
            clock,
            endpoint,
            issuer: config.issuer.clone().filter(|_| !to_endpoint),
            client_id: client_id.map(str::to_owned),
            method: config.client_auth,
            signs: auth.signs(),
            signing: SigningClock::default(),
            auth,
            contradiction: None,
            grant_type,
            form,
            asked: config
                .scope
                .as_deref()
                .map(|scope| scope.split_ascii_whitespace().map(str::to_owned).collect()),
            sent: false,
            besides: None,
        })
    }

    /// Asks for a token once, with these parameters beside those that are the same each time.
    pub(super) async fn fetch(&mut self, extra: &[(&str, &str)]) -> Result<Fetched, FetchError> {
        self.fetch_as(self.grant_type, extra).await
    }

    /// The same with another grant, for a credential that has two.
    pub(super) async fn fetch_as(
        &mut self,
        grant_type: &str,
        extra: &[(&str, &str)],
    ) -> Result<Fetched, FetchError> {
        self.sent = false;
        self.besides = None;
        let url = self.endpoint.find(&mut self.http).await?;
        self.compare_method();
        let (authorization, body) = self.request(url.as_str(), grant_type, extra)?;
        self.sent = true;
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
        let Answer { status, body, retry_after, skew, .. } = match sent.await {
            Ok(answer) => answer,
            Err(error) => {
                self.endpoint.doubt();
                return Err(error);
            }
        };
        let outcome = match status {
            200..=299 => {
                let issued = answer::success(&body).map_err(|error| {
                    self.besides = answer::refresh_besides(&body);
                    let refused = answer::refused(&body);
                    refused.map_or(error, |code| FetchError::OAuth { code, status, retry_after })
                });
                issued.map(|issued| Fetched { narrowed: self.narrowed(&issued), issued, skew })
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
        };
        if self.signs {
            self.signing.learn(self.endpoint.first().host_str(), outcome.as_ref().err(), skew);
        }
        outcome
    }

    /// The time for an assertion that somebody else signs for this grant.
    pub(super) fn signing_time(&mut self) -> SystemTime {
        self.signs = true;
        self.signing.now(self.clock.now().wall)
    }

    /// What goes into `Authorization`, and the body. Both may hold the secret.
    fn request(
        &self,
        endpoint: &str,
        grant_type: &str,
        extra: &[(&str, &str)],
    ) -> Result<(Option<HeaderValue>, Zeroizing<String>), FetchError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", grant_type).extend_pairs(&self.form).extend_pairs(extra);
        let audience = self.issuer.as_deref().unwrap_or(endpoint);
        let addressed = Addressed { audience, now: self.signing.now(self.clock.now().wall) };
        let authorization = self.auth.apply(self.client_id.as_deref(), &addressed, &mut form)?;
        Ok((authorization, Zeroizing::new(form.finish())))
    }

    /// The refresh token that came with an access token of no use, once.
    pub(super) fn take_refresh(&mut self) -> Option<answer::IssuedRefresh> {
        self.besides.take()
    }

    /// Whether the last fetch may have reached the provider: it came as far as the token request.
    pub(super) fn was_sent(&self) -> bool {
        self.sent
    }

    /// What is known of a failure in which the client was refused.
    pub(super) fn refusal(&self, error: &FetchError) -> Option<Refusal> {
        Refusal::of(error, self.method, self.endpoint.methods())
    }

    /// From when until when the client's certificate is valid, where there is one.
    pub(super) fn certificate(&self) -> Option<Validity> {
        self.auth.certificate()
    }

    /// Whether a secret or the client's certificate has been replaced, so that it is worth asking at once. A token that
    /// is bound to the old certificate is worthless with the new one (RFC 8705 §3).
    pub(super) fn look(&mut self) -> bool {
        let changed = self.auth.look();
        if changed {
            self.signing.renewed();
        }
        if changed && let Some(identity) = self.auth.identity() {
            self.http.present(identity);
        }
        changed
    }

    /// Warns when the provider's metadata does not list the configured method. It is used all the same: metadata is
    /// often behind, and guessing another one would send the secret in a way that nobody has chosen.
    fn compare_method(&mut self) {
        // Without a client there is nothing to authenticate: the grant itself speaks for it.
        let anonymous = self.method == ClientAuthMethod::None && self.client_id.is_none();
        let listed = self.endpoint.methods().filter(|_| !anonymous);
        let found = listed.and_then(|listed| contradiction(self.method, listed));
        if let Some(found) = &found
            && self.contradiction.as_ref() != Some(found)
        {
            let (issuer, client_auth) = (self.endpoint.first().host_str(), self.method.name());
            tracing::warn!(
                provider = issuer,
                client_auth,
                "{found}; set `client_auth` to one of them, or let the provider allow this one"
            );
        }
        self.contradiction = found;
    }

    /// RFC 6749 §3.3: a grant may be narrower than what was asked for. Scopes are compared as sets.
    fn narrowed(&self, issued: &answer::Issued) -> bool {
        match (&self.asked, &issued.scope) {
            (Some(asked), Some(granted)) => !asked.is_subset(granted),
            _ => false,
        }
    }
}
