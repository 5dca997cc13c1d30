//! An upstream that speaks HTTP/2, without TLS or with it.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Response, request::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
    time,
};
use tokio_rustls::TlsAcceptor;

use super::{fake_server::PATIENCE, tls_server::Authority, tls_upstream};

/// A stream as it came.
pub struct Asked {
    /// The number of the request, from 1.
    pub number: usize,
    pub head: Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
}

impl Asked {
    /// A field of the request.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// All of its body, and whether it was whole.
    pub async fn whole_body(&mut self) -> (Vec<u8>, Option<HeaderMap>, bool) {
        let mut body = Vec::new();
        while let Some(data) = self.body.data().await {
            let Ok(data) = data else { return (body, None, false) };
            self.body.flow_control().release_capacity(data.len()).unwrap();
            body.extend_from_slice(&data);
        }
        let trailers = self.body.trailers().await;
        let whole = trailers.is_ok();
        (body, trailers.unwrap_or_default(), whole)
    }

    /// A whole answer.
    pub fn answer(&mut self, status: u16, body: &[u8]) {
        let response = Response::builder().status(status).body(()).unwrap();
        let mut stream = self.respond.send_response(response, body.is_empty()).unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Http2Server {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    scheme: &'static str,
    // Ends with the server.
    _runtime: Runtime,
}

struct Shared {
    answer: Box<dyn Fn(Asked) -> Answering + Send + Sync>,
    settings: Builder,
    connections: AtomicUsize,
    requests: AtomicUsize,
    notes: Mutex<Vec<String>>,
}

impl Http2Server {
    /// Without TLS.
    pub fn start<F: Future<Output = ()> + Send + 'static>(
        answer: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::with(Builder::new(), None, answer)
    }

    /// As `localhost`, by an authority, if that is given.
    pub fn with<F: Future<Output = ()> + Send + 'static>(
        settings: Builder,
        authority: Option<&Authority>,
        answer: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self {
        let acceptor = authority.map(|authority| {
            let mut config = tls_upstream::config(authority, "localhost", None);
            Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            TlsAcceptor::from(config)
        });
        let shared = Arc::new(Shared {
            answer: Box::new(move |asked| Box::pin(answer(asked))),
            settings,
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            notes: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let accepting = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (Arc::clone(&accepting), acceptor.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    match acceptor {
                        None => shared.serve(stream).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                                shared.serve(stream).await;
                            } else {
                                shared.notes.lock().unwrap().push("not HTTP/2".into());
                            }
                        }
                    }
                });
            }
        });
        Self { address, shared, scheme, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Waits until so many requests have come.
    pub fn wait_for(&self, count: usize) {
        self.until(|| self.requests() >= count);
    }

    /// What it had to say.
    pub fn notes(&self) -> Vec<String> {
        self.shared.notes.lock().unwrap().clone()
    }

    /// Waits until it has said so much.
    pub fn wait_for_notes(&self, count: usize) -> Vec<String> {
        self.until(|| self.notes().len() >= count);
        self.notes()
    }

    fn until(&self, condition: impl Fn() -> bool) {
        let deadline = time::Instant::now() + PATIENCE;
        while !condition() {
            assert!(time::Instant::now() < deadline, "it did not come to that");
            std::thread::yield_now();
        }
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.connections.fetch_add(1, Ordering::AcqRel);
        let Ok(mut streams) = self.settings.handshake::<_, Bytes>(stream).await else { return };
        while let Some(Ok((request, respond))) = streams.accept().await {
            let (head, body) = request.into_parts();
            let number = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                (shared.answer)(Asked { number, head, body, respond }).await;
            });
        }
    }
}

/// Waits for the other side to reset a stream that is not answered yet, and tells the code.
pub async fn reset_of(respond: &mut SendResponse<Bytes>) -> String {
    told(std::future::poll_fn(|cx| respond.poll_reset(cx))).await
}

/// The same of a stream whose answer is under way.
pub async fn reset_of_stream(stream: &mut SendStream<Bytes>) -> String {
    told(std::future::poll_fn(|cx| stream.poll_reset(cx))).await
}

async fn told(reset: impl Future<Output = Result<Reason, h2::Error>>) -> String {
    match time::timeout(Duration::from_secs(20), reset).await.expect("it is reset") {
        Ok(reason) => format!("{reason:?}"),
        Err(error) => error.to_string(),
    }
}
