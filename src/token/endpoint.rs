//! Where tokens (and what belongs to them) are asked for: given, or found in the issuer's metadata (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).

use std::time::Duration;

use tokio::time::{self, Instant};
use url::Url;

use super::{
    client_auth::ClientAuthMethod,
    error::FetchError,
    http::{Answer, Http, provider_url},
    metadata::{Metadata, Plaintext, Wanted},
};
use crate::invalid::Invalid;

/// Least time between two looks at the metadata when the endpoint is known.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How long metadata is believed. Endpoints move rarely; a failure asks for them again sooner.
const BELIEVED: Duration = Duration::from_secs(3600);

/// How long metadata that is asked for again may keep an endpoint waiting that is known: an attempt has 10 s in all.
const PATIENCE: Duration = Duration::from_secs(3);

/// An endpoint of a provider.
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
    wanted: Wanted,
    mutual_tls: bool,
    plaintext: Plaintext,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    url: Url,
    methods: Option<Vec<ClientAuthMethod>>,
    looked: Instant,
    /// When the metadata is asked for again.
    until: Instant,
}

impl Endpoint {
    /// The token endpoint. Checks the two keys that say where it is.
    pub(super) fn build(
        issuer: Option<&str>,
        token_endpoint: Option<&str>,
        plaintext: bool,
        mutual_tls: bool,
    ) -> Result<Self, Invalid> {
        match (issuer, token_endpoint) {
            (_, Some(endpoint)) => Self::given("token_endpoint", endpoint, plaintext, mutual_tls),
            (Some(issuer), None) => Self::find_at(issuer, Wanted::Token, plaintext, mutual_tls),
            (None, None) => Err(Invalid::new("issuer", "is missing, and `token_endpoint` too")
                .hint("name the provider's `issuer`, or its `token_endpoint`")),
        }
    }

    /// An endpoint whose URL stands under a key.
    pub(super) fn given(
        key: &'static str,
        url: &str,
        plaintext: bool,
        mutual_tls: bool,
    ) -> Result<Self, Invalid> {
        let url = provider_url(key, url, plaintext)?;
        if mutual_tls && url.scheme() != "https" {
            return Err(Invalid::new(key, "is not https, and a client certificate is shown during TLS")
                .hint("use https, or another `client_auth`"));
        }
        Ok(Self::Given(url))
    }

    /// An endpoint that the issuer's metadata names.
    pub(super) fn find_at(
        issuer: &str,
        wanted: Wanted,
        plaintext: bool,
        mutual_tls: bool,
    ) -> Result<Self, Invalid> {
        let url = provider_url("issuer", issuer, plaintext)?;
        if url.query().is_some() {
            return Err(Invalid::new("issuer", "holds a query (RFC 8414 section 2)"));
        }
        let plaintext = match (url.scheme(), plaintext) {
            ("https", _) => Plaintext::Nowhere,
            (_, false) => Plaintext::Loopback,
            (_, true) => Plaintext::Anywhere,
        };
        Ok(Self::Discovered(Box::new(Discovery {
            issuer: issuer.to_owned(),
            locations: [openid(&url), oauth(&url)],
            wanted,
            mutual_tls,
            plaintext,
            known: None,
        })))
    }

    /// What is known of the provider without asking: where it is asked first.
    pub(super) fn first(&self) -> &Url {
        match self {
            Self::Given(url) => url,
            Self::Discovered(discovery) => &discovery.locations[0],
        }
    }

