//! One batch to the collector: over HTTP/1.1, or as a unary gRPC call, which is a POST over HTTP/2 with five bytes in
//! front of the message and a status in the trailers.

use std::{fmt, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time,
};
use tokio_rustls::TlsConnector;

use super::{
    config::{Collector, Protocol},
    otlp,
};
use crate::{invalid::Invalid, tls};

/// The largest answer that is read, in bytes: it holds a count and an explanation.
const MAX_ANSWER: usize = 64 * 1024;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Why a batch was not taken. Never holds what the collector said.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("it cannot be reached: {0}")]
    Unreachable(&'static str),
    #[error("it took too long")]
    Timeout,
    #[error("the connection broke off")]
    Broken,
    #[error("the secret of a header cannot be read")]
    Secret,
    #[error("it answered with {protocol} status {code}")]
    Refused { protocol: &'static str, code: u16, temporary: bool, retry_after: Option<Duration> },
}

impl SendError {
    /// Whether the same batch may be taken later (OTLP, "Failures").
    pub(super) fn is_temporary(&self) -> bool {
        !matches!(self, Self::Refused { temporary: false, .. })
    }
}

/// The way to a collector, with the connection that was used last.
pub(super) struct Sender {
    collector: Collector,
    connection: Option<Connection>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({}:{})", self.collector.host, self.collector.port)
    }
}

impl Sender {
    pub(super) fn build(collector: Collector) -> Result<Self, Invalid> {
        if collector.tls {
            // What can be wrong with it is wrong at the start.
            tls::client_config(collector.ca_file.as_deref(), &[])?;
        }
        Ok(Self { collector, connection: None })
    }

    /// Sends a batch; how many of its spans were not taken.
    pub(super) async fn send(&mut self, body: Bytes) -> Result<u64, SendError> {
        let limit = self.collector.timeout;
        // Taken, so that a connection on which anything went wrong is not used again.
        let connection = self.connection.take();
        let sent = time::timeout(limit, self.exchange(connection, body)).await;
        let (rejected, connection) = sent.unwrap_or(Err(SendError::Timeout))?;
        self.connection = Some(connection);
        Ok(rejected)
    }

    async fn exchange(&self, kept: Option<Connection>, body: Bytes) -> Result<(u64, Connection), SendError> {
        let request = self.request(body)?;
        let kept = match kept {
            Some(mut connection) => connection.is_ready().await.then_some(connection),
            None => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = connection.send(request).await.map_err(|_| SendError::Broken)?;
        let rejected = match self.collector.protocol {
            Protocol::Http => read_http(response).await?,
            Protocol::Grpc => read_grpc(response).await?,
        };
        Ok((rejected, connection))
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, SendError> {
        let grpc = self.collector.protocol == Protocol::Grpc;
        let body = if grpc { framed(&body) } else { body };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        let uri = &self.collector.uri;
        let headers = request.headers_mut();
        let content_type = if grpc { "application/grpc" } else { "application/x-protobuf" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("attache/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, secret) in &self.collector.headers {
            // Read again each time: files are replaced.
            let secret = secret.read().map_err(|_| SendError::Secret)?;
            let mut value = HeaderValue::try_from(secret.expose()).map_err(|_| SendError::Secret)?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = uri.clone();
        } else {
            let host = uri.authority().map_or("", |authority| authority.as_str());
            headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|_| SendError::Broken)?);
            *request.uri_mut() = uri.path().parse().map_err(|_| SendError::Broken)?;
        }
        Ok(request)
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let Collector { host, port, .. } = &self.collector;
        const NOBODY: SendError = SendError::Unreachable("nobody answers at its address");
        let found = lookup_host((host.as_str(), *port)).await.map_err(|_| NOBODY)?;
        let addresses: Vec<_> = found.filter(|address| self.collector.may_be_at(address)).collect();
        let tcp = TcpStream::connect(&*addresses).await.map_err(|_| NOBODY)?;
        // Failing costs speed, nothing else.
        let _ = tcp.set_nodelay(true);
        if !self.collector.tls {
            return self.handshake(tcp).await;
        }
        const TLS: SendError = SendError::Unreachable("TLS failed");
        let alpn: &[u8] = if self.collector.protocol == Protocol::Grpc { b"h2" } else { b"http/1.1" };
        // Each time, so that a new authority on disk is believed.
        let config = tls::client_config(self.collector.ca_file.as_deref(), &[alpn]).map_err(|_| TLS)?;
        let name = ServerName::try_from(host.clone()).map_err(|_| TLS)?;
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|_| TLS)?;
        self.handshake(stream).await
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection, SendError> {
        let io = TokioIo::new(stream);
        Ok(match self.collector.protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await.map_err(|_| SendError::Broken)?;
                tokio::spawn(connection);
                Connection::Http1(sender)
            }
            Protocol::Grpc => {
                let shaken = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = shaken.map_err(|_| SendError::Broken)?;
                tokio::spawn(connection);
                Connection::Http2(sender)
            }
        })
    }
}

impl Connection {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

/// A message as gRPC carries it: not compressed, and how long it is.
fn framed(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    // A batch is a few hundred kilobytes.
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(message);
    framed.freeze()
}

async fn read(response: Response<Incoming>) -> Result<(Bytes, Option<HeaderMap>), SendError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|_| SendError::Broken)?;
    let trailers = body.trailers().cloned();
    Ok((body.to_bytes(), trailers))
}

async fn read_http(response: Response<Incoming>) -> Result<u64, SendError> {
    let status = response.status();
    if status.is_success() {
        return Ok(otlp::rejected(&read(response).await?.0));
    }
    let temporary = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    Err(SendError::Refused { protocol: "HTTP", code: status.as_u16(), temporary, retry_after })
}

async fn read_grpc(response: Response<Incoming>) -> Result<u64, SendError> {
    if response.status() != StatusCode::OK {
        return read_http(response).await;
    }
    // An error without a message comes with the head.
    let early = status(response.headers());
    let (body, trailers) = read(response).await?;
    match early.or_else(|| trailers.as_ref().and_then(status)) {
        Some(0) => Ok(body.get(5..).map_or(0, otlp::rejected)),
        Some(code) => {
            // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
            let temporary = matches!(code, 1 | 4 | 10 | 11 | 14 | 15);
            Err(SendError::Refused { protocol: "gRPC", code, temporary, retry_after: None })
        }
        None => Err(SendError::Broken),
    }
}

fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
