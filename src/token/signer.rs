//! Signing of JWTs (RFC 7515, RFC 7518) with a private key in PEM, or with a shared secret.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        RsaKeyPair,
    },
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How an assertion is signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SigningAlg {
    /// RSA, PKCS#1 v1.5.
    RS256,
    /// RSA, PSS.
    PS256,
    /// The curve P-256.
    ES256,
    /// The curve P-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// The client's secret, SHA-256.
    HS256,
    /// The client's secret, SHA-384.
    HS384,
    /// The client's secret, SHA-512.
    HS512,
}

enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Shared(Box<hmac::Key>),
}

/// A key and the way it signs.
pub(super) struct Signer {
    alg: SigningAlg,
    key: Key,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?})", self.alg)
    }
}

impl Signer {
    /// Reads a private key in PEM (PKCS#8, PKCS#1 or SEC1). Without `alg` the key decides; RSA then means RS256.
    pub(super) fn from_pem(pem: &str, alg: Option<SigningAlg>) -> Result<Self, &'static str> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| "it holds no private key in PEM, or an encrypted one")?;
        let key = key(&der).ok_or("it is not an RSA (2048 to 8192 bits), P-256, P-384 or Ed25519 key")?;
        let (usual, fits) = match (&key, alg) {
            (Key::Rsa(_), alg) => {
                (SigningAlg::RS256, matches!(alg, None | Some(SigningAlg::RS256 | SigningAlg::PS256)))
            }
            (Key::P256(_), alg) => (SigningAlg::ES256, matches!(alg, None | Some(SigningAlg::ES256))),
            (Key::P384(_), alg) => (SigningAlg::ES384, matches!(alg, None | Some(SigningAlg::ES384))),
            (_, alg) => (SigningAlg::EdDSA, matches!(alg, None | Some(SigningAlg::EdDSA))),
        };
        if !fits {
            return Err("the key is of another kind than `signing_alg` needs");
        }
        Ok(Self { alg: alg.unwrap_or(usual), key })
    }

    /// Signs with a secret that the provider knows too. Without `alg`: HS256.
    pub(super) fn from_secret(secret: &str, alg: Option<SigningAlg>) -> Result<Self, &'static str> {
        let alg = alg.unwrap_or(SigningAlg::HS256);
        let hash = match alg {
            SigningAlg::HS256 => hmac::HMAC_SHA256,
            SigningAlg::HS384 => hmac::HMAC_SHA384,
            SigningAlg::HS512 => hmac::HMAC_SHA512,
            _ => return Err("`signing_alg` needs a private key, not a secret"),
        };
        Ok(Self { alg, key: Key::Shared(Box::new(hmac::Key::new(hash, secret.as_bytes()))) })
    }

    /// The claims as a signed JWT; nothing when the machine has no randomness.
    pub(super) fn sign(&self, key_id: Option<&str>, claims: &Value) -> Option<String> {
        let mut header = json!({ "alg": format!("{:?}", self.alg), "typ": "JWT" });
        if let Some(key_id) = key_id {
            header["kid"] = key_id.into();
        }
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let text =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.signature(text.as_bytes())?;
        Some(format!("{text}.{}", encode(&signature)))
    }

    fn signature(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        Some(match &self.key {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding: &dyn signature::RsaEncoding = match self.alg {
                    SigningAlg::PS256 => &signature::RSA_PSS_SHA256,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                key.sign(padding, &random, message, &mut signature).ok()?;
                signature
            }
            Key::P256(key) | Key::P384(key) => key.sign(&random, message).ok()?.as_ref().to_vec(),
            Key::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Key::Shared(key) => hmac::sign(key, message).as_ref().to_vec(),
        })
    }
}

fn key(der: &PrivateKeyDer<'_>) -> Option<Key> {
    let bytes = der.secret_der();
    if let PrivateKeyDer::Pkcs1(_) = der {
        return RsaKeyPair::from_der(bytes).ok().map(Key::Rsa);
    }
    let curve = |alg| EcdsaKeyPair::from_private_key_der(alg, bytes).ok();
    None.or_else(|| curve(&ECDSA_P256_SHA256_FIXED_SIGNING).map(Key::P256))
        .or_else(|| curve(&ECDSA_P384_SHA384_FIXED_SIGNING).map(Key::P384))
        .or_else(|| RsaKeyPair::from_pkcs8(bytes).ok().map(Key::Rsa))
        .or_else(|| Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).ok().map(Key::Ed25519))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    #[test]
    fn each_algorithm_signs_what_another_library_accepts() {
        let rows = [
            (&rcgen::PKCS_RSA_SHA256, SigningAlg::RS256, Algorithm::RS256),
            (&rcgen::PKCS_RSA_SHA256, SigningAlg::PS256, Algorithm::PS256),
            (&rcgen::PKCS_ECDSA_P256_SHA256, SigningAlg::ES256, Algorithm::ES256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, SigningAlg::ES384, Algorithm::ES384),
            (&rcgen::PKCS_ED25519, SigningAlg::EdDSA, Algorithm::EdDSA),
        ];
        for (kind, alg, expected) in rows {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let public = pair.public_key_raw();
            let key = match expected {
                Algorithm::RS256 | Algorithm::PS256 => DecodingKey::from_rsa_der(public),
                Algorithm::EdDSA => DecodingKey::from_ed_der(public),
                _ => DecodingKey::from_ec_der(public),
            };
            let signer = Signer::from_pem(&pair.serialize_pem(), Some(alg)).unwrap();
            let jwt = signer.sign(Some("k1"), &json!({ "aud": "a", "exp": 4_000_000_000_u64 })).unwrap();
            let mut validation = Validation::new(expected);
            validation.set_audience(&["a"]);
            let token = jsonwebtoken::decode::<Value>(&jwt, &key, &validation).unwrap();
            assert_eq!(token.header.kid.as_deref(), Some("k1"));
            assert!(Signer::from_pem(&pair.serialize_pem(), Some(SigningAlg::HS256)).is_err());
            assert!(Signer::from_pem(&pair.serialize_pem(), None).is_ok());
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for bad in ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(!Signer::from_pem(bad, None).unwrap_err().contains("hunter2"));
        }
        assert!(Signer::from_secret("s", Some(SigningAlg::RS256)).is_err());
    }
}