    /// The ways of client authentication that the provider lists, once its metadata has been read.
    pub(super) fn methods(&self) -> Option<&[ClientAuthMethod]> {
        match self {
            Self::Given(_) => None,
            Self::Discovered(discovery) => discovery.known.as_ref()?.methods.as_deref(),
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
        let Some(known) = &mut self.known else {
            let found = self.discover(http).await?;
            return Ok(self.learn(found));
        };
        let now = Instant::now();
        if now < known.until {
            return Ok(known.url.clone());
        }
        // Before asking: an attempt that is given up meanwhile must not leave the next one to begin with the same again.
        (known.looked, known.until) = (now, now + LOOK_AGAIN);
        let url = known.url.clone();
        Ok(match time::timeout(PATIENCE, self.discover(http)).await {
            Ok(Ok(found)) => self.learn(found),
            // Metadata that cannot be had, or not soon, must not take away an endpoint that may well work.
            Ok(Err(_)) | Err(_) => url,
        })
    }

    fn learn(&mut self, (url, methods): Found) -> Url {
        let looked = Instant::now();
        self.known = Some(Known { url: url.clone(), methods, looked, until: looked + BELIEVED });
        url
    }

    async fn discover(&self, http: &mut Http) -> Result<Found, FetchError> {
        let mut first = None;
        for location in self.locations.clone() {
            let answer = http.send(|client| client.get(location).header("accept", "application/json")).await;
            let error = match answer {
                Ok(answer) if answer.status == 200 => match self.read(&answer.body) {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                },
                // Not there: the other place is the other standard's.
                Ok(Answer { status: 404 | 405 | 410, .. }) => continue,
                Ok(Answer { status, retry_after, .. }) => FetchError::Status { status, retry_after },
                // Some servers send whoever asks for what is not there to a page for people.
                Err(FetchError::Redirected) => FetchError::Redirected,
                // The other place is at the same host.
                Err(error) => return Err(error),
            };
            first.get_or_insert(error);
        }
        Err(first.unwrap_or(FetchError::Metadata("there is none")))
    }

    fn read(&self, body: &[u8]) -> Result<Found, FetchError> {
        let metadata = Metadata::read(body, &self.issuer)?;
        Ok((metadata.url(self.wanted, self.mutual_tls, self.plaintext)?, metadata.methods()))
    }
}

/// The endpoint, and the ways of client authentication that the metadata lists.
type Found = (Url, Option<Vec<ClientAuthMethod>>);

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
    use std::net::TcpListener;

    use super::*;
    use crate::token::{clock::Clock, http::HttpConfig};

    #[tokio::test(start_paused = true)]
    async fn metadata_that_does_not_come_takes_no_endpoint_away() {
        // Accepts, as the kernel does for it, and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", silent.local_addr().unwrap());
        let mut http = Http::new(HttpConfig::default(), Clock::default()).unwrap();
        let mut endpoint = Endpoint::build(Some(&issuer), None, false, false).unwrap();
        let url = Url::parse(&format!("{issuer}/t")).unwrap();
        let known = |endpoint: &mut Endpoint| {
            let Endpoint::Discovered(discovery) = endpoint else { panic!("an issuer is discovered") };
            let looked = Instant::now();
            discovery.known = Some(Known { url: url.clone(), methods: None, looked, until: looked });
        };
        known(&mut endpoint);
        let began = Instant::now();
        assert_eq!(endpoint.find(&mut http).await, Ok(url.clone()));
        assert!(began.elapsed() <= PATIENCE + Duration::from_millis(1), "{:?}", began.elapsed());
        // An attempt that was given up in the middle of it.
        known(&mut endpoint);
        assert!(time::timeout(Duration::from_millis(500), endpoint.find(&mut http)).await.is_err());
        let began = Instant::now();
        assert_eq!(endpoint.find(&mut http).await, Ok(url.clone()));
        assert_eq!(began.elapsed(), Duration::ZERO, "it is not asked for again so soon");
    }

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
            Endpoint::build(Some("https://a.example"), None, false, false).unwrap()
        else {
            panic!("an issuer is discovered")
        };
        let read = |text: &str| discovery.read(text.as_bytes());
        let good = "{\"issuer\":\"https://a.example\",\"token_endpoint\":\"https://b.example/t\"}";
        assert_eq!(read(good).unwrap().0.as_str(), "https://b.example/t");
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
    fn metadata_leads_to_plain_text_no_further_than_the_operator_allows() {
        let leads = |issuer: &str, unsafe_plaintext: bool, endpoint: &str| {
            let built = Endpoint::build(Some(issuer), None, unsafe_plaintext, false);
            let Endpoint::Discovered(discovery) = built.unwrap() else { panic!("an issuer is discovered") };
            let text = format!("{{\"issuer\":\"{issuer}\",\"token_endpoint\":\"{endpoint}\"}}");
            discovery.read(text.as_bytes()).is_ok()
        };
        let (tls, loopback, plain) = ("https://a.example", "http://localhost:1", "http://keycloak:8080");
        for (issuer, unsafe_plaintext, allowed) in [
            (tls, false, [true, false, false]),
            (tls, true, [true, false, false]),
            (loopback, false, [true, true, false]),
            (loopback, true, [true, true, true]),
            (plain, true, [true, true, true]),
        ] {
            let found = [tls, loopback, plain].map(|endpoint| leads(issuer, unsafe_plaintext, endpoint));
            assert_eq!(found, allowed, "{issuer} {unsafe_plaintext}");
        }
    }

    #[test]
    fn a_provider_is_https_or_loopback() {
        let build = |url: &str| Endpoint::build(None, Some(url), false, false);
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
        assert!(Endpoint::build(None, None, false, false).is_err());
        let mutual = Endpoint::build(None, Some("http://127.0.0.1:1/token"), true, true);
        assert_eq!(mutual.unwrap_err().key(), "token_endpoint");
    }
}
