//! A cloud's metadata server: the machine's, the pod's or the function's own identity, without a secret of ours.
//!
//! It is asked over plain HTTP, and that is allowed here only: to an address that never leaves this machine (loopback or
//! link-local), written as an address or as `localhost`, which `http` takes to loopback without asking anybody: nobody's DNS
//! decides where the question goes. Redirects are not followed and no proxy is used, as everywhere. The header that each cloud demands is what keeps others from tricking a program on
//! this machine into asking (SSRF); attaché forwards nothing there, whatever a caller sends, because routes are fixed.

use std::{collections::BTreeMap, net::IpAddr};

use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Fetched;
use crate::{
    invalid::{Invalid, not_a_url},
    secret::SecretRef,
    token::{
        client_auth::kept,
        clock::Clock,
        error::FetchError,
        http::{Answer, Http, HttpConfig},
        kept_secret::KeptSecret,
        skew,
        source::metadata_answer::{self as answer, Fields},
    },
};

/// The keys of a credential of type `metadata`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MetadataConfig {
    /// Whose metadata server it is; required.
    pub server: Server,
    /// Where it is, if not where this cloud has it; required by "generic".
    pub url: Option<String>,
    /// The service account (Google) or the client id of the user-assigned identity (Azure), if not the default one.
    pub identity: Option<String>,
    /// What is asked for, separated by spaces (Google).
    pub scope: Option<String>,
    /// Whom the token is for: the resource (Azure, required), or the audience of an identity token (Google).
    pub audience: Option<String>,
    /// Further headers of the request ("generic").
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Further headers whose values are secrets ("generic"; on App Service, another place of `X-IDENTITY-HEADER`).
    #[serde(default)]
    pub secret_headers: BTreeMap<String, SecretRef>,
    /// The field of the JSON answer that holds the token, with dots for fields inside fields; empty for an answer that is the
    /// token itself ("generic").
    #[serde(default = "default_token_field")]
    pub token_field: String,
    /// The field that holds its lifetime in seconds ("generic").
    #[serde(default = "default_lifetime_field")]
    pub lifetime_field: String,
}

fn default_token_field() -> String {
    "access_token".into()
}

fn default_lifetime_field() -> String {
    "expires_in".into()
}

/// The kinds of metadata servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// Compute Engine, GKE, Cloud Run: `Metadata-Flavor: Google`.
    Google,
    /// Azure's virtual machines and AKS: `Metadata: true`.
    Azure,
    /// Azure App Service, Functions, Container Apps: `X-IDENTITY-HEADER`.
    AzureAppService,
    /// Any other that answers a GET.
    Generic,
}

/// A metadata server that is ready to be asked.
pub(in crate::token) struct Metadata {
    http: Http,
    clock: Clock,
    url: Url,
    headers: Vec<(HeaderName, HeaderValue)>,
    secrets: Vec<(HeaderName, KeptSecret)>,
    fields: Fields,
    google: bool,
}

const GOOGLE: &str = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts";
const AZURE: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

impl Metadata {
    /// Checks the section.
    pub(in crate::token) fn build(config: &MetadataConfig, clock: Clock) -> Result<Self, Invalid> {
        unused(config)?;
        let (mut headers, mut secrets) = (Vec::new(), Vec::new());
        for (name, value) in &config.headers {
            headers.push(header("headers", name, value)?);
        }
        for (name, reference) in &config.secret_headers {
            let (name, _) = header("secret_headers", name, "")?;
            let value = KeptSecret::build(reference)
                .map_err(|invalid| invalid.under(&format!("secret_headers.{name}")))?;
            secrets.push((name, value));
        }
        let mut fields = Fields::access_token();
        let url = match config.server {
            Server::Google => {
                headers.push(header("", "metadata-flavor", "Google")?);
                if config.audience.is_some() {
                    fields = Fields::bare();
                }
                google(config)?
            }
            Server::Azure => {
                headers.push(header("", "metadata", "true")?);
                azure(config, config.url.as_deref().unwrap_or(AZURE), "2018-02-01")?
            }
            Server::AzureAppService => {
                let of_environment =
                    |name: &str| SecretRef { env: Some(name.into()), ..SecretRef::default() };
                if secrets.is_empty() {
                    let value = kept("secret_headers", Some(&of_environment("IDENTITY_HEADER")))?;
                    secrets.push((HeaderName::from_static("x-identity-header"), value));
                }
                match &config.url {
                    Some(url) => azure(config, url, "2019-08-01")?,
                    None => {
                        let found = kept("url", Some(&of_environment("IDENTITY_ENDPOINT")))?;
                        azure(config, found.value().expose(), "2019-08-01")?
                    }
                }
            }
            Server::Generic => {
                fields = Fields::of(&config.token_field, &config.lifetime_field);
                let url = config.url.as_deref().ok_or_else(|| {
                    Invalid::new("url", "is missing").hint("write the URL that answers with a token")
                })?;
                local_url(url)?
            }
        };
        let http = Http::new(HttpConfig::default(), clock.clone())?;
        Ok(Self { http, clock, url, headers, secrets, fields, google: config.server == Server::Google })
    }

