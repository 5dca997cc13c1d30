//! Where tokens are asked for: given, or found in the issuer's metadata (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::{
    error::FetchError,
    http::{Http, provider_url},
};
use crate::invalid::Invalid;

/// Least time between two looks at the metadata when the endpoint is known.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How long metadata is believed. Endpoints move rarely; a failure asks for them again sooner.
const BELIEVED: Duration = Duration::from_secs(3600);

/// The token endpoint of a provider.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// As configured.
    Given(Url),
    /// Found by discovery.
    Discovered(Box<Discovery>),
}

#[derive(Debug)]
pub(super) struct Discovery {
    // Compared to what the metadata says, character by character (RFC 8414 §3.3).
    issuer: String,
    locations: [Url; 2],
    plaintext: bool,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    url: Url,
    looked: Instant,
    /// When the metadata is asked for again.
    until: Instant,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: Option<String>,
    token_endpoint: Option<String>,
}

impl Endpoint {
    /// Checks the two keys that say where the endpoint is.
    pub(super) fn build(
        issuer: Option<&str>,
        token_endpoint: Option<&str>,
        plaintext: bool,
    ) -> Result<Self, Invalid> {
        match (issuer, token_endpoint) {
            (_, Some(endpoint)) => Ok(Self::Given(provider_url("token_endpoint", endpoint, plaintext)?)),
            (Some(issuer), None) => {
                let url = provider_url("issuer", issuer, plaintext)?;
                if url.query().is_some() {
                    return Err(Invalid::new("issuer", "holds a query (RFC 8414 section 2)"));
                }
                let locations = [openid(&url), oauth(&url)];
                Ok(Self::Discovered(Box::new(Discovery {
                    issuer: issuer.to_owned(),
                    locations,
                    plaintext,
                    known: None,
                })))
            }
            (None, None) => Err(Invalid::new("issuer", "is missing, and `token_endpoint` too")
                .hint("name the provider's `issuer`, or its `token_endpoint`")),
        }
    }

    /// The endpoint, asking for the metadata when it is not known or too old.
    pub(super) async fn find(&mut self, http: &mut Http) -> Result<Url, FetchError> {
        match self {
            Self::Given(url) => Ok(url.clone()),
            Self::Discovered(discovery) => discovery.find(http).await,
        }
    }

    /// The endpoint did not do what it should: it may have moved.
    pub(super) fn doubt(&mut self) {
        if let Self::Discovered(discovery) = self
            && let Some(known) = &mut discovery.known
        {
            known.until = known.until.min(known.looked + LOOK_AGAIN);
        }
    }
}

impl Discovery {
    async fn find(&mut self, http: &mut Http) -> Result<Url, FetchError> {
        if let Some(known) = &self.known
            && Instant::now() < known.until
        {
            return Ok(known.url.clone());
        }
        let found = self.discover(http).await;
        let looked = Instant::now();
        match (found, &mut self.known) {
            (Ok(url), known) => {
                *known = Some(Known { url: url.clone(), looked, until: looked + BELIEVED });
                Ok(url)
            }
            // Metadata that cannot be had must not take away an endpoint that may well work.
            (Err(_), Some(known)) => {
                (known.looked, known.until) = (looked, looked + LOOK_AGAIN);
                Ok(known.url.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn discover(&self, http: &mut Http) -> Result<Url, FetchError> {
        for location in self.locations.clone() {
            let answer =
                http.send(|client| client.get(location).header("accept", "application/json")).await?;
            match answer.status {
                200 => return self.read(&answer.body),
                // Not there: the other place is the other standard's.
                404 | 405 | 410 => {}
                status => return Err(FetchError::Status { status, retry_after: answer.retry_after }),
            }
        }
        Err(FetchError::Metadata("there is none"))
    }

    fn read(&self, body: &[u8]) -> Result<Url, FetchError> {
        let metadata: Metadata =
            serde_json::from_slice(body).map_err(|_| FetchError::Metadata("it is not a JSON object"))?;
        if metadata.issuer.as_deref() != Some(&self.issuer) {
            return Err(FetchError::Metadata(
                "its `issuer` is not the configured one, character by character",
            ));
        }
        let endpoint = metadata.token_endpoint.ok_or(FetchError::Metadata("it has no `token_endpoint`"))?;
        provider_url("token_endpoint", &endpoint, self.plaintext)
            .map_err(|_| FetchError::Metadata("its `token_endpoint` is not an https URL"))
    }
}

/// OpenID Connect Discovery 1.0 §4: behind the issuer's path.
fn openid(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    url.set_path(&format!("{}/.well-known/openid-configuration", issuer.path().trim_end_matches('/')));
    url
}

/// RFC 8414 §3.1: between the issuer's host and its path.
fn oauth(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    url.set_path(&format!("/.well-known/oauth-authorization-server{}", issuer.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_two_standards_say() {
        for (issuer, first, second) in [
            (
                "https://a.example",
                "/.well-known/openid-configuration",
                "/.well-known/oauth-authorization-server",
            ),
            (
                "https://a.example/x/",
                "/x/.well-known/openid-configuration",
                "/.well-known/oauth-authorization-server/x",
            ),
        ] {
            let url = Url::parse(issuer).unwrap();
            assert_eq!((openid(&url).path(), oauth(&url).path()), (first, second));
        }
    }

    #[test]
    fn metadata_of_another_issuer_is_refused() {
        let Endpoint::Discovered(discovery) =
            Endpoint::build(Some("https://a.example"), None, false).unwrap()
        else {
            panic!("an issuer is discovered")
        };
        let read = |text: &str| discovery.read(text.as_bytes());
        let good = "{\"issuer\":\"https://a.example\",\"token_endpoint\":\"https://b.example/t\"}";
        assert_eq!(read(good).unwrap().as_str(), "https://b.example/t");
        for bad in [
            "",
            "[]",
            "{}",
            "{\"issuer\":\"https://a.example/\",\"token_endpoint\":\"https://a.example/t\"}",
            "{\"issuer\":\"https://a.example\"}",
            "{\"issuer\":\"https://a.example\",\"token_endpoint\":\"http://b.example/t\"}",
            "{\"issuer\":\"https://a.example\",\"token_endpoint\":\"/t\"}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_provider_is_https_or_loopback() {
        let build = |url: &str| Endpoint::build(None, Some(url), false);
        assert!(build("https://a.example/token").is_ok() && build("http://127.0.0.1:1/token").is_ok());
        for bad in [
            "http://a.example/token",
            "ftp://a.example",
            "a.example",
            "https://u:p@a.example/",
            "https://a.example/#f",
        ] {
            assert_eq!(build(bad).unwrap_err().key(), "token_endpoint", "{bad}");
        }
        assert!(Endpoint::build(None, None, false).is_err());
    }
}
