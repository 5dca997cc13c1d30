//! The embedded identity provider: discovery, keys, and short-lived signed JWTs for one client.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    constant_time,
    encoding::AsDer as _,
    rand,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::output;

/// How long a token lasts, in seconds: short enough to see it being replaced.
pub(super) const LIFETIME: u64 = 10;

/// What the demo's client is called.
pub(super) const CLIENT_ID: &str = "demo service";

/// A provider with a key and a client that exist as long as the process does.
pub(super) struct Provider {
    issuer: String,
    secret: Zeroizing<String>,
    signing: EncodingKey,
    // The coordinates of the public key, Base64url.
    public: (String, String),
    issued: AtomicU64,
    quiet: bool,
}

impl Provider {
    pub(super) fn new(issuer: String, quiet: bool) -> io::Result<Self> {
        let failed = |_| io::Error::other("no key could be made");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let der = key.private_key().as_der().map(|_| ()).and_then(|()| key.to_pkcs8v1()).map_err(failed)?;
        // Uncompressed: a byte 4, then two coordinates of 32 bytes (SEC 1 §2.3.3).
        let point = key.public_key().as_ref();
        let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let mut secret = [0; 24];
        rand::fill(&mut secret).map_err(failed)?;
        Ok(Self {
            issuer,
            // With characters that a client must encode before Basic.
            secret: Zeroizing::new(format!("+&:%{}", BASE64_STANDARD.encode(secret))),
            signing: EncodingKey::from_ec_der(der.as_ref()),
            public: (coordinate(&point[1..33]), coordinate(&point[33..])),
            issued: AtomicU64::new(0),
            quiet,
        })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// What an upstream needs to verify tokens.
    pub(super) fn verifier(&self) -> Option<Verifier> {
        let key = DecodingKey::from_ec_components(&self.public.0, &self.public.1).ok()?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 0;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&["demo upstream"]);
        Some(Verifier { key, validation })
    }

    /// RFC 6749 §2.3.1: id and secret are form-urlencoded inside Basic.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let pair = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
            .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
            .and_then(|pair| String::from_utf8(pair).ok());
        let Some((id, secret)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else { return false };
        let decode = |text: &str| {
            let pair = format!("x={text}");
            let decoded = form_urlencoded::parse(pair.as_bytes()).next();
            Zeroizing::new(decoded.map(|(_, value)| value.into_owned()).unwrap_or_default())
        };
        *decode(id) == CLIENT_ID
            && constant_time::verify_slices_are_equal(decode(secret).as_bytes(), self.secret.as_bytes())
                .is_ok()
    }

    fn issue(&self) -> Option<String> {
        let number = self.issued.fetch_add(1, Ordering::Relaxed) + 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "iss": self.issuer,
            "sub": CLIENT_ID,
            "aud": "demo upstream",
            "iat": now,
            "exp": now + LIFETIME,
            "jti": format!("token {number}"),
        });
        if !self.quiet {
            // A closed standard output ends the demo by itself; it is no reason to refuse a token.
            let _ = output::line(&format!("provider   issues token {number}, good for {LIFETIME} s"));
        }
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signing).ok()
    }
}

/// Verifies the provider's tokens.
#[derive(Clone)]
pub(super) struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// The claims of a token that is good now.
    pub(super) fn claims(&self, token: &str) -> Option<Value> {
        jsonwebtoken::decode::<Value>(token, &self.key, &self.validation).ok().map(|token| token.claims)
    }
}

pub(super) fn router(provider: Arc<Provider>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/jwks", get(jwks))
        .route("/token", post(token))
        .with_state(provider)
}

async fn metadata(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let issuer = &provider.issuer;
    Json(json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn jwks(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let (x, y) = &provider.public;
    Json(json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": x, "y": y }] }))
}

async fn token(
    State(provider): State<Arc<Provider>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, Json<Value>) {
    let refuse = |status, error| (status, Json(json!({ "error": error })));
    if !provider.knows(&headers) {
        return refuse(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    let grant = form_urlencoded::parse(body.as_bytes()).find(|(name, _)| name == "grant_type");
    if grant.is_none_or(|(_, grant)| grant != "client_credentials") {
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type");
    }
    match provider.issue() {
        Some(token) => {
            let answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": LIFETIME });
            (StatusCode::OK, Json(answer))
        }
        None => refuse(StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    }
}
