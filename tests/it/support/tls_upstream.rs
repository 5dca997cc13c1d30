//! A plain upstream behind TLS that keeps its connections and tells what it saw of each.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use attache::tls;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::tls_server::Authority;

/// Files that are replaced as a whole, readable by their owner only.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let (next, path) = (self.path("next"), self.path(name));
        fs::write(&next, content).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(next, &path).unwrap();
        path
    }
}

/// Each answer tells the number of the connection, the name that was asked for, and the [`mark`] of the caller's certificate:
/// `1 localhost a1b2`.
pub struct TlsUpstream {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
}

impl TlsUpstream {
    /// With a certificate of `authority` for `name`; callers need one of `callers`, if that is given.
    pub fn start(authority: &Authority, name: &str, callers: Option<&Authority>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let config = Arc::new(Mutex::new(config(authority, name, callers)));
        let (current, connections) = (Arc::clone(&config), AtomicUsize::new(0));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
                let config = Arc::clone(&current.lock().unwrap());
                thread::spawn(move || serve(number, config, stream.unwrap()));
            }
        });
        Self { address, config }
    }

    /// New connections meet a certificate of another authority.
    pub fn renew(&self, authority: &Authority, name: &str) {
        *self.config.lock().unwrap() = config(authority, name, None);
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

pub fn config(authority: &Authority, name: &str, callers: Option<&Authority>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(tls::provider());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match callers {
        None => builder.with_no_client_auth(),
        Some(callers) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(callers.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let (certificate, key) = authority.issue(name);
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

fn serve(number: usize, config: Arc<ServerConfig>, stream: TcpStream) {
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        request.clear();
        let mark = stream.conn.peer_certificates().map_or("none".into(), |chain| end(&chain[0]));
        let body = format!("{number} {} {mark}", stream.conn.server_name().unwrap_or("none"));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

/// What tells two certificates in PEM apart: the end of their signature.
pub fn mark(certificate: &str) -> String {
    end(&CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
}

fn end(certificate: &CertificateDer<'_>) -> String {
    certificate[certificate.len() - 8..].iter().map(|byte| format!("{byte:02x}")).collect()
}
