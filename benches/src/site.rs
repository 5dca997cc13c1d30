//! What stands around the targets: the upstreams, the token endpoint, certificates, the token, a working directory.

use std::{
    cell::Cell,
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::engine::{self, Answer, Answers, BYTE, Engine, LARGE, Large, Stock};

pub struct Site {
    pub directory: PathBuf,
    pub token: String,
    /// An upstream that refuses requests without the token. It speaks HTTP/1.1, and HTTP/2 with prior knowledge.
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// The same with TLS and nothing but HTTP/2.
    pub tls2: SocketAddr,
    /// An upstream for those that inject nothing: the relay and nobody.
    pub open: SocketAddr,
    /// The token endpoint, and a collector of spans.
    pub tokens: SocketAddr,
    /// What shows that something happens: tokens that live for a short time, and the answer to spans.
    short: Vec<Rc<Answer>>,
    spans: Rc<Answer>,
}

/// A body of this many bytes is asked for by the name beside it.
pub const SIZES: [(&str, usize); 4] = [("128", 128), ("64k", 65_536), ("1m", 1 << 20), ("up", 128)];

impl Site {
    pub fn build(engine: &mut Engine, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        // nginx adds to it.
        let _ = fs::remove_file(directory.join("access.log"));
        // As long as a usual JWT, and not a secret: it opens nothing. Its last byte is another one after a refresh.
        let start: String = "eyJhbGciOi.bench-".chars().chain("x0Y1z2W3".chars().cycle()).take(899).collect();
        let token = format!("{start}1");
        fs::write(directory.join("secret"), "not-a-secret")?;
        fs::set_permissions(directory.join("secret"), fs::Permissions::from_mode(0o600))?;
        let tls = certificates(&directory)?;
        let stock = Rc::new(Stock::new()?);
        let sized = |size| answer_from(Some(&stock), "200 OK", &vec![BYTE; size]);
        let mut by_name: Vec<_> = SIZES.iter().map(|(name, size)| (*name, sized(*size))).collect();
        by_name.push((GRPC.1, grpc_answer()));
        for (path, lifetime, end) in [("token", 86_400, 1), ("short", 2, 1), ("short", 2, 2)] {
            let json =
                format!(r#"{{"access_token":"{start}{end}","token_type":"Bearer","expires_in":{lifetime}}}"#);
            by_name.push((path, answer("200 OK", json.as_bytes())));
        }
        let short =
            by_name.iter().filter(|(name, _)| *name == "short").map(|(_, answer)| answer.clone()).collect();
        // A collector of spans takes them all (OTLP over HTTP: an empty message says so).
        let spans = answer("200 OK", b"");
        by_name.push(("traces", spans.clone()));
        let refusal = answer("401 Unauthorized", b"");
        let answers = |credential| {
            let (by_name, refusal) = (by_name.clone(), refusal.clone());
            Rc::new(Answers { by_name, credential, refusal, second: false.into() })
        };
        let strict = answers(Some(format!("Bearer {start}").into_bytes()));
        let open = answers(None);
        Ok(Self {
            plain: engine.listen(&strict, None)?,
            tls: engine.listen(&strict, Some(tls(&[])))?,
            tls2: engine.listen(&strict, Some(tls(&[b"h2"])))?,
            open: engine.listen(&open, None)?,
            tokens: engine.listen(&open, None)?,
            directory,
            token,
            short,
            spans,
        })
    }

    /// How many tokens that live for a short time were asked for, and how many batches of spans were sent.
    pub fn counts(&self) -> [u64; 2] {
        [self.short.iter().map(|answer| answer.given.get()).sum(), self.spans.given.get()]
    }
}

/// The service and the method that gRPC callers ask for, and the bytes of a message in its frame.
pub const GRPC: (&str, &str) = ("bench.Echo", "Unary");
pub const GRPC_MESSAGE: usize = 5 + 128;

const FIELDS: [(&str, &str); 4] = [
    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ("content-type", "application/json"),
    ("cache-control", "no-store"),
    ("x-request-id", "8d1f0c6e"),
];

fn answer(status: &str, body: &[u8]) -> Rc<Answer> {
    answer_from(None, status, body)
}

/// The same, if it is a large one whose body is kept in the kernel.
fn answer_from(stock: Option<&Rc<Stock>>, status: &str, body: &[u8]) -> Rc<Answer> {
    let length = body.len().to_string();
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in FIELDS.iter().chain([&("content-length", length.as_str())]) {
        head += &format!("{name}: {value}\r\n");
    }
    let mut http2 = Vec::new();
    // One frame, and within the window that every connection begins with.
    if body.len() < 16_384 {
        let mut fields = vec![(":status", &status[..3])];
        fields.extend_from_slice(&FIELDS);
        fields.push(("content-length", &length));
        engine::put_frame(&mut http2, engine::HEADERS, engine::END_HEADERS, 0, &engine::literals(&fields));
        engine::put_frame(&mut http2, engine::DATA, engine::END_STREAM, 0, body);
    }
    head += "\r\n";
    let large = stock.filter(|_| body.len() >= LARGE).map(|stock| Large {
        head: head.as_bytes().into(),
        stock: stock.clone(),
        size: body.len(),
    });
    let http1 = [head.as_bytes(), body].concat().into();
    Rc::new(Answer { http1, large, http2, given: Cell::new(0) })
}

/// A message as gRPC frames it: not compressed, its length, its bytes.
pub fn grpc_message() -> Vec<u8> {
    let length = GRPC_MESSAGE as u8 - 5;
    [&[0, 0, 0, 0, length][..], &vec![b'x'; length.into()]].concat()
}

fn grpc_answer() -> Rc<Answer> {
    let mut http2 = Vec::new();
    let head = engine::literals(&[(":status", "200"), ("content-type", "application/grpc")]);
    engine::put_frame(&mut http2, engine::HEADERS, engine::END_HEADERS, 0, &head);
    engine::put_frame(&mut http2, engine::DATA, 0, 0, &grpc_message());
    let trailers = engine::literals(&[("grpc-status", "0"), ("grpc-message", "")]);
    engine::put_frame(&mut http2, engine::HEADERS, engine::END_HEADERS | engine::END_STREAM, 0, &trailers);
    Rc::new(Answer { http1: Rc::new([]), large: None, http2, given: Cell::new(0) })
}

/// An authority and a certificate for `localhost`; TLS 1.3 with one cipher suite that every target has. What is returned makes a
/// server's configuration with the protocols that it offers (ALPN).
fn certificates(directory: &Path) -> io::Result<impl Fn(&[&[u8]]) -> Arc<rustls::ServerConfig> + use<>> {
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
    Ok(move |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    })
}
