//! Keys of every kind, as PEM and as JWK; and what is no key.

use aws_lc_rs::encoding::{AsBigEndian as _, EcPrivateKeyBin};
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};

use super::*;

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The contents of the DER values that stand one behind the other.
fn contents(mut der: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let [_tag, first, rest @ ..] = der {
        let (length, rest) = match first {
            0..0x80 => (usize::from(*first), rest),
            long => {
                let (length, rest) = rest.split_at(usize::from(long & 0x7f));
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
        };
        found.push(&rest[..length]);
        der = &rest[length..];
    }
    found
}

fn rsa_jwk(pair: &rcgen::KeyPair) -> Value {
    let pkcs8 = pair.serialize_der();
    let outer = contents(contents(&pkcs8)[0])[2];
    let numbers: Vec<_> = contents(contents(outer)[0])
        .into_iter()
        .map(|number| encode(number.strip_prefix(&[0]).unwrap_or(number)))
        .collect();
    let names = ["version", "n", "e", "d", "p", "q", "dp", "dq", "qi"];
    let mut jwk = json!({ "kty": "RSA", "kid": "rsa 1", "alg": "PS256", "use": "sig" });
    for (name, number) in names.iter().zip(numbers).skip(1) {
        jwk[name] = number.into();
    }
    jwk
}

fn curve_jwk(pair: &rcgen::KeyPair, name: &str) -> Value {
    let alg = match name {
        "P-256" => &ECDSA_P256_SHA256_FIXED_SIGNING,
        _ => &ECDSA_P384_SHA384_FIXED_SIGNING,
    };
    let key = EcdsaKeyPair::from_private_key_der(alg, &pair.serialize_der()).unwrap();
    let private: EcPrivateKeyBin<'_> = key.private_key().as_be_bytes().unwrap();
    let point = &pair.public_key_raw()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({ "kty": "EC", "crv": name, "x": encode(x), "y": encode(y), "d": encode(private.as_ref()) })
}

fn ed25519_jwk(pair: &rcgen::KeyPair) -> Value {
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pair.serialize_der()).unwrap();
    let seed = key.seed().unwrap().as_be_bytes().unwrap();
    json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key_raw()), "d": encode(seed.as_ref()) })
}

fn every_kind() -> Vec<(rcgen::KeyPair, Value)> {
    let pair = |kind| rcgen::KeyPair::generate_for(kind).unwrap();
    let (rsa, ed25519) = (pair(&rcgen::PKCS_RSA_SHA256), pair(&rcgen::PKCS_ED25519));
    let (p256, p384) = (pair(&rcgen::PKCS_ECDSA_P256_SHA256), pair(&rcgen::PKCS_ECDSA_P384_SHA384));
    let jwks = [rsa_jwk(&rsa), curve_jwk(&p256, "P-256"), curve_jwk(&p384, "P-384"), ed25519_jwk(&ed25519)];
    [rsa, p256, p384, ed25519].into_iter().zip(jwks).collect()
}

#[test]
fn a_jwk_is_the_same_key_as_its_pem() {
    for (pair, jwk) in every_kind() {
        let read = PrivateKey::read(&jwk.to_string()).unwrap();
        let spki = rustls::pki_types::SubjectPublicKeyInfoDer::from(pair.subject_public_key_info());
        assert!(read.key.belongs_to(&spki), "{jwk}");
        assert!(PrivateKey::read(&pair.serialize_pem()).unwrap().key.belongs_to(&spki));
        assert_eq!(read.id.as_deref(), jwk["kid"].as_str());
        assert_eq!(read.alg.is_some(), jwk["alg"].is_string());
    }
}

#[test]
fn a_jwk_that_is_not_whole_or_not_one_key_is_refused() {
    for (_, jwk) in every_kind() {
        let parts = jwk.as_object().unwrap().keys().filter(|part| part.len() < 3);
        for part in parts {
            for bad in [Value::Null, "".into(), "AA".into(), "!".into(), 7.into()] {
                let mut broken = jwk.clone();
                broken[part] = bad;
                assert!(PrivateKey::read(&broken.to_string()).is_err(), "{part} of {}", jwk["kty"]);
            }
        }
    }
    for bad in ["{}", "{", "{\"keys\":[]}", "{\"kty\":\"oct\",\"k\":\"aGk\",\"d\":\"x\"}"] {
        assert!(PrivateKey::read(bad).is_err(), "{bad}");
    }
    let mut odd = every_kind().remove(0).1;
    odd["alg"] = "RS1".into();
    assert!(PrivateKey::read(&odd.to_string()).err().unwrap().contains("alg"));
}

proptest::proptest! {
    #[test]
    fn no_key_panics(text in ".{0,60}", part in "[A-Za-z0-9_-]{0,90}", kind in "RSA|EC|OKP|oct", curve in "P-256|P-384|Ed25519|X") {
        proptest::prop_assert!(PrivateKey::read(&text).is_err());
        let names = ["n", "e", "x", "y", "d", "p", "q", "dp", "dq", "qi"];
        let parts: Vec<_> = names.iter().map(|name| format!("\"{name}\":\"{part}\"")).collect();
        let jwk = format!("{{\"kty\":\"{kind}\",\"crv\":\"{curve}\",{}}}", parts.join(","));
        proptest::prop_assert!(PrivateKey::read(&jwk).is_err());
    }
}
