//! A caller that speaks HTTP/2 with prior knowledge, and frames by hand for what no library would send.

use std::{io, net::SocketAddr, path::Path};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, Request, Response, Version};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::Runtime,
    task::JoinHandle,
    time,
};

use super::fake_server::PATIENCE;

/// What becomes of a stream.
#[derive(Clone, Debug)]
pub struct Http2Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Why it broke off, if it did.
    pub reset: Option<Reason>,
}

impl Http2Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reason why attaché itself answered.
    pub fn reason(&self) -> Option<String> {
        let text = self.text();
        let (_, rest) = text.split_once("\"reason\":\"")?;
        Some(rest.split('"').next()?.to_owned())
    }
}

/// A stream whose answer is still to come.
pub struct Exchange {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// A connection to a sidecar.
pub struct Http2Caller {
    pub runtime: Runtime,
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// A request to `localhost` for a path.
pub fn http2_request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("http://localhost{path}"))
        .version(Version::HTTP_2)
        .body(())
        .unwrap()
}

impl Http2Caller {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address))
    }

    /// Connects to a Unix socket.
    pub fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path))
    }

    fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        connecting: impl Future<Output = io::Result<S>>,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, connection) = runtime.block_on(async {
            let (sender, connection) = h2::client::handshake(connecting.await.unwrap()).await.unwrap();
            (sender, tokio::spawn(connection))
        });
        Self { runtime, sender, connection }
    }

    /// Sends a head, and the whole body unless there is none.
    pub fn begin(&mut self, request: Request<()>, body: Option<&[u8]>) -> Exchange {
        let mut exchange = self.open(request, body.is_none());
        if let Some(body) = body {
            // One that has been answered already may be closed.
            let _ = exchange.body.send_data(Bytes::copy_from_slice(body), true);
        }
        exchange
    }

    /// Sends a head.
    pub fn open(&mut self, request: Request<()>, last: bool) -> Exchange {
        let sender = self.sender.clone();
        self.runtime.block_on(async {
            let mut sender = within(sender.ready()).await.expect("the connection is open");
            let (response, body) = sender.send_request(request, last).unwrap();
            Exchange { response, body }
        })
    }

    /// The head of an answer.
    pub fn head(&self, exchange: Exchange) -> (Response<RecvStream>, SendStream<Bytes>) {
        let Exchange { response, body } = exchange;
        (self.runtime.block_on(within(response)).unwrap(), body)
    }

    /// The rest of an answer.
    pub fn rest(&self, exchange: Exchange) -> Http2Answer {
        self.runtime.block_on(within(answer(exchange.response)))
    }

    /// One request and its answer.
    pub fn ask(&mut self, request: Request<()>, body: Option<&[u8]>) -> Http2Answer {
        let exchange = self.begin(request, body);
        self.rest(exchange)
    }

    pub fn get(&mut self, path: &str) -> Http2Answer {
        self.ask(http2_request("GET", path), None)
    }

    /// Whether a request is answered with 200, and not refused with its connection.
    pub fn was_served(self) -> bool {
        let sender = self.sender.clone();
        self.block_on(async {
            let Ok(mut sender) = sender.ready().await else { return false };
            let Ok((response, _)) = sender.send_request(http2_request("GET", "/"), true) else {
                return false;
            };
            response.await.is_ok_and(|response| response.status() == 200)
        })
    }

    /// Waits for something that must happen.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(within(future))
    }

    /// Waits until the other side has said that it takes CONNECT for tunnels.
    pub fn wait_for_extended_connect(&self) {
        self.block_on(async {
            while !self.sender.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Ends the connection, once everything that was sent is out.
    pub fn leave(self) {
        let Self { runtime, sender, connection } = self;
        drop(sender);
        let _ended = runtime.block_on(within(connection));
    }

    /// Waits until the other side has ended the connection: without an error, or with what it complained of.
    pub fn ended(self) -> Result<(), h2::Error> {
        let Self { runtime, sender, connection } = self;
        let ended = runtime.block_on(within(connection)).unwrap();
        drop(sender);
        ended
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Reads an answer to its end.
pub async fn answer(response: ResponseFuture) -> Http2Answer {
    let mut answer =
        Http2Answer { status: 0, headers: HeaderMap::new(), body: Vec::new(), trailers: None, reset: None };
    let response = match response.await {
        Ok(response) => response,
        Err(error) => {
            answer.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
            return answer;
        }
    };
    answer.status = response.status().as_u16();
    answer.headers = response.headers().clone();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                body.flow_control().release_capacity(data.len()).unwrap();
                answer.body.extend_from_slice(&data);
            }
            Err(error) => {
                answer.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
                return answer;
            }
        }
    }
    match body.trailers().await {
        Ok(trailers) => answer.trailers = trailers,
        Err(error) => answer.reset = Some(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
    }
    answer
}

/// The beginning of a connection by hand: the preface and empty SETTINGS.
pub const OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame by hand (RFC 9113 §4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block by hand: every field literal, none indexed (RFC 7541 §6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}
