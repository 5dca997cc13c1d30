//! The only place that makes an HTTP client for token requests: with limits, without redirects, without the proxy
//! variables of the environment, and without an error that shows a URL.

use std::{
    error::Error as _,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Response,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, DATE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use rustls::{AlertDescription, ClientConfig, sign::CertifiedKey};
use url::Url;
use zeroize::Zeroizing;

use super::{
    clock::Clock,
    error::{self, FetchError},
    skew,
};
use crate::{
    invalid::{Invalid, not_a_url},
    tls,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For one request, from the connection to the last byte of the answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Most that is read of an answer.
pub(super) const MAX_ANSWER: usize = 256 * 1024;

/// Most answers are shorter.
const USUAL_ANSWER: usize = 16 * 1024;

/// How a provider is reached.
#[derive(Clone, Debug)]
pub(super) struct HttpConfig {
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    /// The certificate by which the provider knows us (RFC 8705).
    pub(super) identity: Option<Arc<CertifiedKey>>,
    /// For one request, from the connection to the last byte of the answer.
    pub(super) timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { ca_file: None, proxy: None, identity: None, timeout: TOTAL_TIMEOUT }
    }
}

/// A client for one provider.
pub(super) struct Http {
    config: HttpConfig,
    clock: Clock,
    // Whose anchors are the last good ones.
    tls: Arc<ClientConfig>,
    client: Client,
}

/// An answer, read whole.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) retry_after: Option<Duration>,
    /// The provider's clock less ours, in seconds.
    pub(super) skew: Option<f64>,
    /// `Metadata-Flavor`, by which a metadata server says what it is.
    pub(super) flavor: Option<String>,
}

impl Http {
    pub(super) fn new(config: HttpConfig, clock: Clock) -> Result<Self, Invalid> {
        let tls = tls_config(&config)?;
        let client = client(&config, &tls)?;
        Ok(Self { config, clock, tls, client })
    }

    /// Shows another certificate from now on: every connection is a new one. Blocking: reads the trust anchors again, and
    /// keeps the last good ones where that fails, because nobody presents this certificate a second time.
    pub(super) fn present(&mut self, identity: Arc<CertifiedKey>) {
        self.config.identity = Some(Arc::clone(&identity));
        let tls = tls_config(&self.config).unwrap_or_else(|invalid| {
            tell_of_anchors(&invalid);
            tls::with_identity(&self.tls, identity)
        });
        match client(&self.config, &tls) {
            Ok(client) => (self.tls, self.client) = (tls, client),
            Err(invalid) => {
                tracing::warn!(error = invalid.message(), "a new client certificate cannot be used")
            }
        }
    }

    /// Sends a request, built by `build`, and reads the answer within the limits.
    pub(super) async fn send(
        &mut self,
        build: impl FnOnce(&Client) -> reqwest::RequestBuilder,
    ) -> Result<Answer, FetchError> {
        let answer = match build(&self.client).send().await {
            Ok(response) => self.read(response).await,
            Err(error) => Err(explain(&error)),
        };
        if matches!(answer, Err(FetchError::Tls)) {
            // The provider's authority may have been renewed on disk: the next attempt reads it again.
            let config = self.config.clone();
            let read = tokio::task::spawn_blocking(move || {
                let tls = tls_config(&config)?;
                client(&config, &tls).map(|client| (tls, client))
            });
            match read.await {
                Ok(Ok(read)) => (self.tls, self.client) = read,
                Ok(Err(invalid)) => tell_of_anchors(&invalid),
                Err(_) => tracing::error!("reading trust anchors met a bug in attaché"),
            }
        }
        answer
    }

    async fn read(&self, mut response: Response) -> Result<Answer, FetchError> {
        let status = response.status().as_u16();
        if response.status().is_redirection() {
            return Err(FetchError::Redirected);
        }
        // Of a failure the status tells more.
        if response.status().is_success() && is_coded(response.headers()) {
            return Err(FetchError::Compressed);
        }
        let (ours, theirs) = (self.clock.now().wall, date(response.headers()));
        // A date is one by the clock of whoever wrote it.
        let retry_after = field(response.headers(), &RETRY_AFTER)
            .and_then(|value| error::retry_after(value, theirs.unwrap_or(ours)));
        let skew = theirs.map(|theirs| skew::between(theirs, ours));
        let flavor = response.headers().get("metadata-flavor").and_then(|value| value.to_str().ok());
        let flavor = flavor.map(str::to_owned);
        // Grown once, by hand: what a vector leaves behind when it grows is not wiped, and is memory beside it for a moment.
        let mut body = Zeroizing::new(Vec::with_capacity(USUAL_ANSWER));
        while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(FetchError::TooLarge);
            }
            if body.len() + chunk.len() > body.capacity() {
                let mut larger = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body, retry_after, skew, flavor })
    }
}

