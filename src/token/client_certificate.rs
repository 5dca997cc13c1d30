//! The certificate by which the provider knows the client (RFC 8705 §2). Certificate and key are two files that are
//! replaced one after the other, or together by a symbolic link: a pair that does not match waits for its other half,
//! and the last good pair stays in use.

use std::{path::Path, sync::Arc};

use rustls::sign::CertifiedKey;

use super::{client_auth::kept, kept_secret::KeptSecret, oauth::OAuthConfig};
use crate::{
    invalid::Invalid,
    secret::SecretRef,
    tls::{self, Validity},
};

/// A certificate with its key, as they are now.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    certificate: KeptSecret,
    key: KeptSecret,
    identity: Arc<CertifiedKey>,
    validity: Option<Validity>,
}

impl ClientCertificate {
    /// That of a client that shows one during TLS; nothing for the others. A provider may demand it on its whole host, so that
    /// whatever is asked there shows it.
    pub(super) fn of(config: &OAuthConfig) -> Result<Option<Self>, Invalid> {
        let build = || Self::build(config.client_certificate.as_deref(), config.client_private_key.as_ref());
        config.client_auth.is_mutual_tls().then(build).transpose()
    }

    /// Checks that both are there and belong together.
    pub(super) fn build(certificate: Option<&Path>, key: Option<&SecretRef>) -> Result<Self, Invalid> {
        let certificate = kept_certificate(certificate)?;
        let key = kept("client_private_key", key)?;
        let identity = tls::identity(certificate.value().expose(), key.value().expose()).map_err(|why| {
            Invalid::new("client_certificate", format!("cannot be used with `client_private_key`: {why}"))
                .hint("name the PEM file with the certificate (and the intermediate ones behind it), and that with its key")
        })?;
        let validity = Validity::of_pem(certificate.value().expose().as_bytes());
        Ok(Self { certificate, key, identity, validity })
    }

    /// What is shown during TLS.
    pub(super) fn identity(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.identity)
    }

    /// From when until when the pair in use is valid.
    pub(super) fn validity(&self) -> Option<Validity> {
        self.validity
    }

    /// Whether there is a new good pair.
    pub(super) fn look(&mut self) -> bool {
        if !(self.certificate.look() | self.key.look()) {
            return false;
        }
        match tls::identity(self.certificate.value().expose(), self.key.value().expose()) {
            Ok(identity) => {
                self.identity = identity;
                self.validity = Validity::of_pem(self.certificate.value().expose().as_bytes());
                true
            }
            Err(why) => {
                tracing::warn!(
                    why,
                    "a new client certificate cannot be used yet; the last good one stays in use"
                );
                false
            }
        }
    }
}

/// The certificate, which anyone may read.
pub(super) fn kept_certificate(path: Option<&Path>) -> Result<KeptSecret, Invalid> {
    let path = path.ok_or_else(|| {
        Invalid::new("client_certificate", "is missing")
            .hint("write `client_certificate = \"/run/secrets/client.pem\"`")
    })?;
    let reference =
        SecretRef { file: Some(path.to_owned()), unsafe_world_readable: true, ..SecretRef::default() };
    kept("client_certificate", Some(&reference))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_pair_is_taken_when_both_halves_have_been_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let write = |path: &Path, text: &str| {
            fs::write(path, text).unwrap();
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        };
        let reference = SecretRef { file: Some(key.clone()), ..SecretRef::default() };
        let build = || ClientCertificate::build(Some(&certificate), Some(&reference));
        let (one, two) = (pair("one"), pair("two"));
        write(&certificate, &one.0);
        write(&key, &two.1);
        assert_eq!(build().unwrap_err().key(), "client_certificate");
        write(&key, &one.1);
        let mut known = build().unwrap();
        let first = known.identity();
        assert!(!known.look());
        write(&certificate, &two.0);
        assert!(!known.look() && Arc::ptr_eq(&first, &known.identity()), "half a pair is not used");
        write(&key, &two.1);
        assert!(known.look() && !Arc::ptr_eq(&first, &known.identity()));
        for bad in ["", "garbage", &one.1] {
            write(&key, bad);
            assert!(!known.look());
        }
    }
}
