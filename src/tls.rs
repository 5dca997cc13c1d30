//! TLS as attaché uses it towards others: verification always, one crypto provider, the machine's trust anchors.

mod anchors;
mod kept;
mod validity;

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

use self::anchors::Anchors;
pub use self::{
    kept::{Edition, KeptTls, Look, TlsFiles},
    validity::{Herald, Standing, Validity},
};
use crate::invalid::Invalid;

/// The largest PEM file that is read, in bytes: a bundle of all public authorities has a quarter of that.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The crypto provider of the whole process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Whom to believe: the machine's authorities, and those of `ca_file` beside them, if it is given.
fn anchors(ca_file: Option<&Path>) -> Result<Anchors, Invalid> {
    let Some(path) = ca_file else { return Ok(Anchors::of_the_machine()) };
    read(path)
        .and_then(|pem| certificates_in(&pem))
        .and_then(Anchors::with)
        .map_err(|why| unusable(path, &why))
}

/// A configuration for connections to others, with the given ALPN protocols in order of preference.
///
/// Verification cannot be turned off: there is no key for it.
pub fn client_config(ca_file: Option<&Path>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Invalid> {
    client_config_as(None, ca_file, alpn)
}

/// The same, with the certificate by which we are known there. It is shown to whoever asks for one.
pub fn client_config_as(
    identity: Option<Arc<CertifiedKey>>,
    ca_file: Option<&Path>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, Invalid> {
    let mut config = config_with(anchors(ca_file)?, identity)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The same configuration, whose anchors are not read again, with another certificate. Sessions in which the old one was
/// shown are not resumed.
pub fn with_identity(config: &ClientConfig, identity: Arc<CertifiedKey>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
    config.resumption = Resumption::default();
    Arc::new(config)
}

/// Without protocols.
fn config_with(anchors: Anchors, identity: Option<Arc<CertifiedKey>>) -> Result<ClientConfig, Invalid> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Invalid::new("", format!("TLS cannot be set up: {error}")))?
        // A verifier of our own, only so that the machine's authorities are read no sooner than they are needed.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anchors));
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    })
}

/// A certificate, the intermediate ones behind it, and its private key, all in PEM. What is wrong is told without
/// showing any of it.
pub fn identity(certificates: &str, key: &str) -> Result<Arc<CertifiedKey>, &'static str> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
    let chain = chain.map_err(|_| "the certificate is not in PEM")?;
    if chain.is_empty() {
        return Err("there is no certificate in PEM");
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "the private key is not in PEM, or is encrypted")?;
    let identity = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "the private key is not the one of the certificate",
        rustls::Error::InvalidCertificate(_) => "the certificate cannot be read",
        _ => "the private key is of a kind that TLS cannot use",
    })?;
    Ok(Arc::new(identity))
}

/// A file in PEM, or what is wrong with it.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let fail = |error: io::Error| error.kind().to_string();
    // A named pipe in its place must not keep us waiting for somebody to write.
    let without_waiting = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path).map_err(fail)?;
    if !file.metadata().map_err(fail)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("it is larger than 1 MiB".into());
    }
    Ok(bytes)
}

/// The certificates of a PEM file; at least one. The library's own message shows the line that it could not read: in a
/// file that holds a private key too, on one line, that line is the key.
fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| "it is not in PEM")?;
    if certificates.is_empty() {
        return Err("it holds no certificate".into());
    }
    Ok(certificates)
}

fn unusable(path: &Path, why: &str) -> Invalid {
    let path: PathBuf = path.to_owned();
    Invalid::new("ca_file", format!("cannot use `{}`: {why}", path.display()))
        .hint("name a PEM file with the certificate of the authority that signed the server's")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"not a certificate\n").unwrap();
        assert_eq!(client_config(Some(file.path()), &[]).unwrap_err().key(), "ca_file");
        assert_eq!(client_config(Some(Path::new("/nonexistent")), &[]).unwrap_err().key(), "ca_file");
        // For ever, if it were read to its end.
        assert_eq!(client_config(Some(Path::new("/dev/zero")), &[]).unwrap_err().key(), "ca_file");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_a_line_of_it() {
        // As a variable or a folded YAML string leaves a key: without its line breaks.
        let folded = "-----BEGIN PRIVATE KEY-----hunter2-----END PRIVATE KEY-----\n";
        let broken = "-----BEGIN hunter2\n";
        for text in [folded, broken, "-----BEGIN CERTIFICATE-----\nhunter2*\n-----END CERTIFICATE-----\n"] {
            let told = certificates_in(text.as_bytes()).unwrap_err();
            // The library shows bytes as numbers.
            assert!(!told.contains("hunter2") && !told.contains("104, 117"), "{told}");
        }
    }

    #[test]
    fn an_identity_is_a_certificate_and_its_own_key() {
        let pair = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem())
        };
        let ((certificate, key), (_, other)) = (pair("a"), pair("b"));
        assert!(identity(&certificate, &key).is_ok());
        for (certificate, key) in [(&*certificate, &*other), (&certificate, ""), ("", &key), (&key, &key)] {
            assert!(identity(certificate, key).is_err());
        }
        let known = identity(&certificate, &key).unwrap();
        assert!(client_config_as(Some(known), None, &[]).unwrap().client_auth_cert_resolver.has_certs());
        assert!(!client_config(None, &[]).unwrap().client_auth_cert_resolver.has_certs());
    }
}
