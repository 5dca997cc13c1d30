//! A server behind TLS that asks its callers for a certificate, as RFC 8705 wants it of a provider.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, SystemTime},
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::time::Instant;

use super::fake_server::PATIENCE;

/// An authority that issues certificates.
pub struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A certificate and its key, in PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        self.issue_with(rcgen::CertificateParams::new([name.to_owned()]).unwrap())
    }

    /// The same for a year, of which so much is left.
    pub fn issue_with_left(&self, name: &str, left: Duration) -> (String, String) {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        let ends = SystemTime::now() + left;
        params.not_before = (ends - Duration::from_secs(365 * 24 * 3600)).into();
        params.not_after = ends.into();
        self.issue_with(params)
    }

    fn issue_with(&self, params: rcgen::CertificateParams) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A request, and the certificate of who sent it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub authorization: Option<String>,
    pub body: Vec<u8>,
    pub certificate: Option<Vec<u8>>,
}

/// Answers each request with JSON, and closes.
pub struct TlsServer {
    pub address: SocketAddr,
    seen: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

impl TlsServer {
    /// `localhost` by `authority`; callers need a certificate of it when `strict`, and may show one otherwise.
    pub fn start(
        authority: &Authority,
        strict: bool,
        answer: impl Fn(&Seen, SocketAddr) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let config = Arc::new(config(authority, strict));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<(Mutex<Vec<Seen>>, Condvar)> = Arc::default();
        let (noted, answer) = (Arc::clone(&seen), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, noted, answer) = (Arc::clone(&config), Arc::clone(&noted), Arc::clone(&answer));
                thread::spawn(move || converse(config, stream.unwrap(), address, &noted, &*answer));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// Waits until so many requests have come.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.0.lock().unwrap();
        while seen.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "only {} of {count} requests came", seen.len());
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
        seen.clone()
    }
}

fn config(authority: &Authority, strict: bool) -> ServerConfig {
    let provider = attache::tls::provider();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = if strict { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
    let (certificate, key) = authority.issue("localhost");
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap()
}

fn converse(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    address: SocketAddr,
    noted: &(Mutex<Vec<Seen>>, Condvar),
    answer: &dyn Fn(&Seen, SocketAddr) -> (u16, String),
) -> Option<()> {
    let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let mut reader = BufReader::new(tls);
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        // A caller that we do not believe, or that does not believe us, ends here.
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let field = |name: &str| {
        let mut fields = head.iter().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    if let Some(given) = field("content-length") {
        length = given.parse().unwrap();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut tls = reader.into_inner();
    let certificate = tls.conn.peer_certificates().map(|chain| chain[0].to_vec());
    let seen = Seen { line: head[0].clone(), authorization: field("authorization"), body, certificate };
    let (status, json) = answer(&seen, address);
    noted.0.lock().unwrap().push(seen);
    noted.1.notify_all();
    let head = "Content-Type: application/json\r\nConnection: close";
    write!(tls, "HTTP/1.1 {status} X\r\n{head}\r\nContent-Length: {}\r\n\r\n{json}", json.len()).ok()?;
    tls.conn.send_close_notify();
    tls.flush().ok()
}
