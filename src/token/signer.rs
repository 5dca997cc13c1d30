//! Signing of JWTs (RFC 7515, RFC 7518) with a private key, or with a shared secret.

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    signature::{self, RsaEncoding},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject as _},
    server::ParsedCertificate,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::private_key::{Key, PrivateKey};

/// How an assertion is signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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

/// A key and the way it signs.
pub(super) struct Signer {
    alg: SigningAlg,
    key: Key,
    // The `kid` that a JWK came with.
    key_id: Option<String>,
    // Of the certificate, for `x5t#S256` (RFC 7515 §4.1.8).
    thumbprint: Option<String>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?})", self.alg)
    }
}

impl Signer {
    /// Reads a private key in PEM or as a JWK. Without `alg` the key decides; RSA then means RS256. With its certificate,
    /// in PEM, assertions carry the certificate's thumbprint.
    pub(super) fn from_key(
        text: &str,
        alg: Option<SigningAlg>,
        certificate: Option<&str>,
    ) -> Result<Self, &'static str> {
        let PrivateKey { key, id, alg: own } = PrivateKey::read(text)?;
        let alg = match (alg, own) {
            (Some(alg), Some(own)) if alg != own => {
                return Err("its `alg` is another one than `signing_alg`");
            }
            (alg, own) => alg.or(own),
        };
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
        let thumbprint = certificate.map(|certificate| thumbprint(certificate, &key)).transpose()?;
        Ok(Self { alg: alg.unwrap_or(usual), key, key_id: id, thumbprint })
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
        Ok(Self {
            alg,
            key: Key::Shared(Box::new(hmac::Key::new(hash, secret.as_bytes()))),
            key_id: None,
            thumbprint: None,
        })
    }

    /// The claims as a signed JWT; nothing when the machine has no randomness.
    pub(super) fn sign(&self, key_id: Option<&str>, claims: &Value) -> Option<String> {
        let mut header = json!({ "alg": format!("{:?}", self.alg), "typ": "JWT" });
        if let Some(key_id) = key_id.or(self.key_id.as_deref()) {
            header["kid"] = key_id.into();
        }
        if let Some(thumbprint) = &self.thumbprint {
            header["x5t#S256"] = thumbprint.as_str().into();
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
                let padding: &dyn RsaEncoding = match self.alg {
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

/// RFC 7515 §4.1.8, of the first certificate, which must be the key's own.
fn thumbprint(certificate: &str, key: &Key) -> Result<String, &'static str> {
    let der = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|_| "`client_certificate` holds no certificate in PEM")?;
    let parsed = ParsedCertificate::try_from(&der)
        .map_err(|_| "`client_certificate` holds a certificate that cannot be read")?;
    if !key.belongs_to(&parsed.subject_public_key_info()) {
        return Err("`client_certificate` is not the certificate of this key");
    }
    Ok(BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &der)))
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
            let signer = Signer::from_key(&pair.serialize_pem(), Some(alg), None).unwrap();
            let jwt = signer.sign(Some("k1"), &json!({ "aud": "a", "exp": 4_000_000_000_u64 })).unwrap();
            let mut validation = Validation::new(expected);
            validation.set_audience(&["a"]);
            let token = jsonwebtoken::decode::<Value>(&jwt, &key, &validation).unwrap();
            assert_eq!(token.header.kid.as_deref(), Some("k1"));
            assert!(Signer::from_key(&pair.serialize_pem(), Some(SigningAlg::HS256), None).is_err());
            assert!(Signer::from_key(&pair.serialize_pem(), None, None).is_ok());
        }
    }

    #[test]
    fn a_secret_signs_with_each_of_the_three_hashes() {
        for (alg, expected) in [
            (None, Algorithm::HS256),
            (Some(SigningAlg::HS256), Algorithm::HS256),
            (Some(SigningAlg::HS384), Algorithm::HS384),
            (Some(SigningAlg::HS512), Algorithm::HS512),
        ] {
            let signer = Signer::from_secret("hunter2", alg).unwrap();
            let jwt = signer.sign(None, &json!({ "aud": "a", "exp": 4_000_000_000_u64 })).unwrap();
            let mut validation = Validation::new(expected);
            validation.set_audience(&["a"]);
            let right = DecodingKey::from_secret(b"hunter2");
            assert!(jsonwebtoken::decode::<Value>(&jwt, &right, &validation).is_ok(), "{alg:?}");
            let wrong = DecodingKey::from_secret(b"hunter3");
            assert!(jsonwebtoken::decode::<Value>(&jwt, &wrong, &validation).is_err());
        }
    }

    #[test]
    fn an_assertion_carries_the_thumbprint_of_the_keys_own_certificate() {
        let certified = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (own, other) = (certified("a"), certified("b"));
        let key = own.signing_key.serialize_pem();
        let signer = Signer::from_key(&key, None, Some(&own.cert.pem())).unwrap();
        let jwt = signer.sign(None, &json!({})).unwrap();
        let header = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        let digest = digest::digest(&digest::SHA256, own.cert.der());
        assert_eq!(header["x5t#S256"], BASE64_URL_SAFE_NO_PAD.encode(digest));
        for certificate in [&*other.cert.pem(), "", &key] {
            assert!(Signer::from_key(&key, None, Some(certificate)).is_err());
        }
    }

    #[test]
    fn a_jwk_brings_its_kid_and_alg_and_must_not_contradict_the_configuration() {
        // The example of RFC 8037 appendix A.1.
        let jwk = |alg: &str| {
            format!(
                "{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"own\",\"alg\":\"{alg}\",\
                 \"d\":\"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A\",\
                 \"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}}"
            )
        };
        let signer = Signer::from_key(&jwk("EdDSA"), None, None).unwrap();
        let kid = |configured| {
            let jwt = signer.sign(configured, &json!({})).unwrap();
            jsonwebtoken::decode_header(jwt).unwrap().kid.unwrap()
        };
        assert_eq!((kid(None), kid(Some("other"))), ("own".to_owned(), "other".to_owned()));
        assert!(Signer::from_key(&jwk("EdDSA"), Some(SigningAlg::EdDSA), None).is_ok());
        assert!(Signer::from_key(&jwk("ES256"), Some(SigningAlg::EdDSA), None).is_err());
        assert!(Signer::from_key(&jwk("ES256"), None, None).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for bad in ["", "hunter2", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(!Signer::from_key(bad, None, None).unwrap_err().contains("hunter2"));
        }
        assert!(Signer::from_secret("s", Some(SigningAlg::RS256)).is_err());
    }
}
