//! TLS as attaché uses it towards others: verification always, one crypto provider, the machine's trust anchors.

mod kept;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::SystemTime,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::{CertifiedKey, SingleCertAndKey},
};

pub use self::kept::{Edition, KeptTls, Look, TlsFiles};
use crate::invalid::Invalid;

/// The crypto provider of the whole process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Where Linux distributions keep all anchors in one file: Debian and Alpine, Fedora, SUSE, others.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Trust anchors: those of the machine, else (an image without a CA bundle) the ones built in; and `ca_file`, if
/// given, beside them.
pub fn roots(ca_file: Option<&Path>) -> Result<Arc<RootCertStore>, Invalid> {
    let Some(path) = ca_file else { return Ok(machine_roots()) };
    let pem = fs::read(path).map_err(|error| unusable(path, &error.kind().to_string()))?;
    certificates_in(&pem).and_then(roots_with).map_err(|why| unusable(path, &why))
}

/// The machine's trust anchors with others beside them.
fn roots_with(extra: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, String> {
    let shared = machine_roots();
    if extra.is_empty() {
        return Ok(shared);
    }
    let mut roots = RootCertStore::clone(&shared);
    for certificate in extra {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(Arc::new(roots))
}

/// The machine's anchors: read once for all credentials and routes, and again only when the bundle has changed. Reading
/// them is most of what a start costs, and a copy for each user most of what it takes in memory.
fn machine_roots() -> Arc<RootCertStore> {
    type Read = (PathBuf, SystemTime, Arc<RootCertStore>);
    // A lock, not a cell: the next reload may find another bundle. It is taken at start and reload only.
    static LAST: Mutex<Option<Read>> = Mutex::new(None);

    let Some((bundle, changed)) = bundle() else { return Arc::new(parse_machine_roots(None)) };
    let mut last = LAST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match &*last {
        Some((path, at, roots)) if *path == bundle && *at == changed => roots.clone(),
        _ => {
            let roots = Arc::new(parse_machine_roots(Some(&bundle)));
            *last = Some((bundle, changed, roots.clone()));
            roots
        }
    }
}

/// The machine's one file with all anchors, unless `SSL_CERT_FILE` or `SSL_CERT_DIR` name others. The directory beside it
/// holds the same ones again, a file each, which costs hundreds of system calls to read.
fn bundle() -> Option<(PathBuf, SystemTime)> {
    if !cfg!(target_os = "linux")
        || ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| env::var_os(name).is_some())
    {
        return None;
    }
    BUNDLES
        .iter()
        .find_map(|path| Some((path.into(), fs::metadata(path).and_then(|file| file.modified()).ok()?)))
}

fn parse_machine_roots(bundle: Option<&Path>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be parsed are skipped: one odd anchor on the machine must not end everything.
    if bundle.is_some() {
        roots.add_parsable_certificates(rustls_native_certs::load_certs_from_paths(bundle, None).certs);
    }
    if roots.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
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
    let mut config = config_with(roots(ca_file)?, identity)?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Without protocols.
fn config_with(
    roots: Arc<RootCertStore>,
    identity: Option<Arc<CertifiedKey>>,
) -> Result<ClientConfig, Invalid> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Invalid::new("", format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots);
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

/// The certificates of a PEM file; at least one.
fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
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
        assert_eq!(roots(Some(file.path())).unwrap_err().key(), "ca_file");
        assert_eq!(roots(Some(Path::new("/nonexistent"))).unwrap_err().key(), "ca_file");
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

    #[test]
    fn an_extra_authority_stands_beside_the_others() {
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(certificate.cert.pem().as_bytes()).unwrap();
        let without = roots(None).unwrap().len();
        assert!(without > 0);
        assert_eq!(roots(Some(file.path())).unwrap().len(), without + 1);
        assert_eq!(roots(None).unwrap().len(), without);
    }

    #[test]
    fn the_machines_authorities_are_read_once_for_all() {
        if bundle().is_some() {
            assert!(Arc::ptr_eq(&roots(None).unwrap(), &roots(None).unwrap()));
        }
    }
}
