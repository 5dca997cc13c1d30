//! The keys by which an issuer's tokens are verified (RFC 7517): read from the place that its metadata names, kept, and
//! read again when a token names a key that is not among them, but not more often than the limit.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{self, Instant};

use super::{
    endpoint::Endpoint,
    error::FetchError,
    http::{Answer, Http},
};

/// Least time between two looks, whatever the tokens say: unknown keys cost the provider no more than this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How long the keys are believed without a look: one that the issuer has withdrawn is not believed longer than this, unless
/// the set cannot be read.
const BELIEVED: Duration = Duration::from_secs(3600);

/// How long keys that are asked for again may keep a token waiting whose key is known: an attempt has 10 s in all.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most keys that are tried for a token that names none.
const TRIED: usize = 8;

/// The keys of an issuer.
pub(super) struct Keys {
    endpoint: Endpoint,
    known: Vec<Jwk>,
    /// When the set was asked for last, and when it was read.
    looked: Option<Instant>,
    read: Option<Instant>,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    /// Nothing is read yet.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, known: Vec::new(), looked: None, read: None }
    }

    /// The keys that may have signed a token with this header. `renew`: those that were there before do not fit.
    pub(super) async fn candidates(
        &mut self,
        alg: Algorithm,
        key_id: Option<&str>,
        renew: bool,
        http: &mut Http,
    ) -> Result<Vec<DecodingKey>, FetchError> {
        let is_over = |since: Option<Instant>, limit| since.is_none_or(|since| since.elapsed() >= limit);
        let found = self.find(alg, key_id);
        let wanting = renew || found.is_empty() || is_over(self.read, BELIEVED);
        if !wanting || !is_over(self.looked, LOOK_AGAIN) {
            return Ok(found);
        }
        self.looked = Some(Instant::now());
        // Keys that are at hand and do not fit are of no use to go on with.
        let read = match renew || found.is_empty() {
            true => self.read(http).await,
            false => time::timeout(PATIENCE, self.read(http)).await.unwrap_or_else(|_| {
                self.endpoint.doubt();
                Err(FetchError::Timeout)
            }),
        };
        match read {
            Ok(keys) => (self.known, self.read) = (keys, self.looked),
            // Keys that cannot be had must not make those that are there worthless.
            Err(error) if found.is_empty() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the issuer's keys cannot be read again; those that are known stay in use")
            }
        }
        Ok(self.find(alg, key_id))
    }

    fn find(&self, alg: Algorithm, key_id: Option<&str>) -> Vec<DecodingKey> {
        let named = |key: &&Jwk| key_id.is_none() || key.common.key_id.as_deref() == key_id;
        let fits = self.known.iter().filter(named).filter(|key| fits(key, alg)).take(TRIED);
        fits.filter_map(|key| DecodingKey::from_jwk(key).ok()).collect()
    }

    async fn read(&mut self, http: &mut Http) -> Result<Vec<Jwk>, FetchError> {
        let url = self.endpoint.find(http).await?;
        let sent = http.send(|client| client.get(url).header("accept", "application/json")).await;
        let answer = match sent {
            Ok(Answer { status: 200, body, .. }) => body,
            Ok(Answer { status, retry_after, .. }) => {
                self.endpoint.doubt();
                return Err(FetchError::Status { status, retry_after });
            }
            Err(error) => {
                self.endpoint.doubt();
                return Err(error);
            }
        };
        let set: KeySet = serde_json::from_slice(&answer)
            .map_err(|_| FetchError::Metadata("its `jwks_uri` does not lead to a key set"))?;
        // RFC 7517 §5: keys of unknown kinds are ignored, one by one.
        Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }
}

