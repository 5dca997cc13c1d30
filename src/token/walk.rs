//! The way to a token, step by step, for `attache check --online`: which step fails, and what probably cures it.
//!
//! 1. The name, a connection and TLS, to the issuer and, when its metadata leads elsewhere, to the token endpoint.
//! 2. The metadata.
//! 3. One token request, whose outcome says how far it came: the client, the grant, the scope.
//! 4. The token itself, when it is to be verified.
//!
//! A refresh token is not asked with as long as the one that may come in its place cannot be kept.
//!
//! A source that asks nobody over OAuth has one step, behind those of the connection where there is one.

mod reach;

use std::collections::BTreeSet;

use super::{
    answer::Lifetime,
    client_auth::ClientAuthMethod,
    client_certificate::ClientCertificate,
    clock::Clock,
    config::CredentialConfig,
    endpoint::Endpoint,
    error::{Class, FetchError},
    http::{Http, HttpConfig, provider_url},
    metadata::contradiction,
    oauth::OAuthConfig,
    refusal::Refusal,
    source::{Fetched, SourceConfig},
    supplier::Supplier,
    verify::Verifier,
};
use crate::invalid::Invalid;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub name: &'static str,
    /// What was found, in a few words, or what is wrong.
    pub outcome: Result<String, Trouble>,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The fixed word.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
    /// What probably cures it.
    pub hint: String,
}

/// The steps as far as they came; the last one is the one that failed, if any did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// In their order.
    pub steps: Vec<Step>,
    /// How long the token lives that came of it, in seconds, when the provider told.
    pub lifetime: Option<u64>,
}

impl Walk {
    /// The step that failed.
    pub fn failed(&self) -> Option<(&'static str, &Trouble)> {
        self.steps.iter().find_map(|step| Some((step.name, step.outcome.as_ref().err()?)))
    }

    fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.steps.push(Step { name, outcome: Ok(found.into()) });
    }

    fn fail(&mut self, name: &'static str, trouble: Trouble) {
        self.steps.push(Step { name, outcome: Err(trouble) });
    }
}

impl From<&FetchError> for Trouble {
    fn from(error: &FetchError) -> Self {
        Self { reason: error.word(), message: error.to_string(), hint: error.cure().to_owned() }
    }
}

/// Walks the way to a token of this credential. The token is dropped at its end.
pub async fn walk(config: &CredentialConfig, clock: Clock) -> Result<Walk, Invalid> {
    let mut supplier = Supplier::build(config, &clock)?;
    let mut walk = Walk::default();
    let Some((oauth, _)) = config.source.oauth() else {
        if let SourceConfig::GithubApp(app) = &config.source
            && let Ok(url) = provider_url("api_url", &app.api_url, false)
        {
            let (proxy, ca_file) = (app.http_proxy.clone(), app.ca_file.clone());
            if !walk.reach(&url, &HttpConfig { proxy, ca_file, ..HttpConfig::default() }).await {
                return Ok(walk);
            }
        }
        match ask(&mut supplier, &clock).await {
            Ok(fetched) => walk.token(fetched, "token"),
            Err(error) => walk.fail("token", (&error).into()),
        }
        return Ok(walk);
    };
    let Some(listed) = walk.approach(oauth, clock.clone()).await? else { return Ok(walk) };
    match ask(&mut supplier, &clock).await {
        Ok(fetched) => {
            let skew = fetched.skew;
            let token = fetched.issued.token.clone();
            walk.granted(oauth, fetched, listed.as_deref());
            if let Some(error) = supplier.loses() {
                walk.fail("store", (&error).into());
            }
            if let Some(mut verifier) = Verifier::build(oauth, clock)?
                && walk.failed().is_none()
            {
                match verifier.verify(&token, skew).await {
                    Ok(()) => walk.ok("verification", "signature, iss, aud, exp"),
                    Err(error) => walk.fail("verification", (&error).into()),
                }
            }
        }
        Err(error) => walk.refused(oauth, &error, listed.as_deref()),
    }
    Ok(walk)
}

/// Whether what a token request brings can be kept, for whoever asks once, and ends: a refresh token that was replaced would be
/// lost with the process.
pub async fn can_keep(config: &CredentialConfig, clock: Clock) -> Result<(), FetchError> {
    // A section that is wrong is told by whoever builds it to use it.
    let Ok(mut supplier) = Supplier::build(config, &clock) else { return Ok(()) };
    supplier.open(clock.now(), false).await?;
    // With a token in the store that is good for a while nothing is asked for.
    match supplier.kept(clock.now()).and_then(|kept| kept.left()) {
        Some(_) => Ok(()),
        None => supplier.prove(clock.now()).await,
    }
}

