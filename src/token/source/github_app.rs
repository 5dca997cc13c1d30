//! An installation of a GitHub App: a JWT signed with the app's key, for a token that speaks for the installation. It is
//! GitHub's own protocol (REST API, "Create an installation access token for an app"), not OAuth.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

use super::Fetched;
use crate::{
    invalid::Invalid,
    rfc3339,
    secret::SecretRef,
    token::{
        access_token::AccessToken,
        answer::{Issued, Lifetime, MAX_LIFETIME},
        assertion::AssertionKey,
        client_auth::kept,
        clock::Clock,
        error::FetchError,
        http::{Answer, Http, HttpConfig, check_proxied, provider_url},
        signer::SigningAlg,
        skew::{self, SigningClock},
    },
};

/// The keys of a credential of type `github_app`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GithubAppConfig {
    /// The app's client id, or its app id in quotes.
    pub client_id: String,
    /// The number of the installation, the last part of its URL in the settings.
    pub installation_id: u64,
    /// The app's private key in PEM.
    pub app_key: SecretRef,
    /// Where the API is; `https://HOST/api/v3` for GitHub Enterprise Server.
    #[serde(default = "api_url")]
    pub api_url: String,
    /// Names of repositories, without their owner; left out, all that the installation may see.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Permissions such as `{ contents = "read" }`; left out, all that the installation has.
    #[serde(default)]
    pub permissions: BTreeMap<String, String>,
    /// A PEM file with an authority for the provider's certificate, beside those of the machine.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy for token requests.
    pub http_proxy: Option<String>,
}

fn api_url() -> String {
    "https://api.github.com".into()
}

/// An installation that is ready to be asked for.
pub(in crate::token) struct GithubApp {
    http: Http,
    clock: Clock,
    url: Url,
    app: String,
    key: AssertionKey,
    signing: SigningClock,
    // Nothing, when no less is asked for than there is.
    body: Option<String>,
}

#[derive(Deserialize)]
struct Installation {
    token: Zeroized,
    expires_at: Option<String>,
}

/// Wiped when it is dropped.
struct Zeroized(Zeroizing<String>);

impl<'de> Deserialize<'de> for Zeroized {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl GithubApp {
    /// Checks the section; the key must be there now.
    pub(in crate::token) fn build(config: &GithubAppConfig, clock: Clock) -> Result<Self, Invalid> {
        let mut url = provider_url("api_url", &config.api_url, false)?;
        check_proxied(config.http_proxy.as_deref(), &[Some(&config.api_url)])?;
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{path}/app/installations/{}/access_tokens", config.installation_id));
        let key = kept("app_key", Some(&config.app_key))?;
        let key = AssertionKey::private("app_key", key, None, Some(SigningAlg::RS256), None)?;
        let mut wanted = json!({});
        if !config.repositories.is_empty() {
            wanted["repositories"] = json!(config.repositories);
        }
        if !config.permissions.is_empty() {
            wanted["permissions"] = json!(config.permissions);
        }
        let http = HttpConfig {
            ca_file: config.ca_file.clone(),
            proxy: config.http_proxy.clone(),
            ..HttpConfig::default()
        };
        let http = Http::new(http, clock.clone())?;
        let body = (wanted != json!({})).then(|| wanted.to_string());
        let signing = SigningClock::default();
        Ok(Self { http, clock, url, app: config.client_id.clone(), key, signing, body })
    }

    /// Asks for a token once.
    pub(in crate::token) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let now = self.signing.now(self.clock.now().wall);
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // GitHub refuses what was issued in its own future, and advises a minute; it must not live longer than ten.
        let claims = json!({ "iss": self.app, "iat": now.saturating_sub(60), "exp": now + 300 });
        let jwt = self.key.sign_claims(&claims)?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", *jwt)).map_err(|_| FetchError::Signing)?;
        authorization.set_sensitive(true);
        let (url, body) = (self.url.clone(), self.body.clone());
        let sent = self.http.send(|client| {
            let request = client
                .post(url)
                .header(AUTHORIZATION, authorization)
                .header(ACCEPT, "application/vnd.github+json")
                .header("x-github-api-version", "2022-11-28");
            match body {
                Some(body) => request.header(CONTENT_TYPE, "application/json").body(body),
                None => request,
            }
        });
        let Answer { status, body, retry_after, skew, .. } = sent.await?;
        let outcome = match status {
            200..=299 => self.read(&body, skew),
            404 => Err(FetchError::Installation("GitHub knows no such installation of this app")),
            422 => Err(FetchError::Installation(
                "GitHub does not grant these `repositories` or `permissions` to this installation",
            )),
            status => Err(FetchError::Status { status, retry_after }),
        };
        self.signing.learn(self.url.host_str(), outcome.as_ref().err(), skew);
        outcome
    }

    fn read(&self, body: &[u8], skew: Option<f64>) -> Result<Fetched, FetchError> {
        let Installation { token, expires_at } = serde_json::from_slice(body)
            .map_err(|_| FetchError::Malformed("it is not a JSON object with a `token`"))?;
        let token = AccessToken::new(token.0.as_str())
            .map_err(|_| FetchError::Malformed("`token` does not fit into a header"))?;
        let end = expires_at.as_deref().and_then(rfc3339::parse);
        // The end is by GitHub's clock: what is left of it is counted by the same clock.
        let now = skew::theirs(self.clock.now().wall, skew);
        let left = |end: SystemTime| {
            let left = end.duration_since(now).unwrap_or_default().min(MAX_LIFETIME);
            Duration::from_secs(left.as_secs())
        };
        let lifetime = end.map_or(Lifetime::Unknown, |end| Lifetime::Known(left(end)));
        Ok(Fetched { issued: Issued { token, lifetime, scope: None, refresh: None }, narrowed: false, skew })
    }

    /// Whether the key has been replaced.
    pub(in crate::token) fn look(&mut self) -> bool {
        let changed = self.key.look();
        if changed {
            self.signing.renewed();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, thread};

    use super::*;

    #[tokio::test]
    async fn a_fetch_reads_no_file_and_leaves_a_new_key_to_the_next_look() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let renew = || {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
            fs::write(file.path(), key.serialize_pem()).unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        };
        renew();
        let github = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = json!({
            "client_id": "Iv1",
            "installation_id": 42,
            "app_key": { "file": file.path() },
            "api_url": format!("http://{}", github.local_addr().unwrap()),
        });
        let config = serde_json::from_value(config).unwrap();
        let mut source = GithubApp::build(&config, Clock::default()).unwrap();
        renew();
        let hung_up = thread::spawn(move || drop(github.accept().unwrap()));
        assert!(source.fetch().await.is_err());
        hung_up.join().unwrap();
        assert!(source.look());
    }
}