    /// Asks for a token once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let mut fields = self.headers.clone();
        for (name, secret) in &self.secrets {
            let mut value = HeaderValue::from_str(secret.value().expose()).map_err(|_| {
                FetchError::Malformed("a secret header holds a line break or a control character")
            })?;
            value.set_sensitive(true);
            fields.push((name.clone(), value));
        }
        let url = self.url.clone();
        let sent = self.http.send(|client| {
            let request = client.get(url).header(ACCEPT, "application/json");
            fields.into_iter().fold(request, |request, (name, value)| request.header(name, value))
        });
        let Answer { status, body, retry_after, skew, flavor } = sent.await?;
        if status != 200 {
            return Err(FetchError::Status { status, retry_after });
        }
        // Whoever answers in the place of Google's server does not say that it is it.
        if self.google && flavor.as_deref() != Some("Google") {
            return Err(FetchError::Malformed("it is not that of Google's metadata server"));
        }
        // An end in the answer is by the server's clock: what is left until then is counted by the same one.
        let now = skew::theirs(self.clock.now().wall, skew);
        let issued = answer::read(&self.fields, &body, now)?;
        Ok(Fetched { issued, narrowed: false, skew })
    }

    /// Whether a secret has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        // All of them: one that has changed must not keep the others from being looked at.
        self.secrets.iter_mut().fold(false, |changed, (_, secret)| changed | secret.look())
    }
}

fn google(config: &MetadataConfig) -> Result<Url, Invalid> {
    if config.audience.is_some() && config.scope.is_some() {
        return Err(Invalid::new("scope", "is given, and `audience` too")
            .hint("an access token has a `scope`, an identity token an `audience`"));
    }
    let mut url = local_url(config.url.as_deref().unwrap_or(GOOGLE))?;
    let what = if config.audience.is_some() { "identity" } else { "token" };
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(config.identity.as_deref().unwrap_or("default")).push(what);
    }
    if let Some(audience) = &config.audience {
        url.query_pairs_mut().append_pair("audience", audience).append_pair("format", "full");
    }
    if let Some(scope) = &config.scope {
        let scopes = scope.split_ascii_whitespace().collect::<Vec<_>>().join(",");
        url.query_pairs_mut().append_pair("scopes", &scopes);
    }
    Ok(url)
}

fn azure(config: &MetadataConfig, url: &str, version: &str) -> Result<Url, Invalid> {
    let resource = config.audience.as_deref().ok_or_else(|| {
        Invalid::new("audience", "is missing: Azure gives tokens for a resource only")
            .hint("name it, such as `https://vault.azure.net` or `api://APPLICATION-ID`")
    })?;
    let mut url = local_url(url)?;
    url.query_pairs_mut().append_pair("api-version", version).append_pair("resource", resource);
    if let Some(identity) = &config.identity {
        url.query_pairs_mut().append_pair("client_id", identity);
    }
    Ok(url)
}

/// What the kind of server does not use is a mistake, not a wish that is passed over in silence.
fn unused(config: &MetadataConfig) -> Result<(), Invalid> {
    use Server::{AzureAppService, Generic, Google};
    let server = config.server;
    for (key, given, used) in [
        ("identity", config.identity.is_some(), server != Generic),
        ("scope", config.scope.is_some(), server == Google),
        ("audience", config.audience.is_some(), server != Generic),
        ("headers", !config.headers.is_empty(), server == Generic),
        ("secret_headers", !config.secret_headers.is_empty(), matches!(server, Generic | AzureAppService)),
        ("token_field", config.token_field != default_token_field(), server == Generic),
        ("lifetime_field", config.lifetime_field != default_lifetime_field(), server == Generic),
    ] {
        if given && !used {
            return Err(Invalid::new(key, "is given, but this `server` does not use it")
                .hint("remove it, or use `server = \"generic\"`"));
        }
    }
    Ok(())
}

fn header(section: &str, name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Invalid> {
    let wrong = |why: &str| Invalid::new(section, format!("`{}` {why}", name.escape_debug()));
    let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("is not the name of a header"))?;
    let framing = ["host", "content-length", "transfer-encoding", "connection"];
    if framing.contains(&field.as_str()) {
        return Err(wrong("is a header that attaché sets itself"));
    }
    Ok((field, HeaderValue::from_str(value).map_err(|_| wrong("has a value that no header can carry"))?))
}

/// https, or http to an address that never leaves this machine.
fn local_url(text: &str) -> Result<Url, Invalid> {
    let url = Url::parse(text).map_err(|error| Invalid::new("url", not_a_url(error)))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(Invalid::new("url", "holds a user name, a password or a fragment"));
    }
    let stays = match url.host() {
        Some(url::Host::Ipv4(ip)) => stays_here(IpAddr::V4(ip)),
        Some(url::Host::Ipv6(ip)) => stays_here(IpAddr::V6(ip)),
        // This name and no other: Container Apps writes it into `IDENTITY_ENDPOINT`.
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err(Invalid::new("url", "names no host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if stays => Ok(url),
        "http" => Err(Invalid::new("url", "would ask another machine for a token in plain text").hint(
            "a metadata server is written as a loopback or link-local address, such as `http://169.254.169.254/`, or as \
             `localhost`; anything else needs https",
        )),
        _ => Err(Invalid::new("url", "is neither https nor http")),
    }
}

/// Addresses that no router passes on (RFC 3927 §7, RFC 4291 §2.5.6), and the one that AWS and Google use with IPv6.
fn stays_here(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            let [first, .., last] = ip.segments();
            ip.is_loopback()
                || first & 0xffc0 == 0xfe80
                || (ip.segments()[..7] == [0xfd00, 0xec2, 0, 0, 0, 0, 0] && last == 0x254)
        }
    }
}

#[cfg(test)]
mod tests;