/// When the answer was made, by the provider's clock (RFC 9110 §6.6.1).
fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(field(headers, &DATE)?).ok()
}

fn field<'a>(headers: &'a HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Codings that servers use (RFC 9110 §8.4.1, RFC 7932, RFC 8878). Of any other name it is found out by reading: some servers write
/// a charset there.
const CODINGS: [&str; 7] = ["gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"];

/// Whether the content is not as it is (RFC 9110 §8.4). Nothing here unpacks it.
fn is_coded(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONTENT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let mut codings = lines.flat_map(|line| line.split(',')).map(str::trim);
    codings.any(|coding| CODINGS.iter().any(|known| known.eq_ignore_ascii_case(coding)))
}

fn tell_of_anchors(invalid: &Invalid) {
    tracing::warn!(error = invalid.message(), "trust anchors could not be read again");
}

/// Reads the trust anchors.
fn tls_config(config: &HttpConfig) -> Result<Arc<ClientConfig>, Invalid> {
    tls::client_config_as(config.identity.clone(), config.ca_file.as_deref(), &[b"http/1.1"])
}

fn client(config: &HttpConfig, tls: &ClientConfig) -> Result<Client, Invalid> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .redirect(Policy::none())
        .referer(false)
        // Whoever asks for nothing may get anything (RFC 9110 §12.5.3).
        .default_headers([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))].into_iter().collect())
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(config.timeout)
        // Plain text is allowed to this machine only, and the name must not lead elsewhere, whatever resolves it.
        .resolve_to_addrs("localhost", &[(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()])
        // Requests are minutes apart: a kept connection would only be found closed.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("attache/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(proxy_at(proxy)?);
    }
    builder.build().map_err(|_| Invalid::new("", "an HTTP client cannot be set up"))
}

/// Checks the URL of an HTTP proxy, and shows nothing of it.
fn proxy_at(url: &str) -> Result<reqwest::Proxy, Invalid> {
    let wrong = |why| Invalid::new("http_proxy", why).hint("write it like `http://proxy.example.com:3128`");
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| wrong("is not the URL of a proxy"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("holds a user name or a password, and a configuration never holds a secret"));
    }
    reqwest::Proxy::all(url).map_err(|_| wrong("is not the URL of a proxy"))
}

/// Refuses a proxy on the way to a provider that is asked without TLS.
pub(super) fn check_proxied(proxy: Option<&str>, provider: &[Option<&str>]) -> Result<(), Invalid> {
    let is_plain = |url: &&str| Url::parse(url).is_ok_and(|url| url.scheme() == "http");
    match proxy.is_some() && provider.iter().flatten().any(is_plain) {
        false => Ok(()),
        true => Err(Invalid::new("http_proxy", "would read the secret, because the provider is not https")
            .hint("a proxy of another machine cannot reach a loopback address either: remove `http_proxy`")),
    }
}

/// What an error means. Its text is not passed on: it holds the URL.
fn explain(error: &reqwest::Error) -> FetchError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(cause) = tls_error(cause) {
            return match cause {
                rustls::Error::AlertReceived(alert) if is_about_us(*alert) => FetchError::CertificateRefused,
                _ => FetchError::Tls,
            };
        }
        source = cause.source();
    }
    match () {
        // A connection that does not come about in time included: nothing was sent.
        () if error.is_connect() => FetchError::Unreachable,
        () if error.is_timeout() => FetchError::Timeout,
        () => FetchError::Broken,
    }
}

/// An I/O error hides what it wraps from `source`, and one may wrap another.
fn tls_error<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(inner) => tls_error(inner),
        None => cause.downcast_ref(),
    }
}

/// RFC 8446 §6.2: what a server says of a client's certificate.
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// Checks the URL of a provider: https, or http to a loopback address unless the operator says otherwise.
pub(super) fn provider_url(key: &str, text: &str, plaintext: bool) -> Result<Url, Invalid> {
    let url = Url::parse(text).map_err(|error| {
        Invalid::new(key, not_a_url(error)).hint("write it like `https://login.example.com/`")
    })?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => return Err(Invalid::new(key, "names no host")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Invalid::new(key, "holds a user name or a password")
            .hint("the client's id and secret have keys of their own"));
    }
    if url.fragment().is_some() {
        return Err(Invalid::new(key, "holds a fragment (RFC 6749 section 3.2)"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback || plaintext => Ok(url),
        "http" => Err(Invalid::new(key, "would carry the secret in plain text to another machine")
            .hint("use https, or set `unsafe_plaintext = true` if everybody on the way may read the secret")),
        _ => Err(Invalid::new(key, "is neither https nor http")),
    }
}

#[cfg(test)]
mod tests;