/// Whether a key may verify signatures of this kind: the key says what it is for, never the token alone. A shared secret
/// in a public set never is.
fn fits(key: &Jwk, alg: Algorithm) -> bool {
    let kind = match (&key.algorithm, alg) {
        (AlgorithmParameters::RSA(_), alg) => matches!(
            alg,
            Algorithm::RS256
                | Algorithm::RS384
                | Algorithm::RS512
                | Algorithm::PS256
                | Algorithm::PS384
                | Algorithm::PS512
        ),
        (AlgorithmParameters::EllipticCurve(_), alg) => matches!(alg, Algorithm::ES256 | Algorithm::ES384),
        (AlgorithmParameters::OctetKeyPair(_), alg) => alg == Algorithm::EdDSA,
        _ => false,
    };
    let signs = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    kind && signs && key.common.key_algorithm.is_none_or(|own| own == alg.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        sync::{Arc, Mutex},
        thread,
    };

    use super::*;
    use crate::token::{clock::Clock, http::HttpConfig, metadata::Wanted};

    fn key(id: &str, more: &str) -> String {
        let point = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{id}\",\"x\":\"{point}\"{more}}}")
    }

    #[test]
    fn only_a_key_that_is_for_it_is_a_candidate() {
        let rsa = "{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}";
        let shared = "{\"kty\":\"oct\",\"k\":\"AQAB\"}";
        for (text, alg, expected) in [
            (&*key("a", ""), Algorithm::EdDSA, true),
            (&key("a", ",\"use\":\"sig\",\"alg\":\"EdDSA\""), Algorithm::EdDSA, true),
            (&key("a", ",\"use\":\"enc\""), Algorithm::EdDSA, false),
            (&key("a", ",\"alg\":\"ES256\""), Algorithm::EdDSA, false),
            (&key("a", ""), Algorithm::ES256, false),
            (rsa, Algorithm::RS256, true),
            (rsa, Algorithm::PS512, true),
            // The oldest trick: the public key as if it were a shared secret.
            (rsa, Algorithm::HS256, false),
            (shared, Algorithm::HS256, false),
        ] {
            let key: Jwk = serde_json::from_str(text).unwrap();
            assert_eq!(fits(&key, alg), expected, "{text} {alg:?}");
        }
    }

    /// Serves the metadata, and the set that is there now; counts how often the set was asked for.
    fn issuer() -> (String, Arc<Mutex<(String, usize)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let set = Arc::new(Mutex::new((String::new(), 0)));
        let (own, served) = (issuer.clone(), Arc::clone(&set));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
                let length = stream.read(&mut head).unwrap();
                let body = if head[..length].starts_with(b"GET /keys ") {
                    let mut served = served.lock().unwrap();
                    served.1 += 1;
                    served.0.clone()
                } else {
                    format!("{{\"issuer\":\"{own}\",\"jwks_uri\":\"{own}/keys\"}}")
                };
                write!(stream, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            }
        });
        (issuer, set)
    }

    #[tokio::test]
    async fn an_unknown_key_is_looked_for_but_not_more_often_than_the_limit() {
        let (issuer, set) = issuer();
        let put = |keys: &[String]| set.lock().unwrap().0 = format!("{{\"keys\":[7,{}]}}", keys.join(","));
        let asked = || set.lock().unwrap().1;
        put(&[key("one", "")]);
        let mut http = Http::new(HttpConfig::default(), Clock::default()).unwrap();
        let mut keys = Keys::new(Endpoint::find_at(&issuer, Wanted::Keys, false, false).unwrap());
        let alg = Algorithm::EdDSA;
        for (id, found) in [("one", 1), ("two", 0), ("two", 0), ("one", 1)] {
            let candidates = keys.candidates(alg, Some(id), false, &mut http).await.unwrap();
            assert_eq!((candidates.len(), asked()), (found, 1), "{id}");
        }
        put(&[key("one", ""), key("two", "")]);
        keys.looked = Some(Instant::now() - LOOK_AGAIN);
        assert_eq!(keys.candidates(alg, Some("two"), false, &mut http).await.unwrap().len(), 1);
        assert_eq!((keys.candidates(alg, None, false, &mut http).await.unwrap().len(), asked()), (2, 2));
        // Withdrawn; and then the set cannot be read, which leaves what is known.
        put(&[key("two", "")]);
        (keys.looked, keys.read) = (Some(Instant::now() - LOOK_AGAIN), Some(Instant::now() - BELIEVED));
        assert_eq!(keys.candidates(alg, None, false, &mut http).await.unwrap().len(), 1);
        set.lock().unwrap().0 = "<html>".to_owned();
        let before = asked();
        keys.read = Some(Instant::now() - BELIEVED);
        for times in 1..3 {
            keys.looked = Some(Instant::now() - LOOK_AGAIN);
            assert_eq!(keys.candidates(alg, Some("two"), false, &mut http).await.unwrap().len(), 1);
            assert_eq!(asked() - before, times, "a set that is too old is asked for until it can be read");
        }
        keys.looked = Some(Instant::now() - LOOK_AGAIN);
        assert!(keys.candidates(alg, Some("one"), false, &mut http).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_do_not_come_hold_no_token_up_whose_key_is_known() {
        // Accepts, as the kernel does for it, and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", silent.local_addr().unwrap());
        let mut http = Http::new(HttpConfig::default(), Clock::default()).unwrap();
        let mut keys = Keys::new(Endpoint::given("jwks_uri", &url, false, false).unwrap());
        keys.known = vec![serde_json::from_str(&key("one", "")).unwrap()];
        let began = Instant::now();
        assert_eq!(keys.candidates(Algorithm::EdDSA, Some("one"), false, &mut http).await.unwrap().len(), 1);
        assert!(began.elapsed() <= PATIENCE + Duration::from_millis(1), "{:?}", began.elapsed());
        // A key that is known and did not fit is no reason to give up sooner.
        keys.looked = None;
        let renewing = keys.candidates(Algorithm::EdDSA, Some("one"), true, &mut http);
        assert!(time::timeout(PATIENCE * 2, renewing).await.is_err());
    }
}
