//! A key that signs: read from PEM (RFC 7468) or from a JSON Web Key (RFC 7517), as providers hand them out.

use aws_lc_rs::{
    hmac,
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::signer::SigningAlg;

/// A key, by its kind.
pub(super) enum Key {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Shared(Box<hmac::Key>),
}

/// A private key, and what stood beside it.
pub(super) struct PrivateKey {
    pub(super) key: Key,
    /// The `kid` of a JWK.
    pub(super) id: Option<String>,
    /// The `alg` of a JWK, if attaché signs with it.
    pub(super) alg: Option<SigningAlg>,
}

const KINDS: &str = "it is not an RSA (2048 to 8192 bits), P-256, P-384 or Ed25519 key";

impl PrivateKey {
    /// Reads a key in PEM (PKCS#8, PKCS#1 or SEC1) or as one JWK.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        if text.trim_start().starts_with('{') {
            return jwk(text);
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| "it holds no private key in PEM, or an encrypted one, nor a JWK")?;
        Ok(Self { key: pem(&der).ok_or(KINDS)?, id: None, alg: None })
    }
}

impl Key {
    /// Whether this is the key of a certificate with this SubjectPublicKeyInfo. The key's own bytes are the end of it
    /// for each kind (RFC 5280 §4.1: a bit string behind the algorithm), and long enough to be nothing else's end.
    pub(super) fn belongs_to(&self, spki: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => spki.ends_with(key.public_key().as_ref()),
            Self::P256(key) | Self::P384(key) => spki.ends_with(key.public_key().as_ref()),
            Self::Ed25519(key) => spki.ends_with(key.public_key().as_ref()),
            Self::Shared(_) => false,
        }
    }
}

fn pem(der: &PrivateKeyDer<'_>) -> Option<Key> {
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

/// RFC 7518 §6, RFC 8037 §2. What is not known is ignored (RFC 7517 §4). Borrowed: no copy of a secret is left behind.
#[derive(Deserialize)]
struct Jwk<'a> {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    n: Option<&'a str>,
    e: Option<&'a str>,
    x: Option<&'a str>,
    y: Option<&'a str>,
    d: Option<&'a str>,
    p: Option<&'a str>,
    q: Option<&'a str>,
    dp: Option<&'a str>,
    dq: Option<&'a str>,
    qi: Option<&'a str>,
}

fn jwk(text: &str) -> Result<PrivateKey, &'static str> {
    // serde_json's own message shows what it could not read.
    let jwk: Jwk<'_> = serde_json::from_str(text).map_err(|_| "it is JSON, but not one JWK")?;
    if jwk.d.is_none() {
        return Err("it is a JWK without its private part `d`");
    }
    let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => rsa(&jwk),
        ("EC", Some("P-256")) => curve(&jwk, 32).map(|(private, public)| {
            let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
            EcdsaKeyPair::from_private_key_and_public_key(alg, &private, &public).ok().map(Key::P256)
        }),
        ("EC", Some("P-384")) => curve(&jwk, 48).map(|(private, public)| {
            let alg = &ECDSA_P384_SHA384_FIXED_SIGNING;
            EcdsaKeyPair::from_private_key_and_public_key(alg, &private, &public).ok().map(Key::P384)
        }),
        ("OKP", Some("Ed25519")) => ed25519(&jwk),
        _ => return Err(KINDS),
    };
    let key = key.flatten().ok_or("it is a JWK whose parts are missing or do not belong together")?;
    let alg = match jwk.alg.as_deref() {
        None => None,
        Some(name) => {
            // Through serde: the names of the algorithms are written down once.
            let alg = serde_json::from_value(name.into());
            Some(alg.map_err(|_| "it is a JWK with an `alg` that attaché does not sign with")?)
        }
    };
    Ok(PrivateKey { key, id: jwk.kid, alg })
}

fn bytes(part: Option<&str>) -> Option<Zeroizing<Vec<u8>>> {
    BASE64_URL_SAFE_NO_PAD.decode(part?).ok().map(Zeroizing::new)
}

/// The outer option is for parts that are missing, the inner one for those that do not fit.
fn rsa(jwk: &Jwk<'_>) -> Option<Option<Key>> {
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: bytes(jwk.n)?, e: bytes(jwk.e)? },
        d: bytes(jwk.d)?,
        p: bytes(jwk.p)?,
        q: bytes(jwk.q)?,
        dP: bytes(jwk.dp)?,
        dQ: bytes(jwk.dq)?,
        qInv: bytes(jwk.qi)?,
    };
    let view = KeyPairComponents {
        public_key: PublicKeyComponents {
            n: components.public_key.n.as_slice(),
            e: components.public_key.e.as_slice(),
        },
        d: components.d.as_slice(),
        p: components.p.as_slice(),
        q: components.q.as_slice(),
        dP: components.dP.as_slice(),
        dQ: components.dQ.as_slice(),
        qInv: components.qInv.as_slice(),
    };
    Some(RsaKeyPair::from_components(&view).ok().map(Key::Rsa))
}

/// The private number and the uncompressed point (SEC 1 §2.3.3).
fn curve(jwk: &Jwk<'_>, size: usize) -> Option<(Zeroizing<Vec<u8>>, Vec<u8>)> {
    let private = bytes(jwk.d)?;
    let (x, y) = (bytes(jwk.x)?, bytes(jwk.y)?);
    let fits = private.len() == size && x.len() == size && y.len() == size;
    fits.then(|| (private, [&[4], x.as_slice(), y.as_slice()].concat()))
}

fn ed25519(jwk: &Jwk<'_>) -> Option<Option<Key>> {
    let seed = bytes(jwk.d)?;
    let public = bytes(jwk.x)?;
    // A longer seed would be cut.
    let fits = seed.len() == 32;
    Some(Ed25519KeyPair::from_seed_and_public_key(&seed, &public).ok().filter(|_| fits).map(Key::Ed25519))
}

#[cfg(test)]
mod tests;
