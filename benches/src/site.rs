//! What stands around the targets: the upstreams, the token endpoint, certificates, the token, a working directory.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::engine::{Answers, Engine};

pub struct Site {
    pub directory: PathBuf,
    pub token: String,
    /// An upstream that refuses requests without the token.
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// An upstream for those that inject nothing: the relay and nobody.
    pub open: SocketAddr,
    pub tokens: SocketAddr,
}

/// A body of this many bytes is asked for by the name beside it.
pub const SIZES: [(&str, usize); 4] = [("128", 128), ("64k", 65_536), ("1m", 1 << 20), ("up", 128)];

impl Site {
    pub fn build(engine: &mut Engine, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        // As long as a usual JWT, and not a secret: it opens nothing.
        let token: String = "eyJhbGciOi.bench-".chars().chain("x0Y1z2W3".chars().cycle()).take(900).collect();
        fs::write(directory.join("secret"), "not-a-secret")?;
        fs::set_permissions(directory.join("secret"), fs::Permissions::from_mode(0o600))?;
        let tls = certificates(&directory)?;
        let mut by_name: Vec<(&'static str, Rc<[u8]>)> =
            SIZES.iter().map(|(name, size)| (*name, answer("200 OK", &vec![b'x'; *size]))).collect();
        for (path, lifetime) in [("token", 86_400), ("short", 2)] {
            let json =
                format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{lifetime}}}"#);
            by_name.push((path, answer("200 OK", json.as_bytes())));
        }
        let refusal = answer("401 Unauthorized", b"");
        let credential = Some(format!("Bearer {token}\r\n").into_bytes());
        let strict = Rc::new(Answers { by_name: by_name.clone(), credential, refusal: refusal.clone() });
        let open = Rc::new(Answers { by_name, credential: None, refusal });
        Ok(Self {
            plain: engine.listen(&strict, None)?,
            tls: engine.listen(&strict, Some(tls))?,
            open: engine.listen(&open, None)?,
            tokens: engine.listen(&open, None)?,
            directory,
            token,
        })
    }
}

fn answer(status: &str, body: &[u8]) -> Rc<[u8]> {
    let head = format!(
        "HTTP/1.1 {status}\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-type: application/json\r\n\
         cache-control: no-store\r\nx-request-id: 8d1f0c6e\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

/// An authority and a certificate for `localhost`; TLS 1.3 with one cipher suite that every target has.
fn certificates(directory: &Path) -> io::Result<Arc<rustls::ServerConfig>> {
    let other = |error: rcgen::Error| io::Error::other(error.to_string());
    let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(other)?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "bench authority");
    let ca_key = rcgen::KeyPair::generate().map_err(other)?;
    let ca = params.self_signed(&ca_key).map_err(other)?;
    fs::write(directory.join("ca.pem"), ca.pem())?;
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().map_err(other)?;
    let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).map_err(other)?;
    let leaf = leaf.signed_by(&key, &issuer).map_err(other)?;
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key))
        .map_err(io::Error::other)?;
    Ok(Arc::new(config))
}
