//! Whom attaché believes: the machine's authorities, else (an image without a bundle) the ones built in; and those of a
//! `ca_file` beside them. With `SSL_CERT_FILE` or `SSL_CERT_DIR` those alone are the machine's, even if there are none.
//!
//! 1. A `ca_file` is read at once, so that a mistake shows before a port is bound.
//! 2. The machine's bundle is read when the first certificate is to be judged: that is half of what a start costs, and
//!    a sidecar whose peers are all on the loopback never needs it.
//! 3. It is read once for all, and again only when it has changed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::SystemTime,
};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::provider;

/// Judges the certificates of servers exactly as rustls does, from the first one on.
#[derive(Debug)]
pub(super) struct Anchors {
    // Of the `ca_file`.
    extra: RootCertStore,
    provider: Arc<CryptoProvider>,
    verifier: OnceLock<Arc<WebPkiServerVerifier>>,
}

impl Anchors {
    /// The machine's alone.
    pub(super) fn of_the_machine() -> Self {
        Self { extra: RootCertStore::empty(), provider: provider(), verifier: OnceLock::new() }
    }

    /// The machine's, and others beside them; an error says what is wrong with one.
    pub(super) fn with(extra: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut anchors = Self::of_the_machine();
        for certificate in extra {
            anchors.extra.add(certificate).map_err(|error| error.to_string())?;
        }
        Ok(anchors)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let machine = machine_roots();
        if self.extra.is_empty() {
            return machine;
        }
        let mut roots = RootCertStore::clone(&machine);
        roots.roots.extend(self.extra.roots.iter().cloned());
        Arc::new(roots)
    }

    fn verifier(&self) -> Result<&WebPkiServerVerifier, Error> {
        if let Some(verifier) = self.verifier.get() {
            return Ok(verifier);
        }
        let made = WebPkiServerVerifier::builder_with_provider(self.roots(), Arc::clone(&self.provider))
            .build()
            // There are none: those that the environment names cannot be read.
            .map_err(|_| Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        Ok(self.verifier.get_or_init(|| made))
    }
}

impl ServerCertVerifier for Anchors {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Where Linux distributions keep all anchors in one file: Debian and Alpine, Fedora, SUSE, others.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

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
    if !cfg!(target_os = "linux") || is_chosen() {
        return None;
    }
    BUNDLES
        .iter()
        .find_map(|path| Some((path.into(), fs::metadata(path).and_then(|file| file.modified()).ok()?)))
}

/// Whether the environment says whom to believe.
fn is_chosen() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|path| !path.is_empty()))
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
    or_built_in(roots, is_chosen())
}

/// The ones built in, where there are none, unless the environment names some: whoever names a few authorities does not mean all
/// of the public ones.
fn or_built_in(mut roots: RootCertStore, is_chosen: bool) -> RootCertStore {
    match (roots.is_empty(), is_chosen) {
        (false, _) => {}
        (true, false) => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        (true, true) => tracing::warn!(
            "SSL_CERT_FILE or SSL_CERT_DIR lead to no certificate; no public authority is believed"
        ),
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger() -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        made.cert.der().clone()
    }

    #[test]
    fn an_extra_authority_stands_beside_the_others() {
        let without = Anchors::of_the_machine().roots().len();
        assert!(without > 0);
        assert_eq!(Anchors::with(vec![stranger()]).unwrap().roots().len(), without + 1);
        assert_eq!(Anchors::of_the_machine().roots().len(), without);
    }

    #[test]
    fn who_names_authorities_gets_no_others_even_if_there_are_none() {
        assert!(or_built_in(RootCertStore::empty(), true).is_empty());
        assert!(!or_built_in(RootCertStore::empty(), false).is_empty());
    }

    #[test]
    fn the_machines_authorities_are_read_once_for_all() {
        if bundle().is_some() {
            assert!(Arc::ptr_eq(&Anchors::of_the_machine().roots(), &Anchors::of_the_machine().roots()));
        }
    }

    #[test]
    fn nobody_is_believed_without_an_authority_for_it() {
        let (server, name) = (stranger(), ServerName::try_from("localhost").unwrap());
        let judged = |anchors: Anchors, name: &ServerName<'_>| {
            anchors.verify_server_cert(&server, &[], name, &[], UnixTime::now()).is_ok()
        };
        assert!(!judged(Anchors::of_the_machine(), &name));
        assert!(!judged(Anchors::with(vec![stranger()]).unwrap(), &name));
        let believed = || Anchors::with(vec![server.clone()]).unwrap();
        assert!(judged(believed(), &name));
        assert!(!judged(believed(), &ServerName::try_from("elsewhere").unwrap()));
    }
}