/// One token request. A refresh token that is replaced by it is in the store then, where a sidecar that is started later finds
/// it; one that runs has the store, and keeps us from asking.
async fn ask(supplier: &mut Supplier, clock: &Clock) -> Result<Fetched, FetchError> {
    supplier.prove(clock.now()).await?;
    supplier.note(clock.now()).await?;
    supplier.ask().await
}

/// What the provider lists of client authentication, if it lists any.
type Listed = Option<Vec<ClientAuthMethod>>;

impl Walk {
    /// As far as the token endpoint; nothing when a step failed.
    async fn approach(&mut self, oauth: &OAuthConfig, clock: Clock) -> Result<Option<Listed>, Invalid> {
        let mutual_tls = oauth.client_auth.is_mutual_tls();
        let (issuer, given) = (oauth.issuer.as_deref(), oauth.token_endpoint.as_deref());
        let mut endpoint = Endpoint::build(issuer, given, oauth.unsafe_plaintext, mutual_tls)?;
        let first = endpoint.first().clone();
        // The provider may demand it on its whole host.
        let certificate = ClientCertificate::of(oauth)?;
        let config = oauth.http(certificate.as_ref().map(ClientCertificate::identity));
        if !self.reach(&first, &config).await {
            return Ok(None);
        }
        if given.is_some() {
            return Ok(Some(None));
        }
        let mut http = Http::new(config.clone(), clock)?;
        match endpoint.find(&mut http).await {
            Ok(url) => {
                let place = (url.host_str(), url.port_or_known_default());
                self.ok("discovery", format!("token endpoint at {}", reach::place(&url)));
                let moved = place != (first.host_str(), first.port_or_known_default());
                if moved && !self.reach(&url, &config).await {
                    return Ok(None);
                }
                Ok(Some(endpoint.methods().map(<[_]>::to_vec)))
            }
            Err(error) => {
                self.fail("discovery", (&error).into());
                Ok(None)
            }
        }
    }

    fn granted(&mut self, oauth: &OAuthConfig, fetched: Fetched, listed: Option<&[ClientAuthMethod]>) {
        let method = oauth.client_auth;
        let against = listed.and_then(|listed| contradiction(method, listed));
        let note = against.map(|against| format!(" (works, though {against})")).unwrap_or_default();
        self.ok("client authentication", format!("{}{note}", method.name()));
        let asked = oauth.scope.as_deref().unwrap_or_default();
        let asked: BTreeSet<_> = asked.split_ascii_whitespace().map(str::to_owned).collect();
        let granted = fetched.issued.scope.clone();
        self.token(fetched, "grant");
        let Some(granted) = granted.filter(|_| !asked.is_empty()) else { return };
        // What is printed is what the operator wrote, never what the provider did.
        let missing: Vec<_> = asked.difference(&granted).map(String::as_str).collect();
        if missing.is_empty() {
            return self.ok("granted scope", "all that was asked for");
        }
        self.fail(
            "granted scope",
            Trouble {
                reason: "narrowed_scope",
                message: format!("the provider did not grant `{}`", missing.join(" ")),
                hint: "allow this client these scopes in the provider's settings, or ask for less".to_owned(),
            },
        );
    }

    fn token(&mut self, fetched: Fetched, name: &'static str) {
        let found = match fetched.issued.lifetime {
            Lifetime::Known(lifetime) => {
                self.lifetime = Some(lifetime.as_secs());
                format!("a token for {} s", lifetime.as_secs())
            }
            Lifetime::Unknown => "a token; for how long is not told".to_owned(),
        };
        self.ok(name, found);
    }

    /// The code of the error tells how far the request came (RFC 6749 §5.2, RFC 8707 §2).
    fn refused(&mut self, oauth: &OAuthConfig, error: &FetchError, listed: Option<&[ClientAuthMethod]>) {
        if matches!(error, FetchError::Store(_)) {
            return self.fail("store", error.into());
        }
        let method = oauth.client_auth;
        let code = match error {
            FetchError::OAuth { code, .. } => code.as_str(),
            _ => "",
        };
        let refusal = Refusal::of(error, method, listed);
        if refusal.is_some() || error.class() == Class::Local {
            let trouble = match refusal {
                Some(Refusal { message, hint }) => Trouble { reason: error.word(), message, hint },
                None => error.into(),
            };
            return self.fail("client authentication", trouble);
        }
        if matches!(code, "invalid_scope" | "invalid_target") {
            self.ok("client authentication", method.name());
            return self.fail("granted scope", error.into());
        }
        if !code.is_empty() {
            self.ok("client authentication", method.name());
        }
        self.fail("grant", error.into());
    }
}

#[cfg(test)]
mod tests;
